"""The sealer seals everything, whatever became visible when, and goes on when its file of heads cannot be written."""

from pathlib import Path

from ledger import audit
from ledger.audit import AuditEvent, AuditKind
from ledger.ledger import Ledger
from node.chores.seal import Sealer
from node.trail import heads as audit_heads

EVENT = AuditEvent(AuditKind.ACCESSED, "user:anna")


def test_what_became_visible_after_younger_records_is_sealed(ledger: Ledger, tmp_path: Path) -> None:
    sealer = Sealer(ledger, tmp_path / "heads.jsonl")
    sealer.once()  # looked back once already
    if not ledger.seals_in_order:
        with ledger._engine.connect() as slow, slow.begin():
            audit.record(slow, EVENT)
            ledger.audit(EVENT)
            sealer.once()
            assert [line.sequence for line in ledger.audit_log()] == [1]
    ledger.audit(EVENT)
    sealer.once()
    assert all(line.sequence for line in ledger.audit_log())
    assert ledger.verify_audit({}).problems == []


def test_heads_that_cannot_be_written_stop_no_seal(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sealer = Sealer(ledger, tmp_path / "file" / "heads.jsonl")
    ledger.audit(EVENT)
    sealer.once()
    sealer.export()
    assert ledger.audit_log()[0].sequence == 1


def test_heads_agree_with_the_chain_and_are_few(ledger: Ledger, tmp_path: Path) -> None:
    heads = tmp_path / "heads.jsonl"
    sealer = Sealer(ledger, heads)
    for _ in range(5):
        ledger.audit(EVENT)
        sealer.once()
    sealer.export()
    known = audit_heads.by_sequence(audit_heads.read(heads))
    assert sorted(known) == [1, 5]  # at once, and at the end
    assert ledger.verify_audit(known).heads == 2

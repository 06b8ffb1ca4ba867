"""The audit trail holds what was done, in the transaction that did it, names nobody, and shows what is done to it."""

import json
import random
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from ledger import audit, sealing
from ledger.audit import AuditEvent, AuditKind, Outcome
from ledger.bulk import Arrival
from ledger.completion import Completion
from ledger.database import open_engine, transaction
from ledger.delivery_records import DeliveryState
from ledger.errors import LedgerUnavailable
from ledger.intake import Admission
from ledger.ledger import Ledger
from ledger.store import Store
from ledger.trail import Asked
from ledger.verifying import Heads, Verdict
from tests.support.ledger_story import STUDY, Story
from tests.support.ledgers import open_fresh
from tests.support.records import received
from tests.support.tampering import outside, tamper


def access(number: int = 0) -> AuditEvent:
    return AuditEvent(AuditKind.ACCESSED, "user:someone", f"2.25.{number}", detail={"number": number})


def sealed(ledger: Ledger, count: int = 1) -> dict[int, set[str]]:
    """`count` records, sealed one after the other; every head of the chain."""
    heads: dict[int, set[str]] = {}
    for number in range(count):
        ledger.audit(access(number))
        head = ledger.seal_audit()
        assert head is not None
        heads[head.sequence] = {head.digest}
    return heads


def said(verdict: Verdict) -> str:
    return "; ".join(problem.text for problem in verdict.problems)


def test_an_untouched_chain_verifies(ledger: Ledger) -> None:
    heads = sealed(ledger, 5)
    verdict = ledger.verify_audit(heads)
    assert (verdict.records, verdict.sealed, verdict.heads, verdict.problems) == (5, 5, 5, [])


def test_what_waits_for_its_seal_is_no_problem_while_it_is_young(ledger: Ledger) -> None:
    heads = sealed(ledger)
    ledger.audit(access(7))
    verdict = ledger.verify_audit(heads)
    assert (verdict.records, verdict.sealed, verdict.waiting, verdict.problems) == (2, 1, 1, [])


def test_an_edited_record_is_named(ledger: Ledger) -> None:
    heads = sealed(ledger, 5)
    tamper(ledger, "UPDATE audit_records SET actor = 'user:other' WHERE id = 3")
    verdict = ledger.verify_audit(heads)
    assert [(problem.record_id, problem.sequence) for problem in verdict.problems] == [(3, 3)]
    assert "is not what was sealed" in said(verdict)


def test_a_deleted_record_is_named(ledger: Ledger) -> None:
    heads = sealed(ledger, 5)
    tamper(ledger, "DELETE FROM audit_records WHERE id = 3")
    verdict = ledger.verify_audit(heads)
    assert [(problem.record_id, problem.sequence) for problem in verdict.problems] == [(3, 3)]
    assert "the record 3 is gone" in said(verdict)


def test_a_record_that_went_with_its_seal_is_found(ledger: Ledger) -> None:
    heads = sealed(ledger, 5)
    tamper(ledger, "DELETE FROM audit_seals WHERE sequence = 3", "DELETE FROM audit_records WHERE id = 3")
    verdict = ledger.verify_audit(heads)
    assert "the seal 3 is gone" in said(verdict)


def test_a_cut_tail_is_found_by_the_exported_heads_alone(ledger: Ledger) -> None:
    heads = sealed(ledger, 5)
    tamper(ledger, "DELETE FROM audit_seals WHERE sequence > 3", "DELETE FROM audit_records WHERE id > 3")
    assert ledger.verify_audit({}).problems == []  # the chain by itself cannot know
    assert "the seal 5 was exported, and the chain ends at 3" in said(ledger.verify_audit(heads))


def test_a_trail_that_was_deleted_altogether_is_missed(ledger: Ledger) -> None:
    assert ledger.verify_audit({}).problems == []  # nothing was ever done
    ledger.admit(received(STUDY), Completion(1.0))
    ledger.seal_audit()
    tamper(ledger, "DELETE FROM audit_seals")
    assert ledger.verify_audit({}).problems == []  # they may be about to be sealed
    tamper(ledger, "UPDATE audit_records SET at = at - 100")
    assert "all seals were deleted" in said(ledger.verify_audit({}))
    tamper(ledger, "DELETE FROM audit_records")
    assert "the whole trail was deleted" in said(ledger.verify_audit({}))


def test_a_trail_that_was_begun_anew_is_younger_than_what_the_ledger_took(ledger: Ledger) -> None:
    ledger.admit(received(STUDY), Completion(1.0))
    heads = sealed(ledger)
    assert ledger.verify_audit(heads).problems == []
    tamper(ledger, "DELETE FROM audit_seals", "DELETE FROM audit_records")
    tamper(ledger, f"UPDATE studies SET first_received_at = {time.time() - 1000}")
    heads = sealed(ledger, 2)
    assert ledger.verify_audit(heads).problems == []  # it came before there was a trail, as after an upgrade
    tamper(ledger, f"UPDATE installation SET value = '{time.time() - 2000}' WHERE key = 'audit_since'")
    assert "the trail was begun anew" in said(ledger.verify_audit(heads))


def test_a_chain_that_was_made_anew_after_an_edit_contradicts_its_heads(ledger: Ledger) -> None:
    heads = sealed(ledger, 5)
    tamper(
        ledger,
        "DELETE FROM audit_seals WHERE sequence >= 3",
        "UPDATE audit_records SET actor = 'user:other' WHERE id = 3",
    )
    ledger.seal_audit()
    assert ledger.verify_audit({}).problems == []
    assert "the seal 3 is not the one that was exported" in said(ledger.verify_audit(heads))


def test_a_record_put_in_later_is_found(ledger: Ledger) -> None:
    heads = sealed(ledger, 3)
    tamper(ledger, *put_in(2, back_s=1000))
    verdict = ledger.verify_audit(heads)
    assert [problem.record_id for problem in verdict.problems] == [22]
    assert "it was put in later" in said(verdict)


def test_records_that_become_visible_out_of_order_are_all_sealed(ledger: Ledger) -> None:
    if ledger.seals_in_order:
        pytest.skip("SQLite has one writer at a time")
    engine = ledger._engine
    with engine.connect() as slow, slow.begin():
        audit.record(slow, access(1))
        ledger.audit(access(2))
        first = ledger.seal_audit()
    assert first is not None
    second = ledger.seal_audit()
    assert second is not None
    assert [line.sequence for line in ledger.audit_log()] == [1, 2]  # newest record first
    assert ledger.verify_audit({1: {first.digest}, 2: {second.digest}}).problems == []


def test_two_sealers_make_one_chain(ledger: Ledger, url: str, tmp_path: Path) -> None:
    other = Ledger.open(url, Store(tmp_path / "store"))
    for number in range(4):
        ledger.audit(access(number))
        (ledger if number % 2 else other).seal_audit()
    other.close()
    assert (ledger.verify_audit({}).problems, ledger.verify_audit({}).sealed) == ([], 4)


def test_while_one_seals_another_does_not(ledger: Ledger, url: str, tmp_path: Path) -> None:
    if ledger.seals_in_order:
        pytest.skip("SQLite has one writer at a time")
    ledger.audit(access())
    other = Ledger.open(url, Store(tmp_path / "store"))
    with transaction(ledger._engine, write=True) as connection:
        assert sealing.seal(connection, 0) is not None
        assert other.seal_audit() is None
    other.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_records SET actor = 'user:other'",
        "DELETE FROM audit_records",
        "UPDATE audit_seals SET digest = 'x'",
        "DELETE FROM audit_seals",
    ],
)
def test_the_database_refuses_to_change_the_trail(ledger: Ledger, statement: str) -> None:
    sealed(ledger)
    with pytest.raises(LedgerUnavailable), transaction(ledger._engine, write=True) as connection:
        connection.execute(text(statement))
    assert ledger.verify_audit({}).problems == []


def test_a_record_lives_and_dies_with_what_it_records(ledger: Ledger) -> None:
    with ledger._engine.connect() as connection:
        audit.record(connection, access())
        connection.rollback()
    assert ledger.audit_log() == []


def deeds_of(ledger: Ledger, **asked: str) -> list[str]:
    return [line.detail["did"] for line in reversed(ledger.audit_log(Asked(**asked)))]


def test_a_study_leaves_a_record_of_each_step(story: Story, ledger: Ledger) -> None:
    story.reported()
    assert deeds_of(ledger, study_uid=STUDY)[:3] == ["received", "analysed", "reported"]
    assert DeliveryState.DELIVERED in deeds_of(ledger, study_uid=STUDY)
    [received] = [line for line in ledger.audit_log(Asked(study_uid=STUDY)) if line.detail["did"] == "received"]
    assert (received.kind, received.actor.startswith("ae:"), received.outcome) == (
        AuditKind.TRANSFERRED,
        True,
        Outcome.SUCCESS,
    )


def test_whatever_names_a_study_names_its_patient_too(story: Story, ledger: Ledger) -> None:
    """By the keyed hash that its images came with: a delivery, an analysis or a look knows of the study alone."""
    story.reported()
    ledger.audit(AuditEvent(AuditKind.ACCESSED, "user:anna", STUDY), AuditEvent(AuditKind.ACCESSED, "user:anna", "1.9"))
    lines = ledger.audit_log(Asked(study_uid=STUDY))
    assert {AuditKind.ANALYSED, AuditKind.REPORTED, AuditKind.TRANSFERRED} < {line.kind for line in lines}
    [whose] = {line.patient_key for line in lines}
    assert whose
    assert [line.patient_key for line in ledger.audit_log(Asked(study_uid="1.9"))] == [""]


def test_who_set_something_going_is_named(story: Story, ledger: Ledger) -> None:
    story.reported()
    assert ledger.recall("Because.", STUDY, actor="user:anna@cli") == 1
    [line] = ledger.audit_log(Asked(actor="user:anna@cli"))
    assert (line.kind, line.detail["did"]) == (AuditKind.OPERATED, "recalled")
    assert "Because" not in json.dumps(line.detail)  # a person's sentence may name a patient


def test_no_record_names_a_study_an_instance_or_a_patient(story: Story, ledger: Ledger) -> None:
    story.reported()
    with transaction(ledger._engine, write=False) as connection:
        rows = connection.execute(text("SELECT * FROM audit_records")).all()
        known = connection.execute(text("SELECT study_uid, series_uid, sop_instance_uid, path, sha256 FROM instances"))
        uids = {value for row in known for value in row}
        uids |= set(connection.execute(text("SELECT sop_instance_uid FROM objects")).scalars())
    trail = "\n".join(str(row) for row in rows)
    assert rows
    assert not [uid for uid in uids if f'"{uid}"' in trail or f"'{uid}'" in trail]


def test_a_name_from_the_wire_cannot_make_the_database_refuse_an_instance(ledger: Ledger) -> None:
    ledger.audit(AuditEvent(AuditKind.ACCESSED, "ae:" + "X" * 400 + "\0\ud800", peer="y" * 300))
    [line] = ledger.audit_log()
    assert (len(line.actor), len(line.peer)) == (160, 64)


def test_instances_of_one_study_in_one_commit_are_one_record(ledger: Ledger) -> None:
    made = [received(STUDY, sop_instance_uid=f"2.25.{n}", sha256=f"{n:064d}", path=f"instances/{n}") for n in (1, 2)]
    admissions = ledger._admissions._admit([Arrival(one, Completion(20.0)) for one in made])
    [line] = ledger.audit_log(Asked(study_uid=STUDY))
    assert line.detail["instances"] == [one.instance_id for one in admissions if isinstance(one, Admission)]
    assert list(line.detail["sop_classes"].values()) == [2]


def test_the_log_is_read_page_by_page_and_by_what_is_asked(ledger: Ledger) -> None:
    for number in range(5):
        ledger.audit(access(number))
    ledger.audit(AuditEvent(AuditKind.AUTHENTICATION, "user:other", outcome=Outcome.MINOR_FAILURE))
    first = ledger.audit_log(limit=4)
    rest = ledger.audit_log(before=first[-1].record_id, limit=4)
    assert [line.record_id for line in first + rest] == [6, 5, 4, 3, 2, 1]
    assert [line.actor for line in ledger.audit_log(Asked(failures_only=True))] == ["user:other"]
    assert [line.detail["number"] for line in ledger.audit_log(Asked(study_uid="2.25.3"))] == [3]
    assert ledger.audit_count(Asked(kind=AuditKind.ACCESSED)) == 5


def test_a_repository_is_told_by_one_at_a_time_and_only_forwards(ledger: Ledger) -> None:
    sealed(ledger, 3)
    assert ledger.take_telling("r:1", "one", 60.0)
    assert not ledger.take_telling("r:1", "another", 60.0)
    assert [line.sequence for line in ledger.untold("r:1")] == [1, 2, 3]
    assert ledger.told_audit("r:1", "one", 2)
    assert not ledger.told_audit("r:1", "another", 3)
    assert not ledger.told_audit("r:1", "one", 1)
    assert [line.sequence for line in ledger.untold("r:1")] == [3]
    assert ledger.audit_backlog("r:1")[0] == 1


# --- any single change is found ---


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Heads]:
    """A closed ledger of twelve sealed records without a wall, and its last head alone."""
    folder = tmp_path_factory.mktemp("chain")
    ledger = open_fresh(folder)
    ledger.audit(*(access(number) for number in range(6)))
    ledger.seal_audit()
    ledger.audit(*(access(number) for number in range(6, 12)))
    head = ledger.seal_audit()
    assert head is not None
    tamper(ledger)
    engine = ledger._engine
    ledger.close()
    with outside(engine) as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=DELETE")  # one file, to be copied
    return folder, {head.sequence: {head.digest}}


COLUMN = {
    "at": "at + 0.001", "kind": "'query'", "outcome": "12", "actor": "actor || 'x'", "peer": "'10.0.0.1'",
    "study_key": "substr(study_key, 2)", "patient_key": "'x'", "detail": "'{}'",
}  # fmt: skip
NUMBER = st.integers(1, 12)
REST = ", ".join(sealing.COLUMNS[2:])


def edited(number: int, column: str) -> list[str]:
    return [f"UPDATE audit_records SET {column} = {COLUMN[column]} WHERE id = {number}"]


def deleted(where: str) -> list[str]:
    """Records with their seals."""
    return [f"DELETE FROM audit_seals WHERE record_id {where}", f"DELETE FROM audit_records WHERE id {where}"]


def swapped(pair: list[int]) -> list[str]:
    """Two records change places in the chain."""
    one, other = pair
    moves = ((-1, one), (one, other), (other, one))
    return [f"UPDATE audit_seals SET record_id = {record} WHERE sequence = {seal}" for record, seal in moves]


def put_in(number: int, back_s: int) -> list[str]:
    columns = f"INSERT INTO audit_records (id, at, {REST})"
    return [f"{columns} SELECT {20 + number}, at - {back_s}, {REST} FROM audit_records WHERE id = {number}"]


CHANGES: st.SearchStrategy[list[str]] = st.one_of(
    st.builds(edited, NUMBER, st.sampled_from(sorted(COLUMN))),
    NUMBER.map(lambda n: [f"DELETE FROM audit_records WHERE id = {n}"]),
    NUMBER.map(lambda n: deleted(f"= {n}")),
    NUMBER.map(lambda n: deleted(f">= {n}")),
    NUMBER.map(lambda n: [f"UPDATE audit_seals SET sealed_at = sealed_at + 1 WHERE sequence = {n}"]),
    NUMBER.map(lambda n: [f"UPDATE audit_seals SET digest = lower(hex(zeroblob(32))) WHERE sequence = {n}"]),
    st.lists(NUMBER, min_size=2, max_size=2, unique=True).map(swapped),
    st.builds(put_in, NUMBER, st.integers(100, 10**6)),
)


@settings(max_examples=40, deadline=None)
@given(change=CHANGES)
def test_any_single_change_is_found(chain: tuple[Path, Heads], change: list[str]) -> None:  # fmt: skip
    folder, heads = chain
    copy = folder / f"copy-{random.random()}.sqlite"
    shutil.copy(folder / "ledger.sqlite", copy)
    engine = open_engine(f"sqlite:///{copy}")
    with outside(engine) as connection:
        for statement in change:
            connection.exec_driver_sql(statement)
    ledger = Ledger(engine, Store(folder / "store"))
    try:
        assert ledger.verify_audit(heads).problems
    finally:
        ledger.close()
        copy.unlink()

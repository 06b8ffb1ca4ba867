"""`opentriage audit`: what was done to the trail is said, with an exit status, and who looks is in it."""

import csv
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result
from structlog.testing import capture_logs
from typer.testing import CliRunner

from config.settings import NodeSettings, Settings
from ledger.audit import AuditEvent, AuditKind, Outcome
from ledger.ledger import Ledger
from ledger.sealing import Head
from node import notices
from node.chores import seal
from node.chores.seal import Sealer
from node.commands import audit as command
from node.trail import auditing, heads
from node.watching.metrics import make_registry, render
from tests.support.ledgers import open_fresh
from tests.support.tampering import tamper
from tests.support.waiting import wait_until


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    (tmp_path / "site.toml").write_text(f'[node]\nstate_dir = "{tmp_path}"\n')
    ledger = open_fresh(tmp_path)
    ledger.audit(*(AuditEvent(AuditKind.ACCESSED, "user:anna", f"2.25.{n}", detail={"what": "seen"}) for n in range(5)))
    sealer = Sealer(ledger, tmp_path / "audit" / "heads.jsonl")
    sealer.once()
    sealer.export()
    return ledger


def audit(tmp_path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command.app, [*arguments, "--config", str(tmp_path / "site.toml")])


def test_a_trail_as_it_was_written_verifies(tmp_path: Path, ledger: Ledger) -> None:
    result = audit(tmp_path, "verify")
    assert (result.exit_code, result.stdout) == (0, "5 records, 5 sealed, 1 exported heads agree, 0 problems\n")


def test_an_edit_is_said_with_its_record_and_exit_status_1(tmp_path: Path, ledger: Ledger) -> None:
    tamper(ledger, "UPDATE audit_records SET actor = 'user:other' WHERE id = 3")
    result = audit(tmp_path, "verify")
    assert result.exit_code == 1
    assert "the record 3" in result.stdout


@pytest.mark.parametrize("column", ["actor", "at", "detail", "kind", "outcome"])
@pytest.mark.parametrize("value", ["x'ff00'", "CAST(x'ff' AS TEXT)", "'none'"], ids=["bytes", "no text", "text"])
def test_what_stands_in_a_record_in_the_place_of_something_else_is_named_with_all_other_damage(
    tmp_path: Path, ledger: Ledger, column: str, value: str
) -> None:
    tamper(
        ledger, f"UPDATE audit_records SET {column} = {value} WHERE id = 2", "DELETE FROM audit_records WHERE id = 4"
    )
    result = audit(tmp_path, "verify")
    assert (result.exit_code, result.stdout.splitlines()[-1][:29]) == (1, "4 records, 5 sealed, 1 export")
    assert "the record 2, its seal 2, or its place is not what was sealed" in result.stdout
    assert "the record 4 is gone" in result.stdout


@pytest.mark.parametrize("column", ["digest", "sealed_at"])
def test_what_stands_in_a_seal_in_the_place_of_something_else_is_named(
    tmp_path: Path, ledger: Ledger, column: str
) -> None:
    tamper(ledger, f"UPDATE audit_seals SET {column} = x'ff00' WHERE sequence = 4")
    ledger.audit(*[AuditEvent(AuditKind.ACCESSED, "user:anna")] * 2)
    tamper(ledger, "UPDATE audit_records SET at = 'never' WHERE id = 6")
    result = audit(tmp_path, "verify")
    assert result.exit_code == 1
    assert "the record 4, its seal 4, or its place is not what was sealed" in result.stdout
    assert "the record 6 has a time that is none" in result.stdout


def test_a_time_that_is_none_after_a_seal_that_is_gone_is_named(tmp_path: Path, ledger: Ledger) -> None:
    tamper(ledger, "DELETE FROM audit_seals WHERE sequence = 2", "UPDATE audit_records SET at = 'never' WHERE id = 3")
    result = audit(tmp_path, "verify")
    assert result.exit_code == 1
    assert "the seal 2 is gone" in result.stdout
    assert "the record 3, its seal 3, or its place is not what was sealed" in result.stdout


def test_bytes_in_the_place_of_text_do_not_stop_the_sealer(tmp_path: Path, ledger: Ledger) -> None:
    ledger.audit(AuditEvent(AuditKind.ACCESSED, "user:anna"))
    tamper(ledger, "UPDATE audit_records SET actor = x'ff00' WHERE id = 6")
    Sealer(ledger, tmp_path / "audit" / "heads.jsonl").once()
    assert ledger.audit_unsealed_s() == 0.0


def test_a_cut_end_is_found_with_the_heads_that_the_node_kept(tmp_path: Path, ledger: Ledger) -> None:
    tamper(ledger, "DELETE FROM audit_seals WHERE sequence > 3", "DELETE FROM audit_records WHERE id > 3")
    assert audit(tmp_path, "verify").exit_code == 1
    assert audit(tmp_path, "verify", "--no-heads").exit_code == 0  # what it is worth without them


def test_heads_that_were_taken_away_are_missed(tmp_path: Path, ledger: Ledger) -> None:
    (tmp_path / "audit" / "heads.jsonl").unlink()
    result = audit(tmp_path, "verify")
    assert result.exit_code == 1
    assert "no chain head" in result.stdout


def test_heads_are_the_nodes_own_and_survive_a_line_that_was_cut_short(tmp_path: Path, ledger: Ledger) -> None:
    heads = tmp_path / "audit" / "heads.jsonl"
    assert oct(heads.stat().st_mode & 0o777) == "0o600"
    heads.write_text(heads.read_text() + '{"sequence": 9')
    assert audit(tmp_path, "verify").exit_code == 0


def test_the_head_after_a_line_that_was_cut_short_is_not_lost_with_it(tmp_path: Path, ledger: Ledger) -> None:
    file = tmp_path / "cut.jsonl"
    file.write_text('{"sequence": 9, "dig')
    for sequence in (10, 11):
        heads.append(file, Head(sequence, f"{sequence:064d}", 1.0), "2.25.1")
    assert [head.sequence for head in heads.read(file)] == [10, 11]
    assert len(file.read_text().splitlines()) == 3


def test_whoever_reads_the_trail_stands_in_it(tmp_path: Path, ledger: Ledger) -> None:
    shown = audit(tmp_path, "show", "--study", "2.25.3", "--json")
    [line] = map(json.loads, shown.stdout.splitlines()[1:])  # the first is this very look
    assert line["actor"] == "user:anna"
    newest = ledger.audit_log()[0]
    assert (newest.kind, newest.actor) == (AuditKind.LOG_USED, auditing.person())


def test_an_export_holds_every_record_and_no_formula(tmp_path: Path, ledger: Ledger) -> None:
    ledger.audit(AuditEvent(AuditKind.SECURITY_ALERT, "=cmd()", outcome=Outcome.MINOR_FAILURE))
    out = tmp_path / "out.csv"
    assert audit(tmp_path, "export", str(out)).exit_code == 0
    assert out.stat().st_mode & 0o777 == 0o600
    assert audit(tmp_path, "export", str(out)).exit_code != 0, "it was written over"
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert len(rows) == 7  # and the export itself
    assert [row["actor"] for row in rows if "cmd" in row["actor"]] == ["'=cmd()"]


def settings_in(tmp_path: Path, **look: object) -> Settings:
    return Settings.model_validate({"node": NodeSettings(state_dir=tmp_path), "look": look})


def test_a_changed_setting_is_named_and_its_values_are_not(tmp_path: Path, ledger: Ledger) -> None:
    auditing.node_started(settings_in(tmp_path, accept_licences=["SECRET-ONE"]), ledger)
    auditing.node_started(settings_in(tmp_path, accept_licences=["SECRET-ONE"]), ledger)
    auditing.node_started(settings_in(tmp_path, accept_licences=["SECRET-TWO"]), ledger)
    lines = [line for line in ledger.audit_log() if line.kind is AuditKind.CONFIGURATION]
    assert [line.detail["did"] for line in lines] == ["changed", "first_seen"]
    assert lines[0].detail["changed"] == ["look.accept_licences"]
    with ledger._engine.connect() as connection:
        kept = connection.exec_driver_sql("SELECT value FROM installation").scalars().all()
    assert "SECRET" not in str(lines) + str(kept)


def test_other_model_packages_are_recorded_with_their_digests(ledger: Ledger) -> None:
    for digest in ("aa", "aa", "bb"):
        auditing.models_loaded(ledger, {"chest-pneumonia/1.0.0": digest})
    lines = [line for line in ledger.audit_log() if line.kind is AuditKind.MODEL]
    assert [line.detail["now"] for line in lines] == [{"chest-pneumonia/1.0.0": "bb"}, {"chest-pneumonia/1.0.0": "aa"}]


def test_the_last_word_of_a_node_is_sealed_and_its_head_kept(tmp_path: Path, ledger: Ledger) -> None:
    auditing.node_stopped(settings_in(tmp_path), ledger, clean=True)
    assert ledger.audit_log()[0].sequence == 6
    head = heads.last(tmp_path / "audit" / "heads.jsonl")
    assert head is not None
    assert head.sequence == 6


def test_a_chain_whose_last_head_is_gone_is_said_at_the_next_start(tmp_path: Path, ledger: Ledger) -> None:
    tamper(ledger, "DELETE FROM audit_seals WHERE sequence > 3", "DELETE FROM audit_records WHERE id > 3")
    Sealer(ledger, tmp_path / "audit" / "heads.jsonl").look_at_heads()
    [alert] = [line for line in ledger.audit_log() if line.kind is AuditKind.SECURITY_ALERT]
    assert (alert.outcome, alert.detail["did"]) == (Outcome.MAJOR_FAILURE, "found_chain_broken")


def test_a_chain_that_lacks_its_head_is_an_alarm_until_the_heads_were_put_away(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "LOOK_AGAIN_S", 0.1)
    tamper(ledger, "DELETE FROM audit_seals WHERE sequence > 3", "DELETE FROM audit_records WHERE id > 3")
    settings, file = settings_in(tmp_path), tmp_path / "audit" / "heads.jsonl"
    with sealing(settings, ledger):
        [alarm] = wait_until(lambda: auditing.alarms(settings, ledger), 20)
        assert "its head 5 was exported and the chain lacks it" in alarm
        ledger.audit(*(AuditEvent(AuditKind.ACCESSED, "user:anna") for _ in range(5)))
        wait_until(lambda: (head := ledger.audit_head()) is not None and head.sequence > 5, 20)
    assert max(head.sequence for head in heads.read(file)) > 5  # the new chain has outgrown the old one's head
    notices.clear(settings)
    with sealing(settings, ledger):
        [again] = wait_until(lambda: auditing.alarms(settings, ledger), 20)
        assert again == alarm
        file.rename(tmp_path / "put-away.jsonl")
        wait_until(lambda: not auditing.alarms(settings, ledger), 20)


def test_heads_that_cannot_be_exported_are_an_alarm_and_one_line_a_minute(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "EXPORT_WITHIN_S", 0.0)
    file = tmp_path / "audit" / "heads.jsonl"
    file.unlink()
    file.mkdir()
    settings = settings_in(tmp_path)
    with sealing(settings, ledger):
        ledger.audit(AuditEvent(AuditKind.ACCESSED, "user:anna"))
        [alarm] = wait_until(lambda: auditing.alarms(settings, ledger), 20)
    assert "heads could not be exported" in alarm
    sealer = Sealer(ledger, file)
    with capture_logs() as lines:
        for _ in range(3):
            ledger.audit(AuditEvent(AuditKind.ACCESSED, "user:anna"))
            sealer.once()
            sealer.export()
    assert [line["event"] for line in lines].count("audit_head_not_exported") == 1


@contextmanager
def sealing(settings: Settings, ledger: Ledger) -> Iterator[None]:
    """The chore at work."""
    stop = threading.Event()
    thread = threading.Thread(target=seal.run, args=(settings, ledger, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


def test_a_repository_that_has_not_heard_for_long_is_an_alarm(tmp_path: Path, ledger: Ledger) -> None:
    audit_settings = {"repository_host": "log.example", "late_after_min": 1e-9}
    settings = Settings.model_validate({"node": NodeSettings(state_dir=tmp_path), "audit": audit_settings})
    [alarm] = auditing.alarms(settings, ledger)
    assert "log.example:6514 has not heard of 5 records" in alarm
    assert auditing.alarms(settings_in(tmp_path), ledger) == []  # nobody is to be told


def test_records_that_nobody_seals_are_an_alarm(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "SEAL_WITHIN_S", -1.0)
    assert "has waited" in auditing.alarms(settings_in(tmp_path), ledger)[0]


def shown(settings: Settings, ledger: Ledger, name: str) -> float | None:
    """A metric of the page; None where it is not there."""
    found = re.search(rf"^{name} (\S+)$", render(make_registry(settings, ledger)).decode(), re.MULTILINE)
    return float(found[1]) if found else None


def test_metrics_say_how_old_the_last_exported_head_is_and_how_long_a_seal_waits_for_one(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    age, waits = "opentriage_audit_head_age_seconds", "opentriage_audit_unexported_age_seconds"
    settings = settings_in(tmp_path)
    assert (shown(settings, ledger, age), shown(settings, ledger, waits)) == (None, None)  # nobody seals: not known
    file = tmp_path / "audit" / "heads.jsonl"
    line = json.loads(file.read_text())
    file.write_text(json.dumps(line | {"at": line["at"] - 7200.0}) + "\n")
    with sealing(settings, ledger):  # of a node that was started again
        old = wait_until(lambda: shown(settings, ledger, age), 20)
        assert 7200.0 <= old < 7300.0
        assert shown(settings, ledger, waits) == 0.0  # old, and nothing was written since
        file.unlink()
        file.mkdir()
        ledger.audit(AuditEvent(AuditKind.ACCESSED, "user:anna"))
        wait_until(lambda: shown(settings, ledger, waits), 20)
        file.rmdir()
        monkeypatch.setattr("node.chores.seal.Periodically.due", lambda self: True)
        ledger.audit(AuditEvent(AuditKind.ACCESSED, "user:anna"))
        wait_until(lambda: shown(settings, ledger, waits) == 0.0, 20)
        now = shown(settings, ledger, age)
        assert now is not None
        assert now < 60.0

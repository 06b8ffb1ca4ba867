"""Who did it at the console: one spelling of one person for every command, and not what his environment says."""

import os
import pwd
from pathlib import Path

import pytest
from typer.testing import CliRunner

import node
from ledger.audit import AuditKind
from ledger.completion import Completion
from ledger.ledger import Ledger
from node.cli import app
from node.trail.auditing import person
from tests.support.ledgers import open_fresh
from tests.support.records import received

STUDY = "1.2.3"
COMMANDS = {
    ("token", "create", "ris"): AuditKind.CONFIGURATION,
    ("token", "revoke", "ris"): AuditKind.CONFIGURATION,
    ("audit", "show"): AuditKind.LOG_USED,
    ("worklist",): AuditKind.ACCESSED,
    ("explain", STUDY): AuditKind.ACCESSED,
    ("release",): AuditKind.ACCESSED,
    ("forget", STUDY, "--yes", "--even-undelivered"): AuditKind.STUDY_DELETED,
}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    (tmp_path / "site.toml").write_text(f'[node]\nstate_dir = "{tmp_path}"\n')
    ledger = open_fresh(tmp_path)
    ledger.admit(received(STUDY), Completion(60.0))
    return ledger


def test_every_command_names_the_same_person_whatever_his_environment_says(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "dr.house")
    monkeypatch.setenv("SUDO_USER", "anna")
    for words in COMMANDS:
        done = CliRunner().invoke(app, [*words, "-c", str(tmp_path / "site.toml")])
        assert done.exit_code == 0, done.output
    lines = [line for line in reversed(ledger.audit_log()) if line.actor.startswith("user:")]
    assert [line.kind for line in lines] == list(COMMANDS.values())
    who = f"user:{pwd.getpwuid(os.getuid()).pw_name}@cli"
    assert {(line.actor, line.detail["sudo_user"]) for line in lines} == {(who, "anna")}
    monkeypatch.delenv("SUDO_USER")
    assert (person(), person().also) == (who, {})


def test_whoever_has_no_name_is_his_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 987_654)
    assert person() == "user:987654@cli"


def test_no_command_has_a_way_of_its_own_to_say_who_he_is() -> None:
    [root] = node.__path__
    own_ways = ("getpass", "LOGNAME", "@console", '"user:')
    asking = [
        path.name for path in Path(root, "commands").rglob("*.py") if any(w in path.read_text() for w in own_ways)
    ]
    assert asking == []

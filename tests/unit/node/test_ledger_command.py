"""`opentriage ledger`: what a person does to the ledger, and what he is kept from."""

import fcntl
import json
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

from typer.testing import CliRunner, Result

from config import load_settings
from ledger.database import HEAD
from node.cli import app
from node.running.lock import alone, let_go
from node.wiring import open_ledger, run_dir
from tests.support.ledgers import admit
from tests.support.realdata import ROOT


def ask(site: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["ledger", *words, "-c", str(site)])


def one_line(text: str) -> str:
    return " ".join(text.split())


def a_ledger(site: Path) -> Path:
    ledger = open_ledger(load_settings(site))
    admit(ledger)
    ledger.close()
    return load_settings(site).node.state_dir / "ledger.sqlite"


def schema_of(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def test_a_backup_is_made_and_named_and_status_tells_of_it(site: Path) -> None:
    path = a_ledger(site)
    said = ask(site, "status")
    assert said.exit_code == 0
    assert f"schema    {HEAD} (this program: {HEAD})" in said.stdout
    assert "1 studies, 1 instances" in said.stdout
    assert "backup    none" in said.stdout
    made = Path(ask(site, "backup").stdout.strip())
    assert made.parent == path.parent / "backups"
    assert schema_of(made) == HEAD
    assert str(made) in ask(site, "status").stdout
    again = ask(site, "backup", str(made))
    assert (again.exit_code, "never replaces another" in one_line(again.output)) == (1, True)


def test_a_rollback_keeps_files_and_a_copy_and_an_upgrade_follows_it(site: Path) -> None:
    path = a_ledger(site)
    done = ask(site, "rollback", "--to", "0007", "--yes")
    assert done.exit_code == 0, done.output
    assert schema_of(path) == "0007"
    [folder] = [one for one in (path.parent / "backups").iterdir() if one.is_dir()]
    trail = [json.loads(line) for line in (folder / "audit_records.jsonl").read_text().splitlines()]
    assert json.loads(trail[-1]["detail"]) == {"did": "ledger_rollback", "from": HEAD, "to": "0007"}
    [copy] = [one for one in (path.parent / "backups").iterdir() if one.is_file()]
    assert schema_of(copy) == HEAD
    old = ask(site, "status")
    assert (old.exit_code, "brings it up" in one_line(old.output)) == (1, True)
    assert ask(site, "upgrade").exit_code == 0
    assert schema_of(path) == HEAD
    assert "nothing to do" in ask(site, "upgrade").output


def test_who_rolls_back_is_told_before_he_is_asked_that_the_audit_trail_goes_and_where_it_is_kept(site: Path) -> None:
    path = a_ledger(site)
    asked = CliRunner().invoke(app, ["ledger", "rollback", "--to", "0007", "-c", str(site)], input="n\n")
    said = one_line(asked.output)
    assert said.index("THE AUDIT TRAIL IS DELETED") < said.index("audit_records.jsonl") < said.index("Take the ledger")
    assert (asked.exit_code, schema_of(path)) == (1, HEAD)


def test_a_question_never_upgrades_the_ledger_of_a_running_older_release(site: Path) -> None:
    path = a_ledger(site)
    assert ask(site, "rollback", "--to", "0007", "--yes").exit_code == 0
    asked = CliRunner().invoke(app, ["worklist", "-c", str(site)])
    assert asked.exit_code == 1
    assert "of an older release" in one_line(asked.output)
    assert schema_of(path) == "0007"


def test_no_schema_changes_under_a_running_node(site: Path) -> None:
    path = a_ledger(site)
    lock = alone(load_settings(site), 0.0, threading.Event())
    try:
        for words in (["rollback", "--to", "0007", "--yes"], ["rollback", "--to", "0007", "--yes", "--no-backup"]):
            refused = ask(site, *words)
            assert (refused.exit_code, "another node is running" in one_line(refused.output)) == (1, True)
    finally:
        let_go(lock)
    assert schema_of(path) == HEAD


def test_no_schema_changes_under_a_running_node_of_an_older_release(site: Path) -> None:
    path = a_ledger(site)
    with (run_dir(load_settings(site)) / "lock").open("wb") as older:
        for schema, words in ((HEAD, ["rollback", "--to", "0007", "--yes"]), ("0007", ["upgrade"])):
            fcntl.flock(older, fcntl.LOCK_EX)
            refused = ask(site, *words)
            assert refused.exit_code == 1
            assert "another node is running on" in one_line(refused.output)
            assert "nothing was changed. Stop it (`systemctl stop opentriage`)" in one_line(refused.output)
            assert schema_of(path) == schema
            fcntl.flock(older, fcntl.LOCK_UN)
            assert ask(site, *words).exit_code == 0
    assert schema_of(path) == HEAD


def test_a_newer_ledger_is_named_and_not_touched(site: Path) -> None:
    path = a_ledger(site)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    said = ask(site, "status")
    assert said.exit_code == 1
    assert f"ledger rollback --to {HEAD}" in one_line(said.output)
    for words in (["upgrade"], ["rollback", "--to", "0007", "--yes"]):
        assert ask(site, *words).exit_code == 1
    site.write_text(site.read_text() + '[receive]\nhost = "127.0.0.1"\nport = 0\n')
    command = [sys.executable, "-m", "node.cli", "serve", "--config", str(site)]
    serve = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert serve.returncode == 1
    assert f"cannot start: the ledger has schema 9999, and this release knows schemas up to {HEAD}" in serve.stderr
    assert schema_of(path) == "9999"


def test_of_a_ledger_that_is_not_there_nothing_is_made(site: Path) -> None:
    for words in (["status"], ["backup"], ["upgrade"], ["rollback", "--to", "0007", "--yes"]):
        said = ask(site, *words)
        assert (said.exit_code, "there is no ledger yet" in one_line(said.output)) == (1, True)
    assert not (load_settings(site).node.state_dir / "ledger.sqlite").exists()


def test_who_rolls_back_a_shadow_node_hears_that_the_older_release_sends(site: Path) -> None:
    a_ledger(site)
    site.write_text(site.read_text() + 'mode = "shadow"\n')
    assert "KNOWS NO SHADOW MODE" in one_line(ask(site, "rollback", "--to", "0007", "--yes").output)

"""`opentriage health` is for programs: 0 only of a node that is well, and a reason for each that is not."""

import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from config import load_settings
from node import notices
from node.cli import app
from node.running.lock import beside_others, let_go
from node.watching.health import Health, HealthCheck
from node.wiring import open_ledger


def test_a_node_that_does_not_run_is_said_not_to_run_and_how_to_start_it(site: Path) -> None:
    """Nobody is sent looking for a port, a certificate or a list of callers."""
    site.write_text(site.read_text() + '[receive]\nhost = "127.0.0.1"\nport = 1\n')
    settings = load_settings(site)
    open_ledger(settings).close()
    said = CliRunner().invoke(app, ["health", "-c", str(site)])
    assert (said.exit_code, len(said.output.splitlines())) == (1, 1)
    assert f"not well: no node runs on {settings.node.state_dir}: start it (systemctl start opentriage)" in said.output
    lock = beside_others(settings, 1.0, threading.Event())  # a role on its own
    try:
        said = CliRunner().invoke(app, ["health", "-c", str(site)])
    finally:
        let_go(lock)
    assert (said.exit_code, "not well: the node's own C-ECHO was not answered" in said.output) == (1, True)


def test_where_no_node_has_run_it_is_the_ledger_that_is_missed(site: Path) -> None:
    said = CliRunner().invoke(app, ["health", "-c", str(site)])
    assert (said.exit_code, "no ledger at" in said.output) == (1, True)
    assert not (load_settings(site).node.state_dir / "run").exists()


def test_an_alarm_is_told_of_and_is_no_reason_to_be_red(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(site)
    open_ledger(settings).close()
    notices.publish(settings, "supervisor", began=time.monotonic())
    monkeypatch.setattr(HealthCheck, "check", lambda self: Health(True, None, (), alarms=("a package is refused",)))
    said = CliRunner().invoke(app, ["health", "-c", str(site)])
    assert (said.exit_code, said.stdout.splitlines()[-1]) == (0, "well")
    assert "alarm: a package is refused" in said.output


def test_a_heartbeat_that_is_overdue_is_overdue_for_who_asks_only_now(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The age counts from the node's start, not from the question's."""
    settings = load_settings(site)
    open_ledger(settings).close()
    notices.publish(settings, "supervisor", began=time.monotonic() - 3600)
    monkeypatch.setattr("node.watching.health.own_echo", lambda settings, timeout_s: True)
    said = CliRunner().invoke(app, ["health", "-c", str(site)])
    assert (said.exit_code, "no heartbeat was sent for 36" in said.output) == (1, True)

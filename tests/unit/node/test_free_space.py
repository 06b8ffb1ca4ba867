"""A node whose disk is too full to take an image says so before the first is refused, and what to do."""

import os
from pathlib import Path
from threading import Event

import pytest
from structlog.testing import capture_logs

from config import Settings
from node import log_events
from node.commands.check_config import warnings
from node.running.supervisor import Supervisor
from node.watching.free_space import free_bytes, too_little
from node.watching.health import HealthCheck
from node.watching.metrics import make_registry, render
from node.wiring import open_ledger

EVERYTHING = 1 << 62


def settings(folder: Path, least: int) -> Settings:
    receive = {"host": "127.0.0.1", "port": 0, "free_disk_min_bytes": least}
    return Settings.model_validate({"node": {"state_dir": folder}, "receive": receive})


def test_a_full_disk_makes_health_red_with_what_to_do_and_the_metrics_show_the_room(tmp_path: Path) -> None:
    said = settings(tmp_path, EVERYTHING)
    ledger = open_ledger(said)
    try:
        [full] = [one for one in HealthCheck(said, ledger).check().reasons if "free_disk_min_bytes" in one]
        assert "every instance is refused with 0xA700; make room" in full
        roomy = HealthCheck(settings(tmp_path, 0), ledger).check().reasons
        assert not any("free_disk_min_bytes" in one for one in roomy)
        gauges = dict(
            line.split(" ")
            for line in render(make_registry(said, ledger)).decode().splitlines()
            if line.startswith("opentriage_store_free")
        )
    finally:
        ledger.close()
    assert float(gauges["opentriage_store_free_min_bytes"]) == EVERYTHING
    assert 0 < float(gauges["opentriage_store_free_bytes"]) < EVERYTHING


def test_check_config_warns_of_a_disk_too_full_before_the_store_is_made(tmp_path: Path) -> None:
    assert any("free_disk_min_bytes (" in one for one in warnings(settings(tmp_path / "new" / "state", EVERYTHING)))
    assert not any("free_disk_min_bytes (" in one for one in warnings(settings(tmp_path / "new" / "state", 0)))
    assert free_bytes(settings(tmp_path / "new", 0)) is not None
    assert too_little(settings(tmp_path, 0)) == ""


def test_a_node_that_starts_on_a_full_disk_says_so_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(settings(tmp_path, EVERYTHING))

    def stop(self: Supervisor) -> None:
        raise InterruptedError

    monkeypatch.setattr(Supervisor, "_reconcile", stop)
    monkeypatch.setattr("node.running.supervisor.stop_on_signals", Event)
    monkeypatch.setattr("node.running.supervisor.on_signal", lambda number: Event())
    with capture_logs() as logs, pytest.raises(InterruptedError):
        supervisor.run()
    supervisor._receivers.close()
    for lock in supervisor._lock:
        os.close(lock)
    [line] = [line for line in logs if line["event"] == log_events.STORE_FULL]
    assert (line["log_level"], "make room" in line["error"]) == ("error", True)

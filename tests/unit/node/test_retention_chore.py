"""The chore that lets go what is old: nothing unless the settings say so, and what is broken by its own age."""

import json
import os
import threading
from pathlib import Path

import pytest
import structlog
from pydantic import ValidationError
from sqlalchemy import select, text
from structlog.testing import capture_logs

from config import Settings
from ledger.database import transaction
from ledger.ledger import Ledger
from ledger.records import Disposition
from ledger.tables import audit_records
from node import log_events
from node.chores.retention import Sweeper, run
from node.wiring import open_ledger
from tests.support.ledgers import admit
from tests.support.waiting import wait_until

DAY_S = 86_400.0


def site(folder: Path, **retention: float) -> tuple[Settings, Ledger]:
    """Two priors of 40 days ago, and a broken file of 10 days ago."""
    settings = Settings.model_validate({"node": {"state_dir": folder}, "retention": retention})
    ledger = open_ledger(settings)
    for number in (1, 2):
        admit(ledger, number, disposition=Disposition.PRIOR)
    with transaction(ledger._engine, write=True) as connection:
        connection.execute(text(f"UPDATE studies SET last_received_at = last_received_at - {40 * DAY_S}"))
    for name in ("quarantine", "store/orphans"):
        (folder / name).mkdir(exist_ok=True)
        broken = folder / name / "x.broken"
        broken.write_bytes(b"broken")
        at = broken.stat().st_mtime - 10 * DAY_S
        os.utime(broken, (at, at))
    return settings, ledger


def left(folder: Path) -> tuple[int, int]:
    """Files of instances, files set aside."""
    kept = [path for path in (folder / "store" / "instances").rglob("*") if path.is_file()]
    return len(kept), len(list((folder / "quarantine").iterdir()) + list((folder / "store/orphans").iterdir()))


@pytest.mark.parametrize(
    ("retention", "leaves"),
    [
        ({}, (2, 2)),
        ({"images_days": 41}, (2, 2)),
        ({"images_days": 39}, (0, 2)),
        ({"quarantine_days": 9}, (2, 0)),
        ({"quarantine_days": 11}, (2, 2)),
    ],
)
def test_what_is_old_goes_and_nothing_else(
    tmp_path: Path, retention: dict[str, float], leaves: tuple[int, int]
) -> None:
    settings, ledger = site(tmp_path, **retention)
    Sweeper(settings, ledger, threading.Event()).sweep()
    assert left(tmp_path) == leaves
    ledger.close()


def test_it_says_what_it_removed_in_the_log_and_in_the_audit_trail(tmp_path: Path) -> None:
    settings, ledger = site(tmp_path, images_days=30, results_days=30, quarantine_days=9)
    structlog.reset_defaults()
    with capture_logs() as logged:
        Sweeper(settings, ledger, threading.Event()).sweep()
    told = {line["event"]: line for line in logged}
    assert told[log_events.IMAGES_REMOVED]["studies"] == told[log_events.RESULTS_REMOVED]["studies"] == 2
    with transaction(ledger._engine, write=False) as connection:
        details = [json.loads(one) for one in connection.execute(select(audit_records.c.detail)).scalars()]
    assert [one.get("what") for one in details if "what" in one] == ["images"] * 2 + ["results"] * 2 + ["quarantine"]
    ledger.close()


def test_what_an_earlier_process_left_is_finished_even_where_nothing_is_to_go(tmp_path: Path) -> None:
    settings, ledger = site(tmp_path)
    path = ledger.store.put("pictures", "ab", ".png", b"picture")
    with transaction(ledger._engine, write=True) as connection:
        connection.execute(text("INSERT INTO removals VALUES (:path, 0)"), {"path": path})
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(settings, ledger, stop))
    thread.start()
    try:
        wait_until(lambda: not ledger.store.path(path).exists(), within_s=10)
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
    ledger.close()


@pytest.mark.parametrize(
    "wrong", [{"results_days": 30}, {"images_days": 30, "results_days": 29}, {"images_days": 0.5}, {"images_days": -1}]
)
def test_settings_that_would_remove_what_is_still_needed_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"retention": wrong})

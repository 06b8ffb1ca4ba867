"""The web process ends where it may no longer acknowledge what comes by STOW-RS, or no longer serves."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.ledger import Ledger
from node.roles.web import _serve
from node.running.process import EXIT_VOLUME_FAILED
from node.web.app import make_app
from node.web.server import NOISE_MAX, NOISE_S, Sparing, make_server
from node.wiring import open_ledger
from tests.support.serving import settings_in


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(settings_in(tmp_path))
    yield opened
    opened.close()


def served(ledger: Ledger, folder: Path, alive: bool) -> int:
    settings, stop, release = settings_in(folder), threading.Event(), threading.Event()
    thread = threading.Thread(target=release.wait, daemon=True)
    if alive:
        thread.start()
    server = make_server(make_app(settings, ledger), settings.web)
    try:
        return _serve(settings, ledger, server, thread, stop)
    finally:
        release.set()


def test_after_a_failed_sync_the_process_ends_so_that_the_node_reconciles(ledger: Ledger, tmp_path: Path) -> None:
    ledger.store.fail()
    assert served(ledger, tmp_path, alive=True) == EXIT_VOLUME_FAILED


def test_what_strangers_send_that_is_no_http_does_not_fill_the_log() -> None:
    now = 0.0
    sparing = Sparing(lambda: now)
    record = logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, "Invalid HTTP request received.", None, None)
    assert sum(sparing.filter(record) for _ in range(1000)) == NOISE_MAX
    now = NOISE_S + 1
    assert sparing.filter(record)
    record.levelno = logging.ERROR
    assert all(sparing.filter(record) for _ in range(1000)), "a fault of ours is always said"


def test_a_server_that_died_is_started_again(ledger: Ledger, tmp_path: Path) -> None:
    assert served(ledger, tmp_path, alive=False) == 1

"""The role that keeps the node in order: one thread for each chore of node/chores."""

import threading

import structlog

from config import Settings
from ledger.ledger import Ledger
from node import log_events
from node.chores import Chore, drift, heartbeat, retention, seal, tally, tell_repository
from node.running.process import exit_at_latest, stop_on_signals
from node.running.worker import SYSTEM_SHORT
from node.wiring import open_ledger

AGAIN_S = 15.0  # after a chore found no room on the disk, or no descriptor
CHORES: tuple[Chore, ...] = (heartbeat.run, tally.run, seal.run, tell_repository.run, retention.run, drift.run)


def run(settings: Settings) -> int:
    """Do the chores until told to stop; 1 when one of them ended by itself."""
    stop = stop_on_signals()
    exit_at_latest(stop, settings.node.stop_grace_s)
    ledger = open_ledger(settings)
    failed = threading.Event()
    threads = [
        threading.Thread(target=_do, args=(chore, settings, ledger, stop, failed), daemon=True) for chore in CHORES
    ]
    for thread in threads:
        thread.start()
    structlog.get_logger().info(log_events.ROLE_STARTED)
    stop.wait()
    for thread in threads:
        thread.join()
    return int(failed.is_set())


def _do(chore: Chore, settings: Settings, ledger: Ledger, stop: threading.Event, failed: threading.Event) -> None:
    while True:
        try:
            chore(settings, ledger, stop)
            return
        except Exception as error:  # noqa: BLE001  a chore's top: the supervisor starts the role again
            if isinstance(error, OSError) and error.errno in SYSTEM_SHORT and not stop.is_set():
                structlog.get_logger().error(log_events.LOOP_FAILED, exc_info=error)
                stop.wait(AGAIN_S)  # the machine's trouble: a process that starts anew would have it too
                continue
            structlog.get_logger().critical(log_events.ROLE_FAILED, exc_info=error)
            failed.set()
            stop.set()
            return

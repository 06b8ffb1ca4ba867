"""The chore that sends heartbeats: a study of our own through the real port and the whole path, one at a time.

Registered in the ledger before it is sent, waited for, removed whatever came of it. Health goes by the age of the last
that arrived (node/watching/heartbeat_health.py).
"""

import socket
import tempfile
import threading
import time
from pathlib import Path

import structlog

from config import Settings
from ledger.errors import LedgerUnavailable
from ledger.heartbeats import Heartbeat
from ledger.ledger import Ledger
from ledger.records import NO_MODEL
from node import log_events, notices
from node.logging import describe
from node.running.outage import OUTAGE
from node.trying.own_study import CannotCallItself, NotSent, make_own_study, send_to_self
from node.watching.heartbeat_health import PERIODS

FIRST_AFTER_S = 30.0  # the models are loaded, and what waited at the start is under way
READY_WITHIN_S = 180.0
AGAIN_S = 15.0  # after one that could not be sent
LOOK_FIRST_S, LOOK_AT_LAST_S = 0.1, 2.0
NOTICE = "heartbeat"
NOBODY_LOOKS = "nobody looked at it: no model is installed"


def run(settings: Settings, ledger: Ledger, stop: threading.Event) -> None:
    """Send until told to stop; nothing where the settings want none."""
    every_s = settings.heartbeat.every_s
    if every_s <= 0:
        return
    heart = Heart(settings, ledger, stop)
    _await_node(settings, stop)
    wait_s = min(every_s, FIRST_AFTER_S)
    while not stop.wait(wait_s):
        began = time.monotonic()
        sent = heart.beat()
        wait_s = max(0.0, every_s - (time.monotonic() - began)) if sent else min(every_s, AGAIN_S)


def _await_node(settings: Settings, stop: threading.Event) -> None:
    """What a supervisor starts is ready when it says so; a role on its own is not waited for."""
    until = time.monotonic() + READY_WITHIN_S
    while notices.read(settings, "supervisor") and not notices.read(settings, "node") and time.monotonic() < until:
        if stop.wait(0.5):
            return


class Heart:
    """Of one machine."""

    def __init__(self, settings: Settings, ledger: Ledger, stop: threading.Event, machine: str = "") -> None:
        self._settings = settings
        self._ledger = ledger
        self._stop = stop
        self._machine = machine or socket.gethostname()
        self._patience_s = PERIODS * settings.heartbeat.every_s
        self._log = structlog.get_logger()

    def beat(self) -> bool:
        """One heartbeat, from its making to its end. False when it could not be sent, and may be tried sooner."""
        try:
            self._ledger.sweep_heartbeats(self._machine, self._patience_s + 60.0)
            return self._beat()
        except LedgerUnavailable as error:  # what is left is swept before the next
            OUTAGE.away(error)
            return False
        except OSError as error:  # a full disk; the next one may have room
            self._log.warning(log_events.HEARTBEAT_MISSED, where=f"it could not be made: {describe(error)}")
            return False

    def _beat(self) -> bool:
        with tempfile.TemporaryDirectory(prefix="opentriage-heartbeat-") as folder:
            study = make_own_study(Path(folder))
            uid = study.study_instance_uid
            self._ledger.register_heartbeat(uid, study.sop_instance_uid, study.sha256, self._machine)
            impossible = failure = ""
            is_sent = False
            try:
                send_to_self(study, self._settings)
                is_sent = True
            except NotSent as error:
                failure = str(error)
                impossible = failure if isinstance(error, CannotCallItself) else ""
        notices.publish(self._settings, NOTICE, impossible=impossible)
        if is_sent:
            failure = self._wait(uid) or self._unseen(uid)
        self._ledger.end_heartbeat(uid, failure)
        self._tell(self._ledger.heartbeat(uid))
        return is_sent

    def _wait(self, uid: str) -> str:
        """Until it has arrived, or stopped somewhere for good: then why."""
        until, pause_s = time.monotonic() + self._patience_s, LOOK_FIRST_S
        while not self._stop.wait(pause_s):
            beat = self._ledger.heartbeat(uid)
            if beat is None or beat.failure or beat.delivered_at is not None:
                return beat.failure if beat else "its row is gone"
            if time.monotonic() > until:
                return f"given up after {self._patience_s:.0f} s"
            pause_s = min(LOOK_AT_LAST_S, pause_s * 1.3)
        return "the node was stopped"

    def _unseen(self, uid: str) -> str:
        """Why nobody looked at it, though it went the whole path; empty where somebody did."""
        said = (result for item in self._ledger.study_instances(uid) for result in item.results)
        return next((NOBODY_LOOKS for result in said if result.reason_code == NO_MODEL), "")

    def _tell(self, beat: Heartbeat | None) -> None:
        if beat is None:
            return
        if beat.arrived:
            seconds = {stage: round(value, 3) for stage, value in beat.seconds.items()}
            self._log.info(log_events.HEARTBEAT_ARRIVED, **seconds)
        else:
            self._log.warning(log_events.HEARTBEAT_MISSED, where=beat.where)

"""The chore that looks, once an hour, whether images or answers have drifted, and keeps what it found in the ledger."""

import threading
from datetime import UTC, datetime, timedelta

import structlog

from config import Settings
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from node import log_events
from node.running.outage import OUTAGE
from node.watching import drift, weeks
from node.watching.drift import Subject

PAUSE_S = 0.02  # between pages: receiving and looking come first
RETRY_S = 60.0  # without a ledger
SOON = 0.9  # of a period: another machine around this ledger has looked


def run(settings: Settings, ledger: Ledger, stop: threading.Event) -> None:
    """Look until told to stop; never where it is switched off."""
    if not settings.drift.every_s:
        stop.wait()
    watch = Watch(settings, ledger, stop)
    while not stop.is_set():
        pause_s = settings.drift.every_s
        try:
            watch.once()
            OUTAGE.back()
        except LedgerUnavailable as error:
            OUTAGE.away(error)
            pause_s = min(pause_s, RETRY_S)
        stop.wait(pause_s)


class Watch:
    """Says each drift once in the log, and again when it came back."""

    def __init__(self, settings: Settings, ledger: Ledger, stop: threading.Event) -> None:
        self._settings = settings.drift
        self._ledger = ledger
        self._stop = stop
        self._said: set[Subject] = set()

    def once(self) -> None:
        """One look, unless another machine has just taken the same."""
        now = datetime.now(UTC)
        last = drift.kept(self._ledger, self._settings, now)
        soon = timedelta(seconds=SOON * self._settings.every_s)
        if last is None or not last.is_by(self._settings) or now - last.made_at >= soon:
            for found in weeks.look(self._ledger, self._settings, now):
                if found is not None:
                    drift.keep(self._ledger, found)
                    last = found
                elif self._stop.wait(PAUSE_S):
                    return
        self._tell(last)

    def _tell(self, found: drift.Found | None) -> None:
        drifting = {line.subject: line for line in found.drifting} if found else {}
        for subject, line in drifting.items():
            if subject not in self._said:
                named = {"model": subject.model, "sender": subject.sender, "of": subject.name}
                shares = {"now": line.now, "before": line.before, "size": round(line.size, 3)}
                structlog.get_logger().warning(log_events.DRIFT_FOUND, kind=subject.kind.value, **named, **shares)
        self._said = set(drifting)

"""The ledger is away: said when it begins, then once a minute with for how long, and when it is over; by each process.

Every loop of a process asks for the ledger about once a second, and each would say the same.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from node import log_events
from node.logging import describe
from scp.network.sparing import EVERY_S

QUIET_S: Final = 3.0  # without a failure: then one success is no chance hit between two others
STALE_S: Final = 2 * EVERY_S  # without a word of it: what fails then is another outage


class Outage:
    """Used by many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began: float | None = None
        self._failed = self._said = 0.0
        self._unsaid = 0

    def away(self, error: Exception) -> None:
        """A loop could not do its work."""
        with self._lock:
            before, now = self._failed, self._clock()
            self._failed = now
            if self._began is not None and now - before > STALE_S:  # nobody said that it was over
                self._began = None
            if self._began is not None and now - self._said < EVERY_S:
                self._unsaid += 1
                return
            began = self._began = now if self._began is None else self._began
            self._said, unsaid, self._unsaid = now, self._unsaid, 0
        counted = {"away_s": round(now - began), "unsaid": unsaid} if now > began else {}
        structlog.get_logger().warning(log_events.LEDGER_UNAVAILABLE, error=describe(error), **counted)

    def back(self) -> None:
        """A loop could. Cheap: called after each turn."""
        if self._began is None:
            return
        with self._lock:
            began, now = self._began, self._clock()
            if began is None or now - self._failed < QUIET_S:
                return
            self._began, self._unsaid = None, 0
        structlog.get_logger().info(log_events.LEDGER_BACK, away_s=round(self._failed - began))


OUTAGE: Final = Outage()  # of this process

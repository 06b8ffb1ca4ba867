"""Notices that the wall clock was set, which no clock that only runs can be asked."""

import time
from collections.abc import Callable
from typing import Final

import structlog

from ledger.clock import follow_step
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from node import log_events

STEP_S: Final = 1.0  # less is slewing, or too little to matter


class ClockWatch:
    """Compares the wall clock with the monotonic one at each `look`; what is due in the ledger follows a step."""

    def __init__(
        self,
        ledger: Ledger,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._wall, self._monotonic = ledger, wall, monotonic
        self._ahead = self._difference()

    def look(self) -> None:
        """Call often: what is queued between a step and the next look is taken for older than it is."""
        ahead = self._difference()
        step = ahead - self._ahead
        if abs(step) >= STEP_S:
            try:
                moved = follow_step(self._ledger, step, self._wall() - step)
            except LedgerUnavailable:
                return  # the next look sees the same step
            structlog.get_logger().warning(log_events.CLOCK_STEPPED, by_s=round(step, 3), moved=moved)
        self._ahead = ahead

    def _difference(self) -> float:
        return self._wall() - self._monotonic()

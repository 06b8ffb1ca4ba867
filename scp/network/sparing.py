"""Log lines about strangers: of one peer address and reason at most one a minute, so that no scan fills the disk."""

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger()

EVERY_S: Final = 60.0
KEPT_MAX: Final = 256  # peer addresses with their reasons; so many lines a minute are the most there can be


class SparingLog:
    """Warnings of one event. Used by many threads."""

    def __init__(self, event: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._event = event
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[tuple[str, str], tuple[float, int]] = {}  # when, and how often it was not said since

    def warn(self, peer: str, reason: str, **facts: str) -> None:
        """reason: one of a few words, never what a peer sent. The line's `unsaid`: how many like it were left out."""
        unsaid = self._turn((peer, reason))
        if unsaid is not None:
            counted = {"unsaid": unsaid} if unsaid else {}
            log.warning(self._event, reason=reason, peer=peer, **facts, **counted)

    def _turn(self, key: tuple[str, str]) -> int | None:
        """How many lines were left out since the last; None: this one is left out too."""
        now = self._clock()
        with self._lock:
            at, unsaid = self._said.get(key, (now - EVERY_S, 0))
            if now - at < EVERY_S:
                self._said[key] = at, unsaid + 1
                return None
            if key not in self._said and not self._room(now):
                return None
            self._said[key] = now, 0
            return unsaid

    def _room(self, now: float) -> bool:
        if len(self._said) >= KEPT_MAX:
            self._said = {key: said for key, said in self._said.items() if now - said[0] < EVERY_S}
        return len(self._said) < KEPT_MAX

"""Whose turn it is to run a model: what was routed to the node goes first, always; what was uploaded waits.

An upload gets a turn only when no routed batch works or waits and none has for a moment, so that a queue which is being
worked off is not interrupted. A routed batch waits at most for the one image that a model is looking at.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

from ledger.errors import RetryableError

QUIET_S: Final = 0.05  # between two routed batches a claim passes


class Busy(RetryableError):
    """No turn came in time."""


class Turns:
    """Shared by the worker of routed images and whoever serves the others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._routed = 0  # batches that work or wait
        self._running = False  # an upload's model
        self._ended_at = -QUIET_S

    @contextmanager
    def routed(self) -> Iterator[None]:
        """For one batch."""
        with self._changed:
            self._routed += 1
            while self._running:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._routed -= 1
                self._ended_at = monotonic()
                self._changed.notify_all()

    @contextmanager
    def other(self, until: float) -> Iterator[None]:
        """For one image. until: time.monotonic() at which to give up. Raises Busy."""
        with self._changed:
            while (wait_s := self._wait_s()) > 0:
                left_s = until - monotonic()
                if left_s <= 0:
                    raise Busy("the node is busy with studies that were routed to it")
                self._changed.wait(min(wait_s, left_s))
            self._running = True
        try:
            yield
        finally:
            with self._changed:
                self._running = False
                self._changed.notify_all()

    def _wait_s(self) -> float:
        if self._routed or self._running:
            return 60.0  # woken when that ends
        return self._ended_at + QUIET_S - monotonic()

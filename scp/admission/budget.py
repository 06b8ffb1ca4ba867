"""How many bytes of data sets may be received and not answered yet, over all associations of a process.

Above the budget a writer waits; meanwhile its socket is not read, and TCP makes the sender wait. The message that
came first always goes on, so there is always one that frees its bytes; a message that waited too long is refused.
"""

import math
import threading
from collections.abc import Callable
from time import monotonic

from scp.errors import StoreUnavailable


class Budget:
    """Shared by all associations."""

    def __init__(self, most_bytes: int, wait_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._most_bytes = most_bytes
        self._wait_s = wait_s
        self._clock = clock
        self._changed = threading.Condition(threading.Lock())
        self._used = 0
        self._shares: dict[Share, None] = {}  # the oldest first
        self._ends_at = math.inf

    def open(self) -> "Share":
        share = Share(self)
        with self._changed:
            self._shares[share] = None
        return share

    def take(self, share: "Share", count: int) -> None:
        """Raises StoreUnavailable when no room was made in time."""
        with self._changed:
            if not self._fits(share, count) and not self._wait(share, count):
                raise StoreUnavailable("too many bytes in flight")
            self._used += count
            share.taken += count

    def give_back(self, share: "Share") -> None:
        with self._changed:
            if share in self._shares:
                del self._shares[share]
                self._used -= share.taken
                self._changed.notify_all()

    def end_in(self, seconds: float) -> None:
        """The receiver stops: nobody waits for longer than this from now, those who wait already included."""
        with self._changed:
            self._ends_at = self._clock() + seconds
            self._changed.notify_all()

    def _fits(self, share: "Share", count: int) -> bool:
        return self._used + count <= self._most_bytes or next(iter(self._shares)) is share

    def _wait(self, share: "Share", count: int) -> bool:
        until = self._clock() + self._wait_s
        while (left := min(until, self._ends_at) - self._clock()) > 0:
            self._changed.wait(left)
            if self._fits(share, count):
                return True
        return False

    @property
    def used_bytes(self) -> int:
        return self._used


class Share:
    """What one message has taken."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.taken = 0

    def take(self, count: int) -> None:
        """Waits for room. Raises StoreUnavailable when there is none in time."""
        self._budget.take(self, count)

    def give_back(self) -> None:
        """The message is answered or gone. Safe at any time and more than once."""
        self._budget.give_back(self)

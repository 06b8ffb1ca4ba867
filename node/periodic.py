"""Something that is due once per interval."""

import time


class Periodically:
    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._next = 0.0

    def due(self) -> bool:
        """True at most once per interval, and at the first call."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._every_s
        return True

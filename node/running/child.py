"""What the supervisor remembers of one role: its process, its deaths, and when it may start again."""

import subprocess
import time
from dataclasses import dataclass, field

from node.running.process import EXIT_CANNOT_LISTEN

BACKOFF_FIRST_S, BACKOFF_MAX_S, HEALTHY_AFTER_S = 0.5, 30.0, 60.0
LISTEN_ATTEMPTS = 3
DEATHS_KEPT = 100


@dataclass
class Child:
    """One role's process and its history of dying. Times are of time.monotonic()."""

    role: str
    index: int = 0  # of several that do the same
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    backoff_s: float = BACKOFF_FIRST_S
    start_at: float = 0.0
    died_at: list[float] = field(default_factory=list)
    why: str = ""  # what it said itself of its last death
    deaths: int = 0
    refused: int = 0  # deaths because its address could not be had

    @property
    def name(self) -> str:
        """Under which it tells the others where it is (node/notices.py)."""
        return f"{self.role}-{self.index + 1}" if self.index else self.role

    @property
    def never_listened(self) -> bool:
        return self.deaths == self.refused >= LISTEN_ATTEMPTS

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def died(self, status: int, why: str) -> float:
        """Note a death and plan the restart; the seconds until then."""
        now = time.monotonic()
        self.deaths += 1
        self.refused += status == EXIT_CANNOT_LISTEN
        self.died_at = [*self.died_at, now][-DEATHS_KEPT:]
        self.why = why
        if now - self.started_at > HEALTHY_AFTER_S:
            self.backoff_s = BACKOFF_FIRST_S
        wait_s = self.backoff_s
        self.process, self.start_at = None, now + wait_s
        self.backoff_s = min(BACKOFF_MAX_S, wait_s * 2)
        return wait_s

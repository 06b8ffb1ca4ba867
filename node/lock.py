"""One node per state folder. The lock is an open file that the role processes inherit: it is free only when the last
of them is gone, so reconciliation never meets a process of an earlier run that is still writing."""

import fcntl
import os
import time

from config import Settings
from ledger.errors import RetryableError
from node.wiring import run_dir


class NotAlone(RetryableError):
    """Another node uses this state folder."""


def alone(settings: Settings, wait_s: float) -> int:
    """Take the lock and return its file descriptor; wait up to `wait_s` for an earlier run to end. Raises NotAlone."""
    lock = os.open(run_dir(settings) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(lock)
                raise NotAlone(f"another node is running on {settings.node.state_dir}") from None
            time.sleep(0.1)
        else:
            return lock

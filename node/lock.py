"""One node per state folder. The lock is an open file that the role processes inherit: it is free only when the last
of them is gone, so reconciliation never meets a process of an earlier run that is still writing."""

import fcntl
import os
import threading
import time

import structlog

from config import Settings
from ledger.errors import RetryableError
from node import log_events
from node.wiring import run_dir


class NotAlone(RetryableError):
    """Another node uses this state folder."""


def alone(settings: Settings, wait_s: float, stop: threading.Event) -> int:
    """Take the lock and return its file descriptor; wait up to `wait_s` for an earlier run to end, and say so.

    Raises NotAlone, also when `stop` is set meanwhile.
    """
    lock = os.open(run_dir(settings) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_s
    said = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline or stop.is_set():
                os.close(lock)
                raise NotAlone(f"another node is running on {settings.node.state_dir}") from None
            if not said:
                _say(settings, wait_s)
                said = True
            stop.wait(0.1)
        else:
            return lock


def _say(settings: Settings, wait_s: float) -> None:
    reason = f"another node holds {settings.node.state_dir}: waiting up to {wait_s:g} s for it to end"
    structlog.get_logger().warning(log_events.NODE_WAITING, reason=reason)

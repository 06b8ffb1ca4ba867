"""One node per store. A whole node holds the store's lock alone: it puts in order what it finds, and would take for
left behind what another is writing. Roles on their own, of one machine or of many, hold it beside each other.

Releases up to schema 0007 know the lock of the machine alone, `run/lock`. It is taken as well and in the same way, so
that none of those runs beside this one; it is needed for as long as one can go back to them.

The locks are open files that the role processes of a whole node inherit: they are free only when the last of them is
gone, so reconciliation never meets a process of an earlier run that is still writing.
"""

import fcntl
import os
import threading
import time

import structlog

from config import Settings
from ledger.errors import RetryableError
from node import log_events
from node.wiring import run_dir

Lock = tuple[int, ...]  # file descriptors


class NotAlone(RetryableError):
    """Another node uses this store."""


def alone(settings: Settings, wait_s: float, stop: threading.Event) -> Lock:
    """Take the locks and return their file descriptors; wait up to `wait_s` for an earlier run to end, and say so.

    Raises NotAlone, also when `stop` is set meanwhile.
    """
    return _take(settings, fcntl.LOCK_EX, "another node", wait_s, stop)


def beside_others(settings: Settings, wait_s: float, stop: threading.Event) -> Lock:
    """The same for a role on its own: others may have them too, a whole node may not. Raises NotAlone."""
    return _take(settings, fcntl.LOCK_SH, "a whole node (`serve` without --role)", wait_s, stop)


def is_held(settings: Settings) -> bool:
    """Whether a node, or a role of one, runs on this machine with this state folder. Nothing is created."""
    try:
        descriptor = os.open(settings.node.state_dir / "run" / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # not ours to read: nobody knows
    try:
        return not _is_ours((descriptor,), fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def let_go(lock: Lock) -> None:
    """Of this process's part: processes that inherited the locks keep them."""
    for descriptor in lock:
        os.close(descriptor)


def _take(settings: Settings, how: int, who: str, wait_s: float, stop: threading.Event) -> Lock:
    lock = _open(settings)
    deadline = time.monotonic() + wait_s
    said = False
    while not _is_ours(lock, how):
        if time.monotonic() >= deadline or stop.is_set():
            let_go(lock)
            or_roles = ", or a role of one (`serve --role`) here or elsewhere" if how == fcntl.LOCK_EX else ""
            raise NotAlone(f"{who} is running on {settings.node.state_dir}{or_roles}")
        if not said:
            _say(settings, who, wait_s)
            said = True
        stop.wait(0.1)
    return lock


def _open(settings: Settings) -> Lock:
    """The machine's lock first: who waits for a node on this machine keeps no other machine waiting."""
    store = settings.node.state_dir / "store"
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    return tuple(os.open(folder / "lock", flags, 0o600) for folder in (run_dir(settings), store))


def _is_ours(lock: Lock, how: int) -> bool:
    """All of it; to lock again what one holds already changes nothing."""
    try:
        for descriptor in lock:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _say(settings: Settings, who: str, wait_s: float) -> None:
    reason = f"{who} holds {settings.node.state_dir}: waiting up to {wait_s:g} s for it to end"
    structlog.get_logger().warning(log_events.NODE_WAITING, reason=reason)

"""What every role process does alike: stop on a signal, die with its parent, end within the grace."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import structlog

from node import log_events

PARENT_PIPE = "OPENTRIAGE_PARENT_PIPE"  # set: standard input is a pipe that closes when the parent dies
LOCKS = "OPENTRIAGE_LOCK_FDS"  # the descriptors of the node's locks, with commas (node/running/lock.py)
LISTEN_FD = "OPENTRIAGE_LISTEN_FD"  # of a receiver: the socket that it accepts on, shared with the others
RECEIVER_INDEX = "OPENTRIAGE_RECEIVER"  # which of the receivers it is, from 0
SIGNS_FD = "OPENTRIAGE_SIGNS_FD"  # of a receiver: the pipe for its signs of life (node/running/signs.py)
DRAIN_S = 60.0  # a receiver that is replaced lets associations end by themselves for this long
EXIT_VOLUME_FAILED = 74  # sysexits.h EX_IOERR: the supervisor stops everything and reconciles
EXIT_CANNOT_LISTEN = 69  # sysexits.h EX_UNAVAILABLE: the supervisor tries a few times, then says why
EXIT_CANNOT_SERVE = 78  # sysexits.h EX_CONFIG: no restart mends it; at the start the supervisor refuses to start
EXIT_USAGE = 2


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM, SIGINT or the parent's death sets. Call once, from the main thread."""
    stop = on_signal(signal.SIGTERM)
    for lock in filter(None, os.environ.pop(LOCKS, "").split(",")):
        os.set_inheritable(int(lock), False)  # ours for as long as we live, and not our decoders'
    if os.environ.pop(PARENT_PIPE, ""):
        # Ctrl-C reaches the whole foreground group: the parent alone decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_follow_parent, args=(stop,), name="parent", daemon=True).start()
    else:
        on_signal(signal.SIGINT, stop)
    return stop


def on_signal(number: signal.Signals, asked: threading.Event | None = None) -> threading.Event:
    """An event that the signal sets. Call from the main thread.

    Python runs a handler in the main thread, wherever that is: within `asked.wait()` it may hold the lock of the event,
    for which `asked.set()` would then wait without end. So the handler only writes to a pipe; a thread sets the event.
    """
    asked = asked or threading.Event()
    hear, say = os.pipe()
    os.set_blocking(say, False)

    def tell(number: int, frame: FrameType | None) -> None:
        with suppress(BlockingIOError):  # a full pipe tells enough
            os.write(say, b"!")

    def listen() -> None:
        while os.read(hear, 4096):
            asked.set()

    threading.Thread(target=listen, name=f"signal-{number.name}", daemon=True).start()
    signal.signal(number, tell)
    return asked


def _follow_parent(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()


def exit_at_latest(stop: threading.Event, grace_s: float, last: Callable[[], None] = lambda: None) -> None:
    """End this process by force when `grace_s` have passed since `stop` and it has not ended by itself. last: what is
    still done then; it may wait for nothing."""

    def watch() -> None:
        stop.wait()
        structlog.get_logger().info(log_events.ROLE_STOPPING)
        threading.Event().wait(grace_s)
        structlog.get_logger().warning(log_events.ROLE_KILLED, grace_s=grace_s)
        try:
            last()
        finally:
            os._exit(1)

    threading.Thread(target=watch, name="grace", daemon=True).start()

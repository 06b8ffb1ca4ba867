"""Counters of the role processes, in prometheus-client's multiprocess files: each role writes its own, web reads all.

Only what never reaches the ledger is counted so (refused associations, bytes); node/watching/metrics.py has the rest.
"""

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from config import Settings
from node import log_events
from node.logging import describe
from node.wiring import run_dir

COUNTERS = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client reads it when it is imported, so children get it at birth
_SHOWN: Final = "OPENTRIAGE_COUNTERS"  # where a process that cannot count there finds what the others counted
KINDS: Final = ("counter", "gauge_livesum", "histogram")  # the files that prometheus-client makes for ours
ROOM_BYTES: Final = 1 << 16  # as many as it gives a file itself: some 250 counters


def counters_dir(settings: Settings) -> Path:
    """The folder of the counter files of this run."""
    folder = run_dir(settings) / "counters"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def clear_counters(settings: Settings) -> None:
    """Start from zero, as counters do when their process starts."""
    for path in counters_dir(settings).rglob("*.db"):
        path.unlink(missing_ok=True)


def counters_of_role(settings: Settings, role: str) -> Path:
    """The empty folder of a role on its own; the page of this machine adds up what it finds."""
    folder = counters_dir(settings) / role
    folder.mkdir(mode=0o700, exist_ok=True)
    for path in folder.glob("*.db"):
        path.unlink(missing_ok=True)
    return folder


def counter_files(settings: Settings) -> list[str]:
    """Of every role of this machine."""
    return [str(path) for path in counters_dir(settings).rglob("*.db")]


def take_room() -> None:
    """In a role, before anything that counts is imported: room for this process's counters, on the disk. Who writes to
    a mapped file that a full disk has no room for is killed (SIGBUS). Where there is none, what it counts is lost."""
    folder = os.environ.get(COUNTERS, "")
    if not folder:
        return
    files = [Path(folder) / f"{kind}_{os.getpid()}.db" for kind in KINDS]
    try:
        for path in files:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, ROOM_BYTES)
            finally:
                os.close(descriptor)
    except OSError as error:
        for path in files:
            path.unlink(missing_ok=True)
        os.environ[_SHOWN] = os.environ.pop(COUNTERS)
        structlog.get_logger().error(log_events.NOT_COUNTED, error=describe(error))


def forget_process(settings: Settings, pid: int) -> None:
    """A process died: its gauges of the living end, its counters stay, and the room that it did not use goes."""
    for path in counters_dir(settings).glob(f"gauge_live*_{pid}.db"):
        path.unlink(missing_ok=True)
    for path in counters_dir(settings).rglob(f"*_{pid}.db"):
        with suppress(OSError, struct.error):
            with path.open("rb") as file:
                (used,) = struct.unpack("i", file.read(4))  # as prometheus-client keeps it
            os.truncate(path, used) if used else path.unlink()


def counted_here() -> bool:
    """Whether this process was given a folder of counters."""
    return bool(os.environ.get(COUNTERS) or os.environ.get(_SHOWN))

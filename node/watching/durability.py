"""What can be told of the disk below a folder: whether its cache forgets at a power cut, and how long a sync takes."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SYNCS = 8
TOO_GOOD_S = 20e-6  # no disk answers a flush within this; what does has not flushed
WriteCache = Literal["write through", "write back"]


@dataclass(frozen=True)
class Sync:
    """Of a block of 4 KiB, appended: the median and the slowest, in seconds."""

    median_s: float
    slowest_s: float


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = folder.absolute()
    return next((one for one in (folder, *folder.parents) if one.exists()), Path("/"))


def file_system(folder: Path) -> str:
    """Its type, such as "ext4"; empty where nobody says."""
    device = existing(folder).stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        if fields[2] == wanted and "-" in fields:
            return fields[fields.index("-") + 1]
    return ""


def write_cache(folder: Path, sys_root: Path = Path("/sys")) -> WriteCache | None:
    """What the kernel thinks of the cache of the disk below: with "write back" it must be flushed, and is, if the disk
    does what it is told. None: nobody says, as on a network file system or in memory."""
    device = existing(folder).stat().st_dev
    block = sys_root / "dev" / "block" / f"{os.major(device)}:{os.minor(device)}"
    for place in (block, block / ".."):  # a partition has no queue of its own
        try:
            said = (place / "queue" / "write_cache").read_text(encoding="ascii").strip()
        except OSError:
            continue
        return "write back" if said == "write back" else "write through"
    return None


def measure_sync(folder: Path) -> Sync:
    """Append and fdatasync a few times, in a file that is removed again. Raises OSError."""
    path = folder / f".opentriage-sync-{os.getpid()}-{time.monotonic_ns()}"
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        times = []
        for _ in range(SYNCS):
            began = time.perf_counter()
            os.write(fd, bytes(4096))
            os.fdatasync(fd)
            times.append(time.perf_counter() - began)
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)
    return Sync(sorted(times)[len(times) // 2], max(times))

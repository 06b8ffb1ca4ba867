"""Builds tests/torture/power/shim.c and speaks with it: one control page and one trace for each folder it watches."""

import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until
from tests.torture.journal import Entry

SOURCE = Path(__file__).parent / "power" / "shim.c"
CONTROL_BYTES = 1024
HIT_PATH = 512
FIELDS = (
    "count", "fail_at", "fail_errno", "hits", "hit_call", "space_limited", "space_left", "clock_offset_ns",
    "fail_threads", "sync_delay_us", "sticky", "calls_mask", "syncs_failed", "halted", "inside",
)  # fmt: skip
CALLS = ("open", "write", "fsync", "folder fsync", "rename", "unlink", "mkdir", "truncate", "link", "close")
SHORT_WRITE = 0xFFFF  # as an errno: the write takes only half
RECORD = struct.Struct("<IHHQQQIIQ")  # struct record in shim.c
MAGIC = 0x54524F54
ACK = 14
HALTS_WITHIN_S = 30.0  # on a machine that does much else


class NoCompiler(RuntimeError):
    """There is no C compiler: `make peers` installs one."""


def build(folder: Path) -> Path | None:
    """The shared object, compiled now; None without a compiler, and experiments that need it say so."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    made = folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", made, SOURCE, "-ldl", "-lpthread"], check=True)
    return made


class Shim:
    """The torturer's hold on receivers that were born with `request()`. `get` and `set` take the names in FIELDS.

    watched: the folder whose changes count. The trace and the control page lie outside it, in `folder`.
    """

    def __init__(self, folder: Path, watched: Path, traced: bool = True, **fields: int) -> None:
        self.watched = watched
        self.trace_path = folder / f"{watched.name}.trace"
        self._control_path = folder / f"{watched.name}.control"
        self._control_path.write_bytes(bytes(CONTROL_BYTES))
        self._control_path.chmod(0o666)
        with self._control_path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), CONTROL_BYTES)
        self._traced = traced
        self._trace = -1
        if traced:
            self._trace = os.open(self.trace_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self.trace_path.chmod(0o666)
        for name, value in fields.items():
            self.set(**{name: value})

    def request(self) -> dict[str, str]:
        """What Nursery.bear takes as `shim`."""
        trace = str(self.trace_path) if self._traced else ""
        return {"root": str(self.watched), "trace": trace, "control": str(self._control_path)}

    def environment(self, shared_object: Path) -> dict[str, str]:
        """For a program that cannot begin the shim by itself."""
        named = self.request()
        return {
            "LD_PRELOAD": str(shared_object),
            "TORTURE_ROOT": named["root"],
            "TORTURE_TRACE": named["trace"],
            "TORTURE_CONTROL": named["control"],
        }

    def get(self, field: str) -> int:
        return int(struct.unpack_from("<q", self._page, 8 * FIELDS.index(field))[0])

    def set(self, **fields: int) -> None:
        for field, value in fields.items():
            struct.pack_into("<q", self._page, 8 * FIELDS.index(field), value)

    @contextmanager
    def halted(self) -> Iterator[None]:
        """Every process between two calls that are watched, or in the delay of a sync: one that is killed now leaves
        each of its records whole, and none out."""
        self.set(halted=1)
        try:
            wait_until(lambda: not self.get("inside"), HALTS_WITHIN_S, 0.0002)
            yield
        finally:
            self.set(halted=0)

    @property
    def hit(self) -> str:
        """What failed last: the call, and the file's name below the watched folder."""
        path = self._page[HIT_PATH:].split(b"\0", 1)[0].decode()
        return f"{CALLS[self.get('hit_call')]} of {path.removeprefix(str(self.watched)) or '.'}"

    def ack(self, entry: Entry) -> None:
        """Write into the trace that a sender was told 0x0000: what comes later in it came after."""
        uid, sha256 = entry.sop_instance_uid.encode(), entry.sha256.encode()
        head = RECORD.pack(MAGIC, ACK, 0, 0, 0, 0, len(uid), len(sha256), 0)
        os.write(self._trace, head + uid + sha256)

    def close(self) -> None:
        self._page.close()
        if self._trace >= 0:
            os.close(self._trace)
            self._trace = -1

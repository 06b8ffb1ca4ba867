"""16: decompression bombs: the decode child ends by a limit, the process that infers stays as it was, others go on."""

import io
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from config.settings import LookSettings
from inference.dcmtk import find_dcmtk
from inference.errors import CannotLook
from inference.sandbox import DecodeChild, Wanted
from tests.support.dicom_files import J2K, compressed, j2k_header, jpeg_header, rle_frame
from tests.support.dx import make_dx, write
from tests.support.jpeg12 import EXTENDED
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.looking import memory_kb, mutated_child

WANTED = (Wanted("header", 56, 56, "squash"),)
MEMORY_BYTES = 900_000_000
LIMITS: dict[str, Any] = {"decode_memory_bytes": MEMORY_BYTES, "decode_cpu_s": 2.0, "decode_wall_s": 12.0}
GROWTH_MAX_KB = 64_000
SCANS = 20_000
EIGHT = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


def deflated() -> Dataset:
    """550 MB of zeros in half a MB, in an element that nobody asked for."""
    ds = make_dx()
    ds.add_new(0x00091001, "OB", bytes(550_000_000))
    ds.add_new(0x00090010, "LO", "BOMB")
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return ds


def rle_claim() -> Dataset:
    return compressed(rle_frame(2, b"\x81\x00"), RLELossless, Rows=30000, Columns=30000)


def rle_runs() -> Dataset:
    """Honest: 265 MB out of 4 MB, all of one grey."""
    frame = rle_frame(2, b"\x81\x00" * (11_520 * 11_520 // 128))
    return compressed(frame, RLELossless, Rows=11_520, Columns=11_520)


def jpeg_claim() -> Dataset:
    return compressed(jpeg_header(20_000, 20_000), JPEGBaseline8Bit, Rows=20_000, Columns=20_000, **EIGHT)


def jpeg_lies_small() -> Dataset:
    return compressed(jpeg_header(65_500, 65_500), JPEGBaseline8Bit, Rows=256, Columns=256, **EIGHT)


def j2k_claim() -> Dataset:
    return compressed(j2k_header(20_000, 20_000), J2K, Rows=20_000, Columns=20_000, **EIGHT)


def ls_claim() -> Dataset:
    return compressed(jpeg_header(20_000, 20_000, 0xF7), JPEGLSLossless, Rows=20_000, Columns=20_000, **EIGHT)


def progressive() -> Dataset:
    """One picture in thousands of scans, each of which the decoder runs over all of its blocks."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2000, 2000), np.uint8)).save(buffer, "JPEG", progressive=True, quality=50)
    frame = buffer.getvalue()
    begin = frame.rindex(b"\xff\xda")
    scan = frame[begin:-2]
    frame = frame[:begin] + scan * SCANS + b"\xff\xd9"
    return compressed(frame + b"\0" * (len(frame) % 2), JPEGBaseline8Bit, Rows=2000, Columns=2000, **EIGHT)


def extended() -> Dataset:
    """12-bit JPEG Extended, all of one grey: 530 MB out of 1 MB, by DCMTK."""
    side = 16_000
    table = b"\xff\xc4" + struct.pack(">HB", 19 + 1, 0) + bytes([1, *[0] * 15]) + b"\x00"
    tables = table + table.replace(b"\x00\x14\x00", b"\x00\x14\x10", 1)
    head = b"\xff\xd8\xff\xdb\x00\x43\x00" + b"\x01" * 64 + b"\xff\xc1" + struct.pack(">HBHHB", 11, 12, side, side, 1)
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes((side // 8) ** 2 * 2 // 8)
    frame = head + b"\x01\x11\x00" + tables + scan + b"\xff\xd9"
    return compressed(frame + b"\0" * (len(frame) % 2), EXTENDED, Rows=side, Columns=side)


BOMBS: dict[str, Callable[[], Dataset]] = {
    "deflated": deflated, "RLE that claims": rle_claim, "RLE that runs": rle_runs, "JPEG that claims": jpeg_claim,
    "JPEG that lies": jpeg_lies_small, "JPEG 2000 that claims": j2k_claim, "JPEG-LS that claims": ls_claim,
    f"JPEG of {SCANS} scans": progressive, "12-bit JPEG": extended,
}  # fmt: skip


class Healthy:
    """Somebody else's images, one after another, through a child of their own, as another modality's would be."""

    def __init__(self, folder: Path) -> None:
        self._path = write(make_dx(), folder / "healthy.dcm")
        self._child = DecodeChild(LookSettings())
        self._stop, self.spent = threading.Event(), list[float]()
        self.failed = 0
        self._child.start()

    def once(self) -> None:
        began = time.perf_counter()
        try:
            self._child.look(self._path, None, None)
            self._child.decode(WANTED, 0)
        except CannotLook:
            self.failed += 1
        self.spent.append(time.perf_counter() - began)

    def p95_ms(self) -> float:
        return float(np.percentile(self.spent, 95)) * 1000.0

    def run(self) -> None:
        while not self._stop.wait(0.02):
            self.once()

    def stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._child.close()


def thrown(context: Context) -> Arm:
    return _thrown(context, "", BOMBS)


def without_limits(context: Context) -> Arm:
    code = "import inference.decode_child as d; d._set_limits = lambda *a: None"
    return _thrown(context, code, {"deflated": deflated}, decode_wall_s=120.0)  # else a slow machine ends it in time


def _thrown(context: Context, mutation: str, bombs: dict[str, Callable[[], Dataset]], **limits: float) -> Arm:
    arm = Arm()
    arm.counts.update({"rounds": 0, "refused": 0, "decoded": 0, "children ended": 0})
    healthy = Healthy(context.folder)
    for _ in range(40):
        healthy.once()
    before_ms, healthy.spent = healthy.p95_ms(), []
    paths = {name: write(make(), context.folder / f"{i}.dcm") for i, (name, make) in enumerate(bombs.items())}
    own_kb = memory_kb(os.getpid(), "VmRSS")
    thread = threading.Thread(target=healthy.run)
    thread.start()
    with mutated_child(mutation):
        child = DecodeChild(LookSettings(**(LIMITS | limits)), find_dcmtk(LookSettings()).path)
        try:
            for name, path in paths.items():
                context.progress(name)
                _throw(arm, child, name, path)
        finally:
            child.close()
            healthy.stop()
            thread.join()
            healthy.close()
    growth_kb = memory_kb(os.getpid(), "VmRSS") - own_kb
    arm.require(growth_kb < GROWTH_MAX_KB, f"the process that infers grew by {growth_kb // 1000} MB")
    arm.require(not healthy.failed, f"{healthy.failed} healthy images failed meanwhile")
    arm.require(healthy.p95_ms() < max(1000.0, 4 * before_ms), f"a healthy image took {healthy.p95_ms():.0f} ms (p95)")
    arm.goal(healthy.p95_ms() < 2 * before_ms, f"healthy p95 {healthy.p95_ms():.0f} ms, wanted < 2 x {before_ms:.0f}")
    arm.figures["node"] = f"{growth_kb / 1000:+.0f} MB"
    return arm


def _throw(arm: Arm, child: DecodeChild, name: str, path: Path) -> None:
    child.start()
    starts, watch = child.starts, Watch(child.pid or 0)
    began = time.monotonic()
    try:
        child.look(path, None, None)
        child.decode(WANTED, 0)
        end = "decoded"
    except CannotLook as refusal:
        end = refusal.reason_code
    took = time.monotonic() - began
    peak = watch.stop()
    child.start()
    arm.counts["rounds"] += 1
    arm.counts["decoded" if end == "decoded" else "refused"] += 1
    arm.counts["children ended"] += child.starts - starts
    arm.figures[name] = f"{end}, {peak / 1000:.0f} MB"
    arm.require(peak * 1024 < MEMORY_BYTES, f"{name}: the child held {peak // 1000} MB")
    arm.require(took < LIMITS["decode_wall_s"] + 10.0, f"{name}: it took {took:.0f} s")


class Watch:
    """The most that one process holds, until it ends."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._done = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._done.wait(0.01):
            self._peak = max(self._peak, memory_kb(self._pid, "VmHWM"))

    def stop(self) -> int:
        """kB."""
        self._done.set()
        self._thread.join()
        return self._peak


register(
    16,
    "decompression bombs",
    thrown,
    suite="hospital",
    without_limits=Control(r"deflated: the child held", without_limits),
)

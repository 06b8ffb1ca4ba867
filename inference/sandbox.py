"""Keep decoders at arm's length: a warm child process with limits, killed by the clock, replaced when it dies.

What the child sends is JSON and raw bytes; sizes and types are checked here and nothing is ever unpickled.
"""

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import structlog
from numpy.typing import NDArray

from config.settings import LookSettings
from inference.errors import SENSELESS, CannotLook
from inference.fit_input import Fit
from inference.frames import Gone, Said, packed, receive
from inference.header import HeaderFacts, facts_from_json

log = structlog.get_logger()
ROOT = Path(__file__).resolve().parents[1]
START_S = 60.0
MAX_JSON_BYTES = 1_000_000
MAX_BLOBS = 256  # of one answer: one for each package, and one
MAX_SIDE = 1_000_000  # of a picture in pixels, whatever its file claims
SHA256 = re.compile(r"[0-9a-f]{64}")
CODE = re.compile(r"[a-z_]{1,40}")  # of a reason
PROGRAM = (  # nothing that is imported becomes garbage: without the collector it takes a fifth less time
    "import gc, sys; gc.disable(); sys.path.insert(0, sys.argv[1]); "
    "from inference.decode_child import main; gc.freeze(); gc.enable(); main()"
)
KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")


@dataclass(frozen=True)
class Wanted:
    """How one package wants its picture. window: "header", a preset's name, or (centre, width)."""

    window: str | tuple[float, float]
    height: int
    width: int
    fit: Fit


@dataclass(frozen=True)
class Decoded:
    """pictures: for each Wanted, (height, width) float32 in [0, 1], or why there is none. display: (h, w) uint8."""

    pictures: tuple[NDArray[np.float32] | CannotLook, ...]
    spans: tuple[float, ...]  # greatest minus least brightness of the whole picture, 0 where there is none
    display: NDArray[np.uint8] | None
    rows: int
    columns: int
    source_sha256: str = ""  # of the data set's bytes, as the child read them; empty for a picture file


class DecodeChild:
    """One child, used by one thread at a time. Every method raises CannotLook for what the file is to blame for.

    dcmdjpeg: the one program that the child may start (inference/dcmtk.py); None: 12-bit JPEG is not decoded. below:
    the folders of the files that it may be asked to look at; none: any file.
    """

    program: ClassVar[str] = PROGRAM

    def __init__(self, settings: LookSettings, dcmdjpeg: Path | None = None, below: Sequence[Path] = ()) -> None:
        self._settings, self._dcmdjpeg, self._below = settings, dcmdjpeg, below
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the child if there is none. Raises OSError when it does not come up."""
        if self._process and self._process.poll() is None:
            return
        self.close()
        environment = {key: os.environ[key] for key in KEPT_VARIABLES if key in os.environ}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", self.program, str(ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        self.starts += 1
        try:
            below = [str(folder.absolute()) for folder in self._below]
            limits = {"memory_bytes": self._settings.decode_memory_bytes, "below": below}
            self._exchange({**limits, "program": str(self._dcmdjpeg or "")}, START_S, 0)
        except Gone:
            self.close()
            raise OSError("the decode child did not start; is look.decode_memory_bytes too small?") from None

    def look(self, path: Path, as_kind: str | None, age_years: float | None) -> HeaderFacts:
        """The header of one file; `decode` then decodes the same file."""
        settings = self._settings
        answer, _ = self._ask(
            {
                "op": "look",
                "path": str(path.absolute()),
                "as_kind": as_kind,
                "age_years": age_years,
                "decoded_max_bytes": settings.decoded_max_bytes,
                "dcmdjpeg": str(self._dcmdjpeg or ""),
                "tables": {
                    "body_parts": settings.body_part_descriptions,
                    "frontal": settings.frontal_descriptions,
                    "lateral": settings.lateral_descriptions,
                },
            },
            0,
        )
        try:
            return facts_from_json(answer["facts"])
        except SENSELESS:
            raise self._distrusted() from None

    def decode(self, wanted: tuple[Wanted, ...], display_side: int) -> Decoded:
        """The pixels of the file looked at last. display_side: longest side of the display picture, 0 for none."""
        inputs = [{"window": w.window, "height": w.height, "width": w.width, "fit": w.fit} for w in wanted]
        most = sum(4 * w.height * w.width for w in wanted) + display_side**2
        answer, blobs = self._ask({"op": "decode", "inputs": inputs, "display_side": display_side}, most)
        try:
            return _decoded(answer, blobs, wanted, display_side)
        except SENSELESS:
            raise self._distrusted() from None

    def close(self) -> None:
        """End the child and what it has started. Safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its number is the group's, and stays so while anyone is in it
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(OSError):  # what it was still to be told finds nobody
                    stream.close()

    def _ask(self, request: dict[str, Any], most_bytes: int) -> tuple[dict[str, Any], list[bytearray]]:
        self.start()
        request = {**request, "cpu_s": self._settings.decode_cpu_s, "wall_s": self._settings.decode_wall_s}
        began = time.monotonic()
        try:
            answer, blobs = self._exchange(request, self._settings.decode_wall_s, most_bytes)
        except Gone:
            raise self._post_mortem(time.monotonic() - began) from None
        if answer.get("tired"):
            self.close()
        if "error" in answer:
            raise _refusal(answer["error"])
        return answer, blobs

    def _exchange(self, request: Said, within_s: float, most: int) -> tuple[Said, list[bytearray]]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise Gone
        deadline = time.monotonic() + within_s
        try:
            process.stdin.writelines(packed(request))
            process.stdin.flush()
        except OSError:
            raise Gone from None
        return receive(process.stdout.fileno(), deadline, MAX_JSON_BYTES, most, MAX_BLOBS)

    def _post_mortem(self, lasted_s: float) -> CannotLook:
        """Why the child is gone; it is replaced at the next request."""
        process = self._process
        code = None if process is None else process.poll()
        if code is None and process is not None and lasted_s < self._settings.decode_wall_s:
            try:
                code = process.wait(0.5)
            except subprocess.TimeoutExpired:
                code = None
        self.close()
        log.warning("decode_child_gone", exit_code=code, lasted_s=round(lasted_s, 2))
        if lasted_s >= self._settings.decode_wall_s or code == -signal.SIGXCPU:
            return CannotLook("decode_limit", "Decoding took longer than this node allows.")
        return CannotLook("decode_failed", "The decoder crashed on this instance.")

    def _distrusted(self) -> CannotLook:
        self.close()
        return CannotLook("decode_failed", "The decoder gave an answer that makes no sense.")


class DecodePool:
    """A few children for a few threads. `borrow` waits for a free one."""

    def __init__(
        self, settings: LookSettings, size: int, dcmdjpeg: Path | None = None, below: Sequence[Path] = ()
    ) -> None:
        self.children = [DecodeChild(settings, dcmdjpeg, below) for _ in range(size)]
        self._free = list(self.children)
        self._condition = threading.Condition()

    def borrow(self) -> DecodeChild:
        with self._condition:
            while not self._free:
                self._condition.wait()
            return self._free.pop()

    def give_back(self, child: DecodeChild) -> None:
        with self._condition:
            self._free.append(child)
            self._condition.notify()

    def close(self) -> None:
        for child in self.children:
            child.close()


def _decoded(answer: dict[str, Any], blobs: list[bytearray], wanted: tuple[Wanted, ...], display_side: int) -> Decoded:
    """Raises one of SENSELESS for what no child of ours says."""
    pictures: list[NDArray[np.float32] | CannotLook] = []
    spans: list[float] = []
    rest = list(blobs)
    for want, said in zip(wanted, answer["pictures"], strict=True):
        if "error" in said:
            pictures.append(_refusal(said["error"]))
            spans.append(0.0)
            continue
        picture = np.frombuffer(rest.pop(0), np.float32).reshape(want.height, want.width)
        if not np.isfinite(picture).all() or picture.min() < -0.01 or picture.max() > 1.01:
            raise ValueError("brightness outside 0 to 1")
        pictures.append(picture)
        spans.append(float(said["high"]) - float(said["low"]))
        if not math.isfinite(spans[-1]):
            raise ValueError("brightness without a span")
    display = None
    if answer["display"] is not None:
        height, width = (_side(side, 1, display_side) for side in answer["display"])
        display = np.frombuffer(rest.pop(0), np.uint8).reshape(height, width)
    if rest:
        raise ValueError("blobs without a meaning")
    sha256 = answer.get("source_sha256", "")
    if sha256 != "" and SHA256.fullmatch(sha256) is None:
        raise ValueError("no hash")
    rows, columns = (_side(answer.get(name, 0), 0, MAX_SIDE) for name in ("rows", "columns"))
    return Decoded(tuple(pictures), tuple(spans), display, rows, columns, sha256)


def _side(said: Any, least: int, most: int) -> int:
    if type(said) is not int or not least <= said <= most:
        raise ValueError("no side of a picture")
    return said


def _refusal(said: Any) -> CannotLook:
    """A reason that a child gave: short and printable, or a plain one of our own."""
    match said:
        case [str(code), str(reason)] if CODE.fullmatch(code) and len(reason) <= 300 and reason.isprintable():
            return CannotLook(code, reason)
    return CannotLook("decode_failed", "The decoder refused this instance.")

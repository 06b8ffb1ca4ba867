"""The process that touches untrusted bytes. It reads requests from stdin and answers on stdout, and can do no more.

What a message is, inference/frames.py says. The parent believes nothing of it beyond sizes and types. Run by
inference/sandbox.py, never imported by the node.
"""

import gc
import hashlib
import importlib
import io
import os
import resource
import stat
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import config as pydicom_config
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import _read_file_meta_info, read_partial, read_preamble
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import BaseTag
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from inference import frames, jail
from inference.body_parts import SiteTables
from inference.errors import CannotLook
from inference.fit_input import resize
from inference.header import HeaderFacts, read_header
from inference.jpeg_extended import Limits
from inference.picture_kinds import PICTURE_KINDS, picture_kind
from inference.pixels import GREY, grey_of, read_format, stored_frame
from inference.voi import render

Picture = NDArray[np.float32]
Op = Callable[[dict[str, Any]], dict[str, Any]]  # a request to its answer; raises CannotLook
PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
COMPRESSED = (JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless, RLELossless)
PICTURE_FORMATS = ("PNG", "JPEG")
BUGS = (ValueError, TypeError, KeyError, AttributeError, IndexError, OSError, EOFError, NotImplementedError,
        RecursionError, struct.error, ArithmeticError, InvalidDicomError, BytesLengthException, zlib.error)  # fmt: skip


class Look:
    """One untrusted file between its two requests: first its header, then its pixels."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.path = Path(request["path"])
        self.as_kind: str | None = request["as_kind"]
        self.age_years: float | None = request["age_years"]
        self.tables = SiteTables(**request["tables"])
        self.decoded_max_bytes = int(request["decoded_max_bytes"])
        program, cpu_s, wall_s = request["dcmdjpeg"], float(request["cpu_s"]), float(request["wall_s"])
        self.dcmtk = Limits(Path(program), cpu_s, wall_s) if program else None
        self.source_sha256 = ""  # of the data set that was decoded; pictures have none

    def facts(self) -> HeaderFacts:
        kind = _kind_of_file(self.path)
        if kind == "dicom":
            return self._dicom_facts()
        if kind == "picture" and self.as_kind:
            return self._picture_facts(*picture_kind(self.as_kind))
        if kind == "picture":
            raise CannotLook(
                "unreadable", f"The file is not DICOM (PNG and JPEG need --as {' or '.join(PICTURE_KINDS)})."
            )
        raise CannotLook("unreadable", "No Part 10 header: the file is not DICOM, or lacks its preamble and 'DICM'.")

    def _dicom_facts(self) -> HeaderFacts:
        seen_pixels: list[int] = []

        def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
            if int(tag) in PIXEL_TAGS:
                seen_pixels.append(int(tag))
            return bool(seen_pixels)

        try:
            with self.path.open("rb") as file:
                ds = read_partial(file, stop_when=at_pixels)
            facts = read_header(ds, self.tables)
        except BUGS as error:
            raise CannotLook("unreadable", "The file cannot be read as DICOM.") from error
        if not ds.file_meta and facts.sop_class_uid is None:  # bytes after DICM that mean nothing
            raise CannotLook("unreadable", "The file cannot be read as DICOM.")
        return HeaderFacts(**{**facts.to_json(), "has_pixels": bool(seen_pixels)})

    def _picture_facts(self, modality: str, body_part: str, view: str | None) -> HeaderFacts:
        columns, rows = _open_picture(self.path, self.decoded_max_bytes).size
        return HeaderFacts(
            modality=modality, body_part=body_part, body_part_source="--as",
            view=view, view_source="--as" if view else "",
            age_years=self.age_years, age_source="--age" if self.age_years is not None else "",
            image_type=("ORIGINAL", "PRIMARY"), has_pixels=True, rows=rows, columns=columns, unverified=True,
        )  # fmt: skip

    def pictures(self, windows: list[Any]) -> list[Picture | CannotLook]:
        """One picture, or why not, for each window: decoded once."""
        if _kind_of_file(self.path) == "picture":
            return [_picture_pixels(self.path, self.decoded_max_bytes)] * len(windows)
        try:
            content = self.path.read_bytes()  # once: what is hashed is what is decoded
            self.source_sha256 = _data_set_sha256(content)
            ds = dcmread(io.BytesIO(content))
            form = read_format(ds, str(ds.file_meta.TransferSyntaxUID), self.decoded_max_bytes)
            samples = stored_frame(ds, form, self.dcmtk)
        except BUGS as error:
            raise CannotLook("decode_failed", "The instance cannot be read.") from error
        if form.photometric not in GREY:
            return [(grey_of(samples) / np.float32(255.0)).astype(np.float32)] * len(windows)
        return [_rendered(samples, form, ds, window) for window in windows]


def _data_set_sha256(content: bytes) -> str:
    """Of a Part 10 file's bytes after its file meta information, as admission hashes them while they stream in."""
    file = io.BytesIO(content)
    read_preamble(file, force=False)
    _read_file_meta_info(file)
    return hashlib.sha256(memoryview(content)[file.tell() :]).hexdigest()


def _rendered(samples: NDArray[Any], form: Any, ds: Dataset, window: Any) -> Picture | CannotLook:
    try:
        return render(samples, form, ds, window if isinstance(window, str) else (window[0], window[1]))
    except CannotLook as refusal:
        return refusal
    except BUGS:
        return CannotLook("header_malformed", "The header's tables or windows cannot be read.")


def _kind_of_file(path: Path) -> str:
    """By its first bytes. Only regular files: a pipe would hold the child until its limit."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise CannotLook("unreadable", "The path is not a file.")
        with path.open("rb") as file:
            start = file.read(132)
    except OSError as error:
        raise CannotLook("unreadable", "The file cannot be opened.") from error
    if start[128:132] == b"DICM":
        return "dicom"
    return "picture" if start.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) else "unknown"


def _open_picture(path: Path, decoded_max_bytes: int) -> Image.Image:
    try:
        picture = Image.open(path, formats=PICTURE_FORMATS)
    except (*BUGS, Image.DecompressionBombError) as error:
        raise CannotLook("unreadable", "The picture cannot be read.") from error
    if picture.width * picture.height * 4 > decoded_max_bytes:
        raise CannotLook("decode_limit", "The decoded picture would be larger than this node allows.")
    return picture


def _picture_pixels(path: Path, decoded_max_bytes: int) -> Picture:
    """Grey PNG or JPEG of 8 or 16 bit, or a coloured mode that holds greys only; 0 is black."""
    picture = _open_picture(path, decoded_max_bytes)
    try:
        if picture.mode in ("I;16", "I"):
            return np.asarray(np.clip(np.asarray(picture, np.float32) / 65535.0, 0.0, 1.0), np.float32)
        if picture.mode not in ("L", "1"):
            grey = grey_of(np.asarray(picture.convert("RGB")))
        else:
            grey = np.asarray(picture.convert("L"))
    except BUGS as error:
        raise CannotLook("decode_failed", "The picture cannot be decoded.") from error
    return np.asarray(grey / np.float32(255.0), np.float32)


def _answer_render(look: Look, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Each package's picture resized as its manifest says, and one for people's eyes."""
    wanted = request["inputs"]
    answers: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    shown: Picture | None = None
    for spec, picture in zip(wanted, look.pictures([spec["window"] for spec in wanted]), strict=True):
        if isinstance(picture, CannotLook):
            answers.append({"error": [picture.reason_code, picture.reason]})
            continue
        shown = picture if shown is None else shown
        answers.append({"low": float(picture.min()), "high": float(picture.max())})
        blobs.append(resize(picture, spec["height"], spec["width"], spec["fit"]).tobytes())
    answer: dict[str, Any] = {"pictures": answers, "display": None, "source_sha256": look.source_sha256}
    if shown is not None:
        answer["rows"], answer["columns"] = shown.shape
        if request["display_side"]:
            display = _display(shown, request["display_side"])
            answer["display"] = list(display.shape)
            blobs.append(display.tobytes())
    return answer, blobs


def _display(picture: Picture, side: int) -> NDArray[np.uint8]:
    """(rows, columns) uint8, the longest side at most `side`."""
    rows, columns = picture.shape
    scale = min(1.0, side / max(rows, columns))
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    small = Image.fromarray(np.ascontiguousarray(picture), mode="F")
    if scale < 1.0:
        small = small.reduce(max(1, int(1.0 / scale))).resize(size, Image.Resampling.BOX)
    return np.asarray(np.rint(np.asarray(small) * 255.0), np.uint8)


def _warm_up() -> None:
    """Import every decoder now: the first image should not wait for it."""
    Image.preinit()
    for syntax in COMPRESSED:
        get_decoder(syntax)
    for name in ("openjpeg", "libjpeg", "jpeg_ls"):
        importlib.import_module(name)


def _set_limits(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _limit_cpu(seconds: float) -> None:
    """From now on; the kernel sends SIGXCPU, which nobody catches."""
    used = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, resource.RLIM_INFINITY))


def _answer(
    look: Look | None, request: dict[str, Any], more: Mapping[str, Op]
) -> tuple[Look | None, dict[str, Any], list[bytes]]:
    try:
        if request["op"] in more:
            return None, more[request["op"]](request), []
        if request["op"] == "look":
            look = Look(request)
            return look, {"facts": look.facts().to_json()}, []
        if look is None:
            raise CannotLook("decode_failed", "There is no instance to decode.")
        answer, blobs = _answer_render(look, request)
        return None, answer, blobs
    except CannotLook as refusal:
        return None, {"error": [refusal.reason_code, refusal.reason]}, []
    except MemoryError:
        return (
            None,
            {"error": ["decode_limit", "Decoding needed more memory than this node allows."], "tired": True},
            [],
        )


def main(more: Mapping[str, Op] = MappingProxyType({})) -> None:
    """Serve until stdin ends. more: what a child of another trade answers, which decodes no pixels."""
    stdin, stdout = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a decoder prints may look like an answer
    warnings.simplefilter("ignore")  # pydicom's warnings quote values
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
    Image.MAX_IMAGE_PIXELS = None  # our own limit comes first
    first = frames.read(stdin)
    if first is None:
        return
    limits, _ = first
    if not more:
        _warm_up()
    _set_limits(int(limits["memory_bytes"]))
    jail.close(limits["below"], limits["program"])
    frames.write(stdout, {"ready": True})
    look: Look | None = None
    gc.freeze()
    while (asked := frames.read(stdin)) is not None:
        request, _ = asked
        _limit_cpu(float(request["cpu_s"]))
        look, answer, blobs = _answer(look, request, more)
        frames.write(stdout, answer, blobs)
        if answer.get("tired"):
            return


if __name__ == "__main__":
    main()
    sys.exit(0)

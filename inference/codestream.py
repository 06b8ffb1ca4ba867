"""What a compressed frame says of itself, read before any decoder sees it: a header that lies is refused."""

import struct
from dataclasses import dataclass
from itertools import pairwise

from inference.errors import CannotLook

RLE_MAX_EXPANSION = 64  # PackBits: two bytes give at most 128 (PS3.5 G.3)
SOF_MARKERS = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
BASELINE, EXTENDED, LOSSLESS, JPEG_LS = 0xC0, 0xC1, 0xC3, 0xF7
MAX_SEGMENTS = 4096
END_OF_IMAGE = b"\xff\xd9"
TRAILING_MAX = 64  # bytes behind the end: padding, and what encoders leave there


@dataclass(frozen=True)
class Declared:
    rows: int
    columns: int
    components: int
    precision: int
    marker: int = 0  # of the JPEG frame header; 0 for JPEG 2000


def declared_by(frame: bytes) -> Declared | None:
    """Size, components and precision from a JPEG, JPEG-LS or JPEG 2000 frame; None when it is none of them."""
    if frame[:2] == b"\xff\xd8":
        return _jpeg(frame)
    if frame[:4] == b"\xff\x4f\xff\x51":
        return _jpeg2000(frame, 4)
    if frame[4:8] == b"jP  ":
        start = frame.find(b"\xff\x4f\xff\x51", 0, 65536)
        return _jpeg2000(frame, start + 4) if start >= 0 else None
    return None


def check_end(frame: bytes) -> int:
    """Where a JPEG or JPEG-LS frame ends. Decoders paint what is missing grey, and say nothing. Raises CannotLook."""
    end = frame.rfind(END_OF_IMAGE)
    if end < 0 or len(frame) - end > TRAILING_MAX:
        raise CannotLook("decode_failed", "The compressed frame is cut short.")
    return end


def check_rle(frame: bytes, planes: int, plane_bytes: int) -> None:
    """PS3.5 G.5: a header of 64 bytes with as many segments as byte planes, none of which could hold less.

    plane_bytes: what each segment must expand to. Raises CannotLook.
    """
    if len(frame) < 64:
        raise CannotLook("decode_failed", "the RLE header is cut short")
    count, *offsets = struct.unpack_from("<16I", frame)
    offsets = [*offsets[: min(count, 15)], len(frame)]
    if count != planes or offsets[0] != 64 or any(a >= b for a, b in pairwise(offsets)):
        raise CannotLook("decode_failed", "the RLE segments do not fit the header")
    if any((b - a) * RLE_MAX_EXPANSION < plane_bytes for a, b in pairwise(offsets)):
        raise CannotLook("pixel_length", "the RLE data are too short for the rows and columns of the header")


def _jpeg(frame: bytes) -> Declared | None:
    at = 2
    for _ in range(MAX_SEGMENTS):
        if at + 4 > len(frame) or frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in SOF_MARKERS:
            return _frame_header(frame, at + 4, marker)
        if marker == 0xDA:
            return None
        at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return None


def _frame_header(frame: bytes, at: int, marker: int) -> Declared | None:
    if at + 6 > len(frame):
        return None
    precision, rows, columns, components = struct.unpack_from(">BHHB", frame, at)
    return Declared(rows, columns, components, precision, marker)


def _jpeg2000(frame: bytes, at: int) -> Declared | None:
    """The SIZ segment (ITU-T T.800 A.5.1)."""
    if at + 39 > len(frame):
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, at + 4)
    components, depth = struct.unpack_from(">HB", frame, at + 36)
    return Declared(bottom - top, right - left, components, (depth & 0x7F) + 1)

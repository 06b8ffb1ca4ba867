"""RLE Lossless (PS3.5 annex G), strictly: each segment expands to one byte plane of the frame, no more and no less.

Readers commonly cut off what is too much, and so believe a header that says too few rows.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from inference.errors import CannotLook

PADDING = b"\x00\x80"  # what may stand behind a segment's last run


def planes(frame: bytes, count: int, plane_bytes: int) -> list[NDArray[np.uint8]]:
    """`count` byte planes of `plane_bytes` each, the most significant first (PS3.5 G.2). frame: with a header that
    `check_rle` has found sound. Raises CannotLook."""
    offsets = [*struct.unpack_from(f"<{count}I", frame, 4), len(frame)]
    return [np.frombuffer(_expanded(frame[offsets[i] : offsets[i + 1]], plane_bytes), np.uint8) for i in range(count)]


def samples(frame: bytes, count: int, rows: int, columns: int) -> NDArray[np.unsignedinteger]:
    """(rows, columns) of `count` bytes: 1, 2 or 4."""
    joined = np.stack(planes(frame, count, rows * columns), axis=-1)
    return joined.view(f">u{count}").astype(f"u{count}").reshape(rows, columns)


def _expanded(segment: bytes, wanted: int) -> bytearray:
    """PackBits (PS3.5 G.3.2)."""
    out, at, end = bytearray(), 0, len(segment)
    while len(out) < wanted and at < end:
        head = segment[at]
        at += 1
        if head < 128:
            out += segment[at : at + head + 1]
            at += head + 1
        elif head > 128:
            out += segment[at : at + 1] * (257 - head)
            at += 1
    if len(out) != wanted or segment[at:].strip(PADDING):
        raise CannotLook("pixel_length", "The RLE data do not hold exactly the rows and columns of the header.")
    return out

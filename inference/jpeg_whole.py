"""Whether a sequential JPEG frame holds all of its blocks. Decoders paint grey what is missing, and warn nobody.

What stands behind the last block of a whole frame means nothing, so a frame with a few more bytes there decodes to the
same picture. In a frame that was cut short and closed with an end marker, they are taken for the missing blocks.
"""

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from libjpeg.utils import decode
from numpy.typing import NDArray
from PIL import Image

from inference.errors import CannotLook

FILL = b"\xff"  # a byte of a block that has this value is followed by a zero; without one it belongs to the next marker
MORE = (
    b"\xb6\xa5\xd2\x6d" * 128,
    b"\x49\x5a\x2d\x92" * 128,
)  # any bits but zeros, which is what is made up, and markers


def is_whole(frame: bytes, end: int, decoded: Callable[[bytes], NDArray[Any]] | None = None) -> bool:
    """end: where its end marker is. decoded: by which decoder, libjpeg-turbo when None. Raises CannotLook when that
    cannot decode it."""
    decoded = decoded or by_turbo
    blocks = frame[:end].rstrip(FILL)
    plain = decoded(frame)
    return all(np.array_equal(plain, decoded(blocks + more + frame[end:])) for more in MORE)


def by_pylibjpeg(frame: bytes) -> NDArray[Any]:
    """JPEG-LS as well, and leniently. Raises CannotLook."""
    try:
        return np.asarray(decode(frame))
    except (RuntimeError, ValueError, TypeError) as error:
        raise CannotLook("decode_failed", "The pixel data cannot be decoded.") from error


def by_turbo(frame: bytes) -> NDArray[np.uint8]:
    """JPEG of 8 bits. Raises CannotLook."""
    try:
        with Image.open(io.BytesIO(frame), formats=("JPEG",)) as picture:
            return np.asarray(picture)
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        raise CannotLook("decode_failed", "The pixel data cannot be decoded.") from error

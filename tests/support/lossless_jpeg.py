"""JPEG Lossless (ITU-T T.81 annex H), written by hand: any precision, predictor and way of wrapping a difference."""

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CODES = 17  # categories 0 to 16, five bits each


def encode(pixels: NDArray[np.uint16], precision: int = 16, predictor: int = 1, wrap: bool = False) -> bytes:
    """pixels: (rows, columns) below 2^precision. predictor: selection value 1 to 7 (T.81 table H.1).

    wrap: each difference the long way round modulo 2^precision, as some ultrasound encoders write it; modulo 2^16 it is
    another number then, unless precision is 16, and a decoder must keep the low bits of the sum alone.
    """
    rows, columns = pixels.shape
    bits = "".join(map(_coded, _differences(pixels.astype(int), precision, predictor, wrap)))
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    table = (
        b"\xff\xc4" + struct.pack(">HB", 19 + CODES, 0) + bytes([0, 0, 0, 0, CODES, *[0] * 11]) + bytes(range(CODES))
    )
    frame = b"\xff\xc3" + struct.pack(">HBHHB", 11, precision, rows, columns, 1) + b"\x01\x11\x00"
    scan = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, predictor, 0, 0)
    encoded = b"\xff\xd8" + frame + table + scan + body + b"\xff\xd9"
    return encoded + b"\0" * (len(encoded) % 2)


def _differences(pixels: NDArray[np.int_], precision: int, predictor: int, wrap: bool) -> Iterator[int]:
    span = 1 << precision
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            difference = int(pixels[y, x]) - _predicted(pixels, y, x, precision, predictor)
            if wrap and difference > 0:
                difference -= span
            yield (difference + 32767) % 65536 - 32767  # modulo 2^16, in -32767..32768


def _predicted(pixels: NDArray[np.int_], y: int, x: int, precision: int, predictor: int) -> int:
    if y == 0:
        return int(pixels[0, x - 1]) if x else 1 << precision - 1
    b = int(pixels[y - 1, x])
    if x == 0:
        return b
    a, c = int(pixels[y, x - 1]), int(pixels[y - 1, x - 1])
    return (a, b, c, a + b - c, a + (b - c >> 1), b + (a - c >> 1), a + b >> 1)[predictor - 1]


def _coded(difference: int) -> str:
    """Category in five bits, then as many bits as it says; category 16, a difference of 32768, has none (H.1.2.2)."""
    category = abs(difference).bit_length()
    if category == 16:
        return f"{category:05b}"
    low = difference if difference >= 0 else difference + (1 << category) - 1
    return f"{category:05b}" + (f"{low:0{category}b}" if category else "")

"""DICOM files that lie: each differs from a good one in a way that once broke somebody's reader."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

from tests.support.dx import make_dx, write

J2K = UID("1.2.840.10008.1.2.4.90")
JPEG_BASELINE = UID("1.2.840.10008.1.2.4.50")
JPEG_LOSSLESS = UID("1.2.840.10008.1.2.4.70")


def square(rows: int, columns: int, top: int, left: int, side: int) -> NDArray[np.uint16]:
    """Mid-dark with one bright square: (rows, columns), 0..4095."""
    pixels = np.full((rows, columns), 400, np.uint16)
    pixels[top : top + side, left : left + side] = 4000
    return pixels


def compressed(frame: bytes, syntax: UID, frames: int = 1, **overrides: Any) -> Dataset:
    """A DX whose pixel data are `frame`, unchecked, under a compressed transfer syntax."""
    ds = make_dx(**overrides)
    ds.PixelData = encapsulate([frame] * frames)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
    return ds


def rle_frame(segments: int = 2, body: bytes = b"\x81\x00" * 8) -> bytes:
    """An RLE frame with `segments` segments of `body` each (PS3.5 annex G)."""
    offsets = [64 + i * len(body) for i in range(segments)]
    return struct.pack("<16I", segments, *offsets, *[0] * (15 - segments)) + body * segments


def jpeg_header(rows: int, columns: int, sof: int = 0xC0, precision: int = 8) -> bytes:
    """SOI and a frame header that claims a size, then nothing that could be decoded."""
    frame = struct.pack(">HBHHB", 11, precision, rows, columns, 1) + b"\x01\x11\x00"
    return b"\xff\xd8\xff" + bytes([sof]) + frame + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + b"\x00" * 32


def j2k_header(rows: int, columns: int) -> bytes:
    """SOC and SIZ with one component of 8 bits, then nothing."""
    siz = struct.pack(">HHIIIIIIIIHBBB", 41, 0, columns, rows, 0, 0, columns, rows, 0, 0, 1, 7, 1, 1)
    return b"\xff\x4f\xff\x51" + siz + b"\xff\xd9"


def lossless_jpeg(pixels: NDArray[np.uint8], wrap: bool = False) -> bytes:
    """JPEG Lossless, process 14, selection value 1, 8 bit, by hand (ITU-T T.81 annex H).

    wrap: write each difference the long way round modulo 2^16, as Philips and Samsung ultrasound encoders do; a
    decoder that clips instead of wrapping then shows white where there is grey.
    """
    rows, columns = pixels.shape
    bits = "".join(_difference(int(d)) for d in _differences(pixels, wrap))
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    counts = bytes([0, 0, 0, 0, 17, *[0] * 11])  # 17 categories with five bits each
    table = b"\xff\xc4" + struct.pack(">HB", 19 + 17, 0) + counts + bytes(range(17))
    frame = b"\xff\xc3" + struct.pack(">HBHHB", 11, 8, rows, columns, 1) + b"\x01\x11\x00"
    scan = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0)
    return b"\xff\xd8" + frame + table + scan + body + b"\xff\xd9"


def _differences(pixels: NDArray[np.uint8], wrap: bool) -> list[int]:
    out = []
    for y, row in enumerate(pixels.astype(int)):
        for x, value in enumerate(row):
            predicted = row[x - 1] if x else int(pixels[y - 1, 0]) if y else 128
            difference = value - predicted
            out.append(difference - 256 if wrap and difference > 0 else difference)
    return out


def _difference(value: int) -> str:
    """Category in five bits, then the value in as many bits as its category says (T.81 F.1.2.1)."""
    category = abs(value).bit_length()
    low = value if value >= 0 else value + (1 << category) - 1
    return f"{category:05b}" + (f"{low:0{category}b}" if category else "")


def bomb(path: Path) -> Path:
    """RLE: 30000 x 30000 claimed by four bytes."""
    ds = compressed(rle_frame(2, b"\x81\x00"), RLELossless, Rows=30000, Columns=30000)
    return write(ds, path)


def plain(path: Path, **overrides: Any) -> Path:
    """A good DX, uncompressed, with some elements changed after the fact so that they lie."""
    ds = make_dx(**overrides)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return write(ds, path)

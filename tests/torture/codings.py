"""One picture in every coding that can be made on this machine: by pydicom, by hand, and by DCMTK where it is there."""

import copy
import io
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.support.dicom_files import compressed
from tests.support.dx import make_dx, write
from tests.support.lossless_jpeg import encode

Pixels = NDArray[np.uint16]
DCMTK = Path("/usr/bin")


@dataclass(frozen=True)
class Coding:
    """expected: the stored values that must come out, exactly or within `loss`."""

    name: str
    ds: Dataset
    expected: Pixels
    loss: int = 0

    def write(self, path: Path) -> Path:
        return save(self.ds, path)


def save(ds: Dataset, path: Path) -> Path:
    """As a Part 10 file in its own transfer syntax, whatever it says."""
    syntax = UID(ds.file_meta.TransferSyntaxUID)
    little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    try:
        ds.save_as(path, enforce_file_format=True, little_endian=little, implicit_vr=implicit)
    except ValueError:  # pydicom writes no compressed pixel data that are none: as plain ones, then renamed
        if "PixelData" in ds:
            ds["PixelData"].is_undefined_length = False
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.save_as(path, enforce_file_format=True)
        path.write_bytes(relabelled(path.read_bytes(), ExplicitVRLittleEndian, syntax))
    return path


def relabelled(content: bytes, old: str, new: str) -> bytes:
    """A Part 10 file with another transfer syntax in its file meta information, and not a byte of the data set."""
    before, after = (uid.encode() + b"\0" * (len(uid) % 2) for uid in (str(old), str(new)))
    at = content.index(b"\x02\x00\x10\x00UI") + 6
    head, tail = content[:at], content[at + 2 + len(before) :]
    length = int.from_bytes(head[140:144], "little") + len(after) - len(before)
    head = head[:140] + length.to_bytes(4, "little") + head[144:]
    return head + len(after).to_bytes(2, "little") + after + tail


def chest(rng: np.random.Generator, side: int = 160, bits: int = 12) -> Pixels:
    """(side, side), bright enough for the tiny package to flag it, with a dark rim; a different one for each draw."""
    y, x = np.mgrid[-1.0 : 1.0 : side * 1j, -1.0 : 1.0 : side * 1j]
    top = (1 << bits) - 1
    values = top * (0.95 - 0.12 * (x**2 + y**2)) + rng.normal(0.0, top / 400.0, (side, side))
    values[:6] = 0.0
    return np.clip(values, 0, top).astype(np.uint16)


def made(pixels: Pixels, folder: Path) -> list[Coding]:
    """pixels: (rows, columns), 12 bits."""
    found = [_plain("explicit little endian", pixels, None)]
    found += [_plain(name, pixels, syntax) for name, syntax in UNCOMPRESSED.items()]
    found += [_by_pydicom(name, pixels, syntax) for name, syntax in BY_PYDICOM.items()]
    found += [_lossless(pixels, bits, predictor) for bits, predictor in ((12, 1), (12, 6), (16, 1), (8, 1))]
    found.append(_baseline(pixels))
    if which("dcmcjpeg", path=str(DCMTK)):
        found += [_by_dcmtk(name, pixels, folder, *command) for name, command in BY_DCMTK.items()]
    for coding in found:
        coding.ds["PixelData"].VR = "OB" if coding.ds.file_meta.TransferSyntaxUID.is_encapsulated else "OW"
    return found


UNCOMPRESSED = {
    "implicit little endian": ImplicitVRLittleEndian,
    "explicit big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
BY_PYDICOM = {"RLE": RLELossless, "JPEG-LS": JPEGLSLossless, "JPEG 2000": JPEG2000Lossless, "JPEG 2000 lossy": JPEG2000}
BY_DCMTK = {
    "12-bit JPEG Extended": ("dcmcjpeg", "+ee", "+bt", "+q", "97"),
    "JPEG Lossless by DCMTK": ("dcmcjpeg", "+el"),
    "JPEG Lossless SV1 by DCMTK": ("dcmcjpeg", "+e1"),
    "JPEG-LS by DCMTK": ("dcmcjpls", "+el"),
    "JPEG-LS near-lossless by DCMTK": ("dcmcjpls", "+en", "+md", "2"),
    "RLE by DCMTK": ("dcmcrle",),
}


def _plain(name: str, pixels: Pixels, syntax: UID | None) -> Coding:
    ds = make_dx(pixels)
    if syntax is not None:
        ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = pixels.astype(">u2").tobytes()
        ds.set_original_encoding(False, False)
    return Coding(name, ds, pixels)


def _by_pydicom(name: str, pixels: Pixels, syntax: UID) -> Coding:
    ds = make_dx(pixels)
    options = {"j2k_psnr": [70.0]} if syntax == JPEG2000 else {}
    ds.compress(syntax, generate_instance_uid=False, **options)
    return Coding(name, ds, pixels, 24 if syntax == JPEG2000 else 0)


def _lossless(pixels: Pixels, bits: int, predictor: int) -> Coding:
    values = pixels >> 4 if bits == 8 else pixels
    syntax = JPEGLosslessSV1 if predictor == 1 else JPEGLossless
    rows, columns = pixels.shape
    ds = compressed(encode(values, bits, predictor), syntax, Rows=rows, Columns=columns)
    _bits(ds, bits)
    return Coding(f"JPEG Lossless of {bits} bits, predictor {predictor}", ds, values)


def _baseline(pixels: Pixels) -> Coding:
    buffer = io.BytesIO()
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(buffer, "JPEG", quality=97)
    frame = buffer.getvalue()
    rows, columns = pixels.shape
    ds = compressed(frame + b"\0" * (len(frame) % 2), JPEGBaseline8Bit, Rows=rows, Columns=columns)
    _bits(ds, 8)
    return Coding("JPEG Baseline", ds, pixels >> 4, 8)


def _bits(ds: Dataset, bits: int) -> None:
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = (8 if bits == 8 else 16), bits, bits - 1
    if bits == 8:
        ds.WindowCenter, ds.WindowWidth = "128", "256"


def _by_dcmtk(name: str, pixels: Pixels, folder: Path, tool: str, *options: str) -> Coding:
    plain, packed = write(make_dx(pixels), folder / "plain.dcm"), folder / "packed.dcm"
    subprocess.run([DCMTK / tool, *options, plain, packed], check=True)
    losses = {"12-bit JPEG Extended": 40, "JPEG-LS near-lossless by DCMTK": 2}
    return Coding(name, dcmread(io.BytesIO(packed.read_bytes())), pixels, losses.get(name, 0))


def changed(ds: Dataset, change: Callable[[Dataset], None]) -> Dataset:
    other = copy.deepcopy(ds)
    change(other)
    return other

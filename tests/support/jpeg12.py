"""12-bit JPEG Extended images, made with DCMTK's dcmcjpeg from synthetic ones."""

import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import UID

from tests.support.dicom_files import compressed
from tests.support.dx import make_dx, write
from tests.support.peers import need

EXTENDED = UID("1.2.840.10008.1.2.4.51")


def chest(seed: int = 1, rows: int = 256, columns: int = 256) -> NDArray[np.uint16]:
    """(rows, columns), from 0 to 4095 (so that dcmcjpeg has no reason to shift the values), smooth under fine noise."""
    y, x = np.mgrid[-1.0 : 1.0 : rows * 1j, -1.0 : 1.0 : columns * 1j]
    noise = np.random.default_rng(seed).normal(0.0, 6.0, (rows, columns))
    values = np.clip(3900.0 * np.exp(-(x**2 * 1.5 + y**2)) - 60.0 + noise, 0, 4095).astype(np.uint16)
    values[0, 0], values[-1, -1] = 0, 4095
    return values


def frame_of(pixels: NDArray[np.uint16], folder: Path, *options: str) -> bytes:
    """The codestream of JPEG Extended, process 4, quality 95."""
    plain, packed = write(make_dx(pixels), folder / "plain.dcm"), folder / "packed.dcm"
    subprocess.run([need("dcmcjpeg"), "+ee", "+q", "95", "+bt", *options, plain, packed], check=True)
    ds = dcmread(io.BytesIO(packed.read_bytes()))
    assert ds.file_meta.TransferSyntaxUID == EXTENDED
    return get_frame(ds.PixelData, 0, number_of_frames=1)


def make(frame: bytes, pixels: NDArray[Any], frames: int = 1, **overrides: Any) -> Dataset:
    rows, columns = pixels.shape
    return compressed(frame, EXTENDED, frames, Rows=rows, Columns=columns, **overrides)

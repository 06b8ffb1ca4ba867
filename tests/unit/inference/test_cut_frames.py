"""A compressed frame that is cut short is refused, in every coding: decoders paint the rest and say nothing."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from inference.errors import CannotLook
from inference.pixels import read_format, stored_frame
from tests.support.dicom_files import compressed
from tests.support.dx import make_dx
from tests.support.lossless_jpeg import encode

EIGHT = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
y, x = np.mgrid[0:64, 0:48]
PIXELS = np.asarray(2000 + 1500 * np.sin(x / 5.0) * np.cos(y / 7.0), np.uint16)
SMALL = {"Rows": 64, "Columns": 48}


def baseline() -> Dataset:
    buffer = io.BytesIO()
    Image.fromarray((PIXELS >> 4).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    frame = buffer.getvalue()
    return compressed(frame + b"\0" * (len(frame) % 2), JPEGBaseline8Bit, **SMALL, **EIGHT)


def by_pydicom(syntax: UID) -> Dataset:
    ds = make_dx(PIXELS)
    ds.compress(syntax, generate_instance_uid=False)
    return ds


MADE: dict[str, Callable[[], Dataset]] = {
    "baseline": baseline,
    "JPEG Lossless, 12 bits": lambda: compressed(encode(PIXELS, 12, 6), JPEGLossless, **SMALL),
    "JPEG Lossless, 8 bits": lambda: compressed(encode(PIXELS >> 4, 8), JPEGLosslessSV1, **SMALL, **EIGHT),
    "JPEG Lossless, 16 bits": lambda: compressed(
        encode(PIXELS, 16), JPEGLosslessSV1, **SMALL, BitsStored=16, HighBit=15
    ),
    "JPEG-LS": lambda: by_pydicom(JPEGLSLossless),
    "JPEG 2000": lambda: by_pydicom(JPEG2000Lossless),
    "RLE": lambda: by_pydicom(RLELossless),
}


def decoded(ds: Dataset) -> NDArray[np.int64]:
    form = read_format(ds, str(ds.file_meta.TransferSyntaxUID), 1 << 28)
    return np.asarray(stored_frame(ds, form), np.int64)


def with_frame(ds: Dataset, frame: bytes) -> Dataset:
    ds.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    return ds


@pytest.mark.parametrize("coding", MADE)
def test_a_whole_frame_is_decoded(coding: str) -> None:
    expected = PIXELS >> 4 if MADE[coding]().BitsAllocated == 8 else PIXELS
    assert np.abs(decoded(MADE[coding]()) - expected).max() <= (12 if coding == "baseline" else 0)


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.9, 0.97])
@pytest.mark.parametrize("coding", MADE)
def test_a_cut_frame_is_refused_even_with_an_end_marker(coding: str, share: float, closed: bool) -> None:
    ds = MADE[coding]()
    frame = get_frame(ds.PixelData, 0, number_of_frames=1).rstrip(b"\0")
    with pytest.raises(CannotLook):
        decoded(with_frame(ds, frame[: int(len(frame) * share)] + (b"\xff\xd9" if closed else b"")))


@pytest.mark.parametrize("coding", [coding for coding in MADE if coding.startswith(("base", "JPEG L"))])
def test_fill_bytes_before_the_end_and_padding_behind_it_are_no_cut(coding: str) -> None:
    ds = MADE[coding]()
    frame = get_frame(ds.PixelData, 0, number_of_frames=1).rstrip(b"\0")
    before = decoded(MADE[coding]())
    assert np.array_equal(decoded(with_frame(ds, frame[:-2] + b"\xff\xff\xff\xd9" + b"\0" * 12)), before)


@pytest.mark.parametrize(
    ("coding", "named"),
    [("baseline", JPEGLossless), ("JPEG Lossless, 8 bits", JPEGBaseline8Bit), ("JPEG-LS", JPEGLossless),
     ("JPEG 2000", JPEGLSLossless), ("baseline", JPEG2000Lossless)],
)  # fmt: skip
def test_a_frame_of_another_kind_than_its_transfer_syntax_names_is_refused(coding: str, named: UID) -> None:
    ds = MADE[coding]()
    ds.file_meta.TransferSyntaxUID = named
    with pytest.raises(CannotLook, match="not of the kind"):
        decoded(ds)


def test_a_lying_offset_table_has_no_say() -> None:
    """What was examined is what is decoded, whatever the instance says of where its frames begin."""
    ds = by_pydicom(RLELossless)
    ds.ExtendedOffsetTable = (8).to_bytes(8, "little")
    ds.ExtendedOffsetTableLengths = (70).to_bytes(8, "little")
    assert np.array_equal(decoded(ds), PIXELS)


@pytest.mark.parametrize(("rows", "columns"), [(63, 48), (65, 48), (64, 47), (32, 48), (1, 1)])
def test_rle_expands_to_exactly_what_the_header_says(rows: int, columns: int) -> None:
    """pydicom cuts off what is too much, and an image that is sheared by a column is analysed."""
    ds = by_pydicom(RLELossless)
    ds.Rows, ds.Columns = rows, columns
    with pytest.raises(CannotLook, match="pixel_length"):
        decoded(ds)


@pytest.mark.parametrize("change", [{"BitsStored": 0}, {"HighBit": 15}])
@pytest.mark.parametrize("coding", ["JPEG Lossless, 12 bits", "JPEG-LS", "JPEG 2000", "RLE"])
def test_bits_that_compressed_pixels_cannot_have_are_refused(coding: str, change: dict[str, int]) -> None:
    ds = MADE[coding]()
    for keyword, value in change.items():
        setattr(ds, keyword, value)
    with pytest.raises(CannotLook, match="header_malformed"):
        decoded(ds)

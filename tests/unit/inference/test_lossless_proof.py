"""JPEG Lossless comes out to the bit, or not at all: what a decoder clipped in silence is found out."""

import numpy as np
import pytest
from libjpeg import decode as by_pylibjpeg
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from inference.errors import CannotLook
from inference.lossless_proof import is_proven
from inference.pixels import read_format, stored_frame, stored_values
from tests.support.dicom_files import compressed
from tests.support.lossless_jpeg import encode

PROCESS_14 = UID("1.2.840.10008.1.2.4.57")


def picture(precision: int, kind: str) -> NDArray[np.uint16]:
    top, rng = (1 << precision) - 1, np.random.default_rng(precision)
    if kind == "noise":
        return rng.integers(0, top + 1, (24, 31)).astype(np.uint16)
    if kind == "smooth":
        return np.asarray(np.add.outer(np.arange(24), np.arange(31)) * top // 53, np.uint16)
    return rng.choice([0, top, top // 2], (300, 5)).astype(np.uint16)


def wrapped(frame: bytes, pixels: NDArray[np.uint16], precision: int) -> Dataset:
    rows, columns = pixels.shape
    allocated = 8 if precision == 8 else 16
    return compressed(
        frame, PROCESS_14, Rows=rows, Columns=columns, BitsAllocated=allocated, BitsStored=precision,
        HighBit=precision - 1,
    )  # fmt: skip


def decoded(ds: Dataset) -> NDArray[np.int64]:
    form = read_format(ds, str(ds.file_meta.TransferSyntaxUID), 1 << 28)
    return stored_values(stored_frame(ds, form), form)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("kind", ["noise", "smooth", "extremes"])
@pytest.mark.parametrize("precision", [8, 10, 12, 15, 16])
def test_what_the_standard_makes_of_it_is_bit_exact(precision: int, kind: str, predictor: int) -> None:
    pixels = picture(precision, kind)
    assert np.array_equal(decoded(wrapped(encode(pixels, precision, predictor), pixels, precision)), pixels)


@pytest.mark.parametrize("kind", ["noise", "smooth", "extremes"])
@pytest.mark.parametrize("precision", [9, 10, 12, 15])
def test_differences_that_the_decoder_clips_are_refused(precision: int, kind: str) -> None:
    """The control: the decoder by itself returns wrong values and no error."""
    pixels = picture(precision, kind)
    frame = encode(pixels, precision, 1, wrap=True)
    assert not np.array_equal(by_pylibjpeg(frame), pixels)
    with pytest.raises(CannotLook, match="decode_failed"):
        decoded(wrapped(frame, pixels, precision))


def test_one_clipped_sample_in_a_large_image_is_found() -> None:
    pixels = np.full((700, 300), 1000, np.uint16)
    pixels[650, 299] = 4095
    frame = encode(pixels, 12)
    assert is_proven(frame, pixels, 12)
    pixels[650, 299] = 3000
    clipped = pixels.copy()
    clipped[650, 299] = 4095
    assert not is_proven(encode(pixels, 12), clipped, 12)


@pytest.mark.parametrize("at", range(2, 120, 3))
def test_a_damaged_header_proves_nothing_and_raises_nothing(at: int) -> None:
    pixels = picture(12, "extremes")
    frame = bytearray(encode(pixels, 12))
    frame[at] ^= 0x55
    assert is_proven(bytes(frame), pixels, 12) in (True, False)


def test_restarts_begin_again() -> None:
    strips = [picture(12, "noise")[:8], picture(12, "extremes")[:8, :1].repeat(31, axis=1), picture(12, "smooth")[:8]]
    frames = [encode(strip, 12) for strip in strips]
    begin = frames[0].index(b"\xff\xda")
    bodies = [frame[frame.index(b"\xff\xda") + 10 : frame.rindex(b"\xff\xd9")] for frame in frames]
    head = bytearray(frames[0][:begin])
    head[head.index(b"\xff\xc3") + 5 : head.index(b"\xff\xc3") + 7] = (24).to_bytes(2, "big")
    interval = b"\xff\xdd\x00\x04" + (8 * 31).to_bytes(2, "big")
    scan = frames[0][begin : begin + 10]
    frame = bytes(head) + interval + scan + b"\xff\xd0".join(bodies[:2]) + b"\xff\xd1" + bodies[2] + b"\xff\xd9"
    pixels = np.vstack(strips)
    assert np.array_equal(by_pylibjpeg(frame), pixels)
    assert is_proven(frame, pixels, 12)
    assert not is_proven(frame, np.roll(pixels, 1, axis=0), 12)

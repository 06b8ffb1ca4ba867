"""Pixel lies: a length that does not fit, sizes that do not agree, frames that are not there. None may be decoded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless

from inference.codestream import declared_by
from inference.errors import CannotLook
from inference.pixels import read_format, stored_frame, stored_values
from tests.support.dicom_files import (
    J2K,
    JPEG_BASELINE,
    JPEG_LOSSLESS,
    compressed,
    j2k_header,
    jpeg_header,
    lossless_jpeg,
    rle_frame,
)
from tests.support.dx import make_dx

LIMIT = 1 << 28


def decode(ds: Dataset, limit: int = LIMIT) -> NDArray[np.int64]:
    form = read_format(ds, str(ds.file_meta.TransferSyntaxUID), limit)
    return stored_values(stored_frame(ds, form), form)


def refusal(ds: Dataset, limit: int = LIMIT) -> str:
    with pytest.raises(CannotLook) as refused:
        decode(ds, limit)
    return refused.value.reason_code


@pytest.mark.parametrize(
    ("lie", "reason_code"),
    [
        ({"Rows": 255}, "pixel_length"),
        ({"Rows": 257}, "pixel_length"),
        ({"Rows": 32}, "pixel_length"),
        ({"Columns": 255}, "pixel_length"),
        ({"Columns": 512}, "pixel_length"),
        ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "pixel_length"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "pixel_length"),
        ({"BitsAllocated": 12}, "header_malformed"),
        ({"BitsAllocated": 64}, "header_malformed"),
        ({"BitsStored": 17}, "header_malformed"),
        ({"HighBit": 3}, "header_malformed"),
        ({"HighBit": 16}, "header_malformed"),
        ({"NumberOfFrames": 2}, "pixel_length"),
        ({"NumberOfFrames": 2_000_000_000}, "header_malformed"),
        ({"NumberOfFrames": 0}, "header_malformed"),
        ({"NumberOfFrames": -1}, "header_malformed"),
        ({"SamplesPerPixel": 3}, "photometric_unsupported"),
        ({"SamplesPerPixel": 2}, "photometric_unsupported"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "photometric_unsupported"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "photometric_unsupported"),
        ({"PhotometricInterpretation": "RGB"}, "photometric_unsupported"),
        ({"PhotometricInterpretation": None}, "photometric_unsupported"),
        ({"PixelRepresentation": 2}, "header_malformed"),
        ({"Rows": None}, "header_malformed"),
        ({"BitsAllocated": None}, "header_malformed"),
        ({"Rows": 0}, "header_malformed"),
        ({"PixelData": None}, "no_pixel_data"),
        ({"PixelData": b""}, "pixel_length"),
        ({"PixelData": b"\0" * (2 * 256 * 256 - 2)}, "pixel_length"),
        ({"PixelData": b"\0" * (2 * 256 * 256 + 2)}, "pixel_length"),
    ],
)
def test_an_uncompressed_lie_is_refused(lie: dict[str, Any], reason_code: str) -> None:
    assert refusal(make_dx(**lie)) == reason_code


def test_every_shape_that_is_not_the_right_one_is_refused() -> None:
    good = make_dx(np.zeros((8, 8), np.uint16))
    for rows in range(1, 20):
        for columns in range(1, 20):
            good.Rows, good.Columns = rows, columns
            if rows * columns != 64:
                assert refusal(good) == "pixel_length"


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    frames=st.integers(1, 4),
    allocated=st.sampled_from([1, 8, 16, 32]),
)
def test_the_length_equation_is_exact(rows: int, columns: int, frames: int, allocated: int) -> None:
    ds = make_dx(Rows=rows, Columns=columns, BitsAllocated=allocated, BitsStored=allocated, HighBit=allocated - 1)
    ds.NumberOfFrames = frames
    length = (rows * columns * frames * allocated + 7) // 8
    for size in range(max(0, length - 4), length + 5):
        ds.PixelData = b"\1" * size
        if size in (length, length + length % 2):
            assert decode(ds).shape == (rows, columns)
        else:
            assert refusal(ds) == "pixel_length"


def test_of_several_frames_the_middle_one_is_looked_at() -> None:
    frames = np.stack([np.full((4, 4), i, np.uint16) for i in range(5)])
    ds = make_dx(frames[0], NumberOfFrames=5, PixelData=frames.tobytes())
    assert (decode(ds) == 2).all()


def test_single_bits_are_read_from_the_least_significant() -> None:
    ds = make_dx(Rows=1, Columns=9, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=b"\x05\x01")
    assert decode(ds).tolist() == [[1, 0, 1, 0, 0, 0, 0, 0, 1]]


def test_a_frame_larger_than_allowed_is_not_decoded() -> None:
    assert refusal(make_dx(), limit=2 * 256 * 256 - 1) == "decode_limit"


@pytest.mark.parametrize(
    ("ds", "reason_code"),
    [
        (compressed(rle_frame(2, b"\x81\x00"), RLELossless, Rows=8000, Columns=8000), "pixel_length"),
        (compressed(rle_frame(3), RLELossless, Rows=8, Columns=8), "decode_failed"),
        (compressed(b"\x02\0\0\0" * 20, RLELossless, Rows=8, Columns=8), "decode_failed"),
        (compressed(b"\x02\0", RLELossless, Rows=8, Columns=8), "decode_failed"),
        (compressed(j2k_header(30000, 30000), J2K), "pixel_length"),
        (compressed(j2k_header(256, 256), J2K, BitsAllocated=8, BitsStored=8, HighBit=7), "decode_failed"),
        (compressed(jpeg_header(65000, 65000), JPEG_BASELINE), "pixel_length"),
        (compressed(jpeg_header(256, 256, precision=17), JPEG_BASELINE), "pixel_length"),
        (compressed(b"\xff\xd8\xff", JPEG_BASELINE), "decode_failed"),
        (compressed(b"garbage!", JPEG_BASELINE), "decode_failed"),
        (compressed(rle_frame(), RLELossless, NumberOfFrames=3), "decode_failed"),
    ],
)  # fmt: skip
def test_a_compressed_lie_is_refused_before_a_decoder_sees_it(ds: Dataset, reason_code: str) -> None:
    assert refusal(ds) == reason_code


@pytest.mark.parametrize("cut", [1, 4, 9, 20])
def test_fragments_that_are_cut_short_are_refused(cut: int) -> None:
    ds = compressed(lossless_jpeg(np.zeros((8, 8), np.uint8)), JPEG_LOSSLESS, Rows=8, Columns=8)
    ds.PixelData = ds.PixelData[:-cut]
    assert refusal(ds) in ("pixel_length", "decode_failed")


def eight_bit(frame: bytes, shape: tuple[int, int]) -> Dataset:
    rows, columns = shape
    return compressed(
        frame, JPEG_LOSSLESS, Rows=rows, Columns=columns, BitsAllocated=8, BitsStored=8, HighBit=7
    )  # fmt: skip


def test_lossless_jpeg_is_bit_exact() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (24, 31)).astype(np.uint8)
    assert np.array_equal(decode(eight_bit(lossless_jpeg(pixels), pixels.shape)), pixels)


def test_differences_that_wrap_are_bit_exact() -> None:
    """pylibjpeg-libjpeg issue 90: 172 of 174 real instances decoded wrong, silently."""
    pixels = np.random.default_rng(3).integers(0, 256, (24, 31)).astype(np.uint8)
    assert np.array_equal(decode(eight_bit(lossless_jpeg(pixels, wrap=True), pixels.shape)), pixels)


def test_big_endian_samples_are_turned_round() -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (20, 30)).astype(np.uint16)
    ds = make_dx(pixels, PixelData=pixels.astype(">u2").tobytes())
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.set_original_encoding(False, False)
    assert np.array_equal(decode(ds), pixels)


@pytest.mark.parametrize(
    ("frame", "size"),
    [(jpeg_header(100, 200), (100, 200)), (j2k_header(100, 200), (100, 200)), (jpeg_header(7, 9, 0xF7), (7, 9))],
)
def test_a_codestream_is_asked_for_its_size(frame: bytes, size: tuple[int, int]) -> None:
    said = declared_by(frame)
    assert said is not None
    assert (said.rows, said.columns) == size


@given(st.binary(max_size=200))
def test_no_garbage_makes_the_codestream_reader_raise(frame: bytes) -> None:
    for start in (b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "):
        declared_by(start + frame)


def test_uncompressed_pixels_come_out_as_they_went_in(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (20, 30)).astype(np.uint16)
    ds = make_dx(pixels)
    assert ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert np.array_equal(decode(ds), pixels)

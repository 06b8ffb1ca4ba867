"""Brightness: our tables against pydicom's own arithmetic, and the rules of PS3.3 C.11."""

import struct
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian

from inference.errors import CannotLook
from inference.pixels import PixelFormat, stored_values
from inference.voi import PRESETS, looked_up, render


def form(
    bits: int = 12, signed: bool = False, allocated: int = 16, high_bit: int | None = None, **changes: Any
) -> PixelFormat:
    values: dict[str, Any] = {
        "rows": 4, "columns": 8, "frames": 1, "samples": 1, "bits_allocated": allocated, "bits_stored": bits,
        "high_bit": bits - 1 if high_bit is None else high_bit, "signed": signed, "photometric": "MONOCHROME2",
        "transfer_syntax": ExplicitVRLittleEndian,
    }  # fmt: skip
    return PixelFormat(**{**values, **changes})


def header(bits: int = 12, signed: bool = False, **elements: Any) -> Dataset:
    ds = Dataset()
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, bits, bits - 1, int(signed)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def raw(*values: int) -> NDArray[np.uint16]:
    return (np.array([values], np.int64) & 0xFFFF).astype(np.uint16)


def pydicoms(stored: NDArray[np.int64], ds: Dataset) -> NDArray[np.float64]:
    """pydicom's answer in its own output range."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = stored.astype(np.int16 if ds.PixelRepresentation else np.uint16)
        return np.asarray(apply_voi_lut(apply_modality_lut(array, ds), ds), np.float64)


@settings(max_examples=60, deadline=None)
@given(
    signed=st.booleans(),
    bits=st.integers(8, 16),
    slope=st.sampled_from([1.0, 0.5, 2.0, -1.0, 3.25]),
    intercept=st.sampled_from([0.0, -1024.0, 17.5]),
    center=st.floats(-2000, 4000),
    width=st.floats(2, 5000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    seed=st.integers(0, 1000),
)
def test_windows_agree_with_pydicom(
    signed: bool, bits: int, slope: float, intercept: float, center: float, width: float, function: str, seed: int
) -> None:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    stored = np.random.default_rng(seed).integers(low, high + 1, (4, 8))
    ds = header(
        bits, signed, RescaleSlope=slope, RescaleIntercept=intercept,
        WindowCenter=round(center, 3), WindowWidth=round(width, 3), VOILUTFunction=function,
    )  # fmt: skip
    ours = render((stored & 0xFFFF).astype(np.uint16), form(bits, signed), ds, "header")
    bottom, top = low * slope + intercept, high * slope + intercept  # pydicom's output range, upside down for slope < 0
    assert np.allclose(ours, (pydicoms(stored, ds) - bottom) / (top - bottom), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    signed=st.booleans(),
    entry_bits=st.integers(10, 16),  # pydicom refuses 9 and overflows its index with 8
    count=st.sampled_from([2, 100, 256, 4096]),
    first=st.integers(-500, 3000),
    seed=st.integers(0, 1000),
)
def test_voi_tables_agree_with_pydicom(signed: bool, entry_bits: int, count: int, first: int, seed: int) -> None:
    first = first if signed else abs(first)
    generator = np.random.default_rng(seed)
    entries = np.sort(generator.integers(0, 1 << entry_bits, count)).astype("<u2")
    entries[-1] = (1 << entry_bits) - 1
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [count, first, entry_bits])
    item.add_new("LUTData", "OW", entries.tobytes())
    ds = header(12, signed, VOILUTSequence=[item])
    ds.set_original_encoding(False, True)
    low, high = (-2048, 2048) if signed else (0, 4096)
    stored = generator.integers(low, high, (4, 8))
    ours = render((stored & 0xFFFF).astype(np.uint16), form(12, signed), ds, "header")
    assert np.allclose(ours, pydicoms(stored, ds) / ((1 << entry_bits) - 1), atol=1e-6)


def test_a_modality_lut_sequence_comes_before_the_window() -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4, 0, 16])
    item.add_new("LUTData", "US", [0, 100, 200, 1000])
    ds = header(ModalityLUTSequence=[item], WindowCenter=500.5, WindowWidth=1001)
    shown = render(raw(0, 1, 2, 3, 9), form(), ds, "header")[0]
    assert np.allclose(shown, [0.0, 0.1, 0.2, 1.0, 1.0], atol=1e-3)


def test_monochrome1_is_inverted_monochrome2() -> None:
    ds = header(WindowCenter=2048, WindowWidth=4096)
    samples = raw(*range(0, 4096, 64))
    bright = render(samples, form(), ds, "header")
    dark = render(samples, form(photometric="MONOCHROME1"), ds, "header")
    assert np.allclose(bright + dark, 1.0)
    assert bright[0, -1] > bright[0, 0]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_an_inverse_presentation_lut_shape_inverts_once(photometric: str) -> None:
    ds = header(WindowCenter=2048, WindowWidth=4096, PresentationLUTShape="INVERSE")
    shown = render(raw(0, 4095), form(photometric=photometric), ds, "header")[0]
    assert shown.tolist() == [1.0, 0.0]


def test_bits_above_bits_stored_are_ignored() -> None:
    ds = header(WindowCenter=2048, WindowWidth=4096)
    clean, garbage = raw(5, 1000, 4095), raw(0xF005, 0x1000 + 1000, 0xFFFF)
    assert np.array_equal(render(garbage, form(), ds, "header"), render(clean, form(), ds, "header"))


def test_signed_values_keep_their_sign() -> None:
    assert stored_values(raw(-5, 7, -2048), form(12, signed=True)).tolist() == [[-5, 7, -2048]]
    assert stored_values(np.array([[0x0FFB]], np.uint16), form(12, signed=True)).tolist() == [[-5]]


def test_left_justified_bits_are_shifted() -> None:
    assert stored_values(np.array([[0x1230]], np.uint16), form(12, high_bit=15)).tolist() == [[0x123]]


def test_without_a_window_the_range_of_the_image_counts_and_padding_does_not() -> None:
    ds = header(PixelPaddingValue=4000)
    shown = render(raw(100, 200, 300, 4000), form(), ds, "header")[0]
    assert np.allclose(shown, [0.0, 0.5, 1.0, 0.0])


def test_a_padding_range_is_black_in_either_polarity() -> None:
    ds = header(PixelPaddingValue=0, PixelPaddingRangeLimit=10, WindowCenter=2048, WindowWidth=4096)
    shown = render(raw(0, 5, 10, 11), form(photometric="MONOCHROME1"), ds, "header")[0]
    assert shown[:3].tolist() == [0.0, 0.0, 0.0]
    assert shown[3] > 0.99


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_take_values_after_the_modality_lut(preset: str) -> None:
    center, width = PRESETS[preset]
    ds = header(16, RescaleIntercept=-1024, RescaleSlope=1, WindowCenter=1, WindowWidth=1)
    samples = np.array([[center - width, center, center + width]]).astype(np.int64) + 1024
    shown = render(np.clip(samples, 0, None).astype(np.uint16), form(16), ds, preset)[0]
    assert shown[0] == 0.0 or samples[0, 0] < 0
    assert abs(shown[1] - 0.5) < 0.02
    assert shown[2] == 1.0


@pytest.mark.parametrize(
    ("elements", "reason_code"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "rescale_invalid"),
        ({"WindowCenter": 10, "WindowWidth": 0}, "window_invalid"),
        ({"WindowCenter": 10, "WindowWidth": -5, "VOILUTFunction": "SIGMOID"}, "window_invalid"),
        ({"WindowCenter": 10, "WindowWidth": 0, "VOILUTFunction": "LINEAR_EXACT"}, "window_invalid"),
        ({"WindowCenter": 10, "WindowWidth": 10, "VOILUTFunction": "MAGIC"}, "window_invalid"),
    ],
)
def test_impossible_values_are_refused(elements: dict[str, Any], reason_code: str) -> None:
    with pytest.raises(CannotLook) as refusal:
        render(raw(1, 2, 3), form(), header(**elements), "header")
    assert refusal.value.reason_code == reason_code


@pytest.mark.parametrize("data", [b"\0" * 6, b"\0" * 10, b""])
def test_a_table_shorter_or_longer_than_its_descriptor_is_refused(data: bytes) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4, 0, 16])
    item.add_new("LUTData", "OW", data)
    with pytest.raises(CannotLook, match="lut_invalid"):
        render(raw(1, 2), form(), header(VOILUTSequence=[item]), "header")


def test_eight_bit_tables_may_be_packed() -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4, 0, 8])
    item.add_new("LUTData", "OW", struct.pack("<4B", 0, 85, 170, 255))
    shown = render(raw(0, 1, 2, 3), form(), header(VOILUTSequence=[item]), "header")[0]
    assert np.allclose(shown, [0, 1 / 3, 2 / 3, 1])


def test_thirty_two_bits_go_without_a_table() -> None:
    samples = np.array([[0, 1 << 20, 1 << 21]], np.uint32)
    shown = render(samples, form(32, allocated=32), header(32), "header")[0]
    assert np.allclose(shown, [0.0, 0.5, 1.0])


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 130])
def test_looking_up_a_few_rows_at_a_time_is_looking_up(rows: int) -> None:
    rng = np.random.default_rng(rows)
    table, samples = rng.random(65536).astype(np.float32), rng.integers(0, 65536, (rows, 7)).astype(np.uint16)
    assert np.array_equal(looked_up(table, samples), table[samples])

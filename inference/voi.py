"""From stored values to brightness: Modality LUT, VOI LUT or window, polarity, padding (PS3.3 C.11.1, C.11.2).

Every step is a function over values, so that an image of at most 16 bits is one look-up per pixel.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from inference.elements import MalformedElement, decimals, items, numbers, raw_bytes, text
from inference.errors import CannotLook
from inference.pixels import PixelFormat, stored_values

Values = NDArray[np.float64]
Stored = NDArray[np.int64]
Brightness = NDArray[np.float32]
Shown = Callable[[], Stored]
PRESETS = {"lung": (-600.0, 1500.0), "bone": (400.0, 1800.0), "soft_tissue": (40.0, 400.0), "brain": (40.0, 80.0)}
ROWS_AT_ONCE = 64
WindowChoice = str | tuple[float, float]  # "header", a preset's name, or (centre, width)


@dataclass(frozen=True)
class LookUpTable:
    """first: the input value of entry 0. entries: (n,) float64. bits: of one entry."""

    first: int
    entries: Values
    bits: int

    def apply(self, values: Values) -> Values:
        """Inputs outside of the table take its first or last entry."""
        index = np.clip(np.floor(values) - self.first, 0, len(self.entries) - 1).astype(np.int64)
        return np.asarray(self.entries[index])


def render(samples: NDArray[Any], form: PixelFormat, ds: Dataset, window: WindowChoice) -> NDArray[np.float32]:
    """samples: (rows, columns) unsigned raw. Returns (rows, columns) float32 in [0, 1], larger = brighter.

    Raises CannotLook where the header's tables or windows make no sense.
    """
    try:
        if form.bits_allocated > 16:
            stored = stored_values(samples, form)
            return brightness(stored, form, ds, window, lambda: stored)
        domain = np.arange(1 << max(8, form.bits_allocated))
        table = brightness(
            stored_values(domain, form), form, ds, window, lambda: stored_values(domain[_used(samples, domain)], form)
        )
        return looked_up(table, samples)
    except MalformedElement as error:
        raise CannotLook("header_malformed", f"{error}.") from None


def looked_up(table: Brightness, samples: NDArray[Any]) -> Brightness:
    """table[samples], a few rows at a time: NumPy widens every index to 8 bytes, which should stay in the cache.

    samples: (rows, columns) unsigned, each below the table's length. Returns (rows, columns) float32.
    """
    out = np.empty(samples.shape, np.float32)
    for start in range(0, len(samples), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        np.take(table, samples[some], out=out[some], mode="clip")  # "raise" would buffer; nothing is out of range
    return out


def brightness(stored: Stored, form: PixelFormat, ds: Dataset, window: WindowChoice, shown: Shown) -> Brightness:
    """Stored values (any shape) to [0, 1]; pixel padding becomes 0. shown(): the stored values that occur."""
    out = np.clip(_voi(stored, form, ds, window, shown), 0.0, 1.0)
    if form.photometric == "MONOCHROME1" or text(ds, "PresentationLUTShape", ("CS",)).upper() == "INVERSE":
        out = 1.0 - out  # in the DX module both say the same thing, once (PS3.3 C.8.11.3.1.2)
    return np.where(_padding(stored, form, ds), 0.0, out).astype(np.float32)


def modality(stored: Stored, form: PixelFormat, ds: Dataset) -> Values:
    """Modality LUT Sequence, else Rescale Slope and Intercept, else the stored values."""
    tables = items(ds, "ModalityLUTSequence")
    if tables:
        return read_table(tables[0], form.signed).apply(stored.astype(np.float64))
    slope, intercept = _one(ds, "RescaleSlope", 1.0), _one(ds, "RescaleIntercept", 0.0)
    if slope == 0.0:
        raise CannotLook("rescale_invalid", "Rescale Slope is 0.")
    return np.asarray(stored * slope + intercept, np.float64)


def linear(values: Values, center: float, width: float) -> Values:
    """PS3.3 C.11.2.1.2.1, with the output range 0 to 1 (not clipped)."""
    if width < 1.0:
        raise CannotLook("window_invalid", "The window's width is below 1.")
    if width == 1.0:
        return (values > center - 0.5).astype(np.float64)
    return (values - (center - 0.5)) / (width - 1.0) + 0.5


def linear_exact(values: Values, center: float, width: float) -> Values:
    """PS3.3 C.11.2.1.3.2."""
    _positive(width)
    return (values - center) / width + 0.5


def sigmoid(values: Values, center: float, width: float) -> Values:
    """PS3.3 C.11.2.1.3.1."""
    _positive(width)
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -500.0, 500.0))))


FUNCTIONS: dict[str, Callable[[Values, float, float], Values]] = {
    "": linear,
    "LINEAR": linear,
    "LINEAR_EXACT": linear_exact,
    "SIGMOID": sigmoid,
}


def read_table(item: Dataset, signed_input: bool) -> LookUpTable:
    """LUT Descriptor and LUT Data (PS3.3 C.11.1.1.1). Raises CannotLook when they do not fit each other."""
    descriptor = numbers(item, "LUTDescriptor", ("US", "SS"), signed_input)
    data = raw_bytes(item, "LUTData", ("US", "SS", "OW"))
    if descriptor is None or len(descriptor) != 3 or not data:
        raise CannotLook("lut_invalid", "A look-up table has no descriptor or no data.")
    count, bits = (descriptor[0] & 0xFFFF) or 65536, descriptor[2]
    first = descriptor[1] - 65536 if signed_input and descriptor[1] > 32767 else descriptor[1]
    if not 1 <= bits <= 16 or count < 2:
        raise CannotLook("lut_invalid", "A look-up table's descriptor makes no sense.")
    wide = len(data) == 2 * count
    if not wide and not (bits <= 8 and len(data) in (count, count + count % 2)):
        raise CannotLook("lut_invalid", "A look-up table is not as long as its descriptor says.")
    kind = "H" if wide else "B"
    entries = np.array(struct.unpack(f"<{count}{kind}", data[: count * (2 if wide else 1)]), np.float64)
    return LookUpTable(first, entries, bits)


def _voi(stored: Stored, form: PixelFormat, ds: Dataset, window: WindowChoice, shown: Shown) -> Values:
    values = modality(stored, form, ds)
    if not isinstance(window, str):
        return linear(values, *window)
    if window != "header":
        return linear(values, *PRESETS[window])
    tables = items(ds, "VOILUTSequence")
    if tables:
        table = read_table(tables[0], form.signed or bool(values.min() < 0))
        return np.asarray(table.apply(values) / max(2**table.bits - 1, table.entries.max()))
    centers, widths = decimals(ds, "WindowCenter"), decimals(ds, "WindowWidth")
    if centers and widths:
        function = text(ds, "VOILUTFunction", ("CS",)).upper()
        if function not in FUNCTIONS:
            raise CannotLook("window_invalid", "The VOI LUT Function is not one of the standard's.")
        return FUNCTIONS[function](values, centers[0], widths[0])
    occurring = shown()
    return _whole_range(values, modality(occurring[~_padding(occurring, form, ds)], form, ds))


def _whole_range(values: Values, occurring: Values) -> Values:
    """No window in the header: from the least to the greatest value that is not padding."""
    low, high = (occurring.min(), occurring.max()) if occurring.size else (0.0, 0.0)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _padding(stored: Stored, form: PixelFormat, ds: Dataset) -> NDArray[np.bool_]:
    """Pixel Padding Value, and up to Pixel Padding Range Limit where there is one (PS3.3 C.7.5.1.1.2)."""
    value = numbers(ds, "PixelPaddingValue", ("US", "SS"), form.signed)
    if value is None:
        return np.zeros(stored.shape, np.bool_)
    limit = numbers(ds, "PixelPaddingRangeLimit", ("US", "SS"), form.signed) or value
    low, high = sorted((value[0], limit[0]))
    return (stored >= low) & (stored <= high)


def _used(samples: NDArray[Any], domain: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which raw values occur: bool, as long as the domain."""
    used = np.zeros(len(domain), np.bool_)
    used[samples] = True
    return used


def _one(ds: Dataset, keyword: str, absent: float) -> float:
    return (decimals(ds, keyword) or [absent])[0]


def _positive(width: float) -> None:
    if width <= 0.0:
        raise CannotLook("window_invalid", "The window's width is not above 0.")

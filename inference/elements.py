"""Read data elements from an untrusted data set: VR and VM are checked before a value is believed.

A wrong VR is an attack on the reader (UL where US is due, CVE-2026-5442), so numbers that describe pixels refuse it;
descriptive text with a wrong VR or garbage in it counts as absent.
"""

import struct
import warnings
from collections.abc import Sequence
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException

MAX_TEXT = 1024
MAX_ITEMS = 64
TEXT_VRS = frozenset({"CS", "LO", "SH", "UI", "AS", "DA", "ST", "LT", "UC", "PN", "DS", "IS"})


# What pydicom raises while it converts an element, or another element it needs for that.
UNREADABLE = (
    ValueError, TypeError, LookupError, AttributeError, EOFError, OSError, OverflowError, NotImplementedError,
    RecursionError, BytesLengthException, struct.error,
)  # fmt: skip


class MalformedElement(ValueError):
    """An element that the pixels depend on is not what the standard says. The text names keyword and rule only."""


def has(ds: Dataset, keyword: str) -> bool:
    """Present, possibly empty."""
    return _tag(keyword) in ds


def unsigned(ds: Dataset, keyword: str) -> int | None:
    """One US value; None when absent or empty. Raises MalformedElement for another VR or VM."""
    values = numbers(ds, keyword, ("US",))
    if values is None:
        return None
    if len(values) != 1:
        raise MalformedElement(f"{keyword} must have one value")
    return int(values[0])


def numbers(ds: Dataset, keyword: str, vrs: Sequence[str], signed: bool = False) -> list[int] | None:
    """All values of a US or SS element; None when absent or empty. `signed` decides a VR that is "US or SS"."""
    element = _element(ds, keyword)
    if element is None:
        return None
    if element.VR not in (*vrs, "US or SS", None):
        raise MalformedElement(f"{keyword} has the VR {_named(element.VR)}, which is not {' or '.join(vrs)}")
    if not isinstance(element, RawDataElement):
        values = element.value if isinstance(element.value, Sequence) else [element.value]
        return [_whole(value, keyword) for value in values if value not in (None, "")] or None
    raw = element.value or b""
    if len(raw) % 2 or len(raw) > 131_072:
        raise MalformedElement(f"{keyword} has {len(raw)} bytes")
    kind = "h" if element.VR == "SS" or (element.VR != "US" and signed) else "H"
    order = "<" if element.is_little_endian else ">"
    return list(struct.unpack(f"{order}{len(raw) // 2}{kind}", raw)) or None


def decimals(ds: Dataset, keyword: str) -> list[float] | None:
    """All values of a DS element; None when absent or empty. Raises MalformedElement for anything but numbers."""
    parts = strings(ds, keyword, ("DS",), strict=True)
    values = []
    for part in parts:
        try:
            values.append(float(part))
        except ValueError:
            raise MalformedElement(f"{keyword} is not a number") from None
        if not abs(values[-1]) < 1e30:
            raise MalformedElement(f"{keyword} is not a finite number")
    return values or None


def integer(ds: Dataset, keyword: str) -> int | None:
    """One IS value; None when absent or empty. Raises MalformedElement for anything but a whole number."""
    parts = strings(ds, keyword, ("IS",), strict=True)
    if not parts:
        return None
    if len(parts) != 1 or not parts[0].lstrip("+-").isdigit() or len(parts[0]) > 12:
        raise MalformedElement(f"{keyword} is not one whole number")
    return int(parts[0])


def strings(ds: Dataset, keyword: str, vrs: Sequence[str], strict: bool = False) -> list[str]:
    """The values of a text element, stripped, empty ones kept between others; [] when absent, empty or of a wrong VR.

    `strict`: a wrong VR raises MalformedElement instead.
    """
    element = _element(ds, keyword)
    if element is None:
        return []
    if element.VR not in (*vrs, None):
        if strict:
            raise MalformedElement(f"{keyword} has the VR {_named(element.VR)}, which is not {' or '.join(vrs)}")
        return []
    value: Any = element.value
    if isinstance(value, bytes):
        value = _decode(value, ds)
    elif value is not None and not isinstance(value, str) and isinstance(value, Sequence):
        value = "\\".join(str(part) for part in value)
    text = ("" if value is None else str(value)).replace("\0", " ")[:MAX_TEXT].strip()
    return [part.strip() for part in text.split("\\")] if text else []


def text(ds: Dataset, keyword: str, vrs: Sequence[str]) -> str:
    """The first value of a text element, or ""."""
    return next(iter(strings(ds, keyword, vrs)), "")


def items(ds: Dataset, keyword: str) -> list[Dataset]:
    """The first items of a sequence; [] when absent, of a wrong VR or unreadable."""
    element = _element(ds, keyword)
    if element is None or element.VR not in ("SQ", None):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote values
            value = ds[_tag(keyword)].value
    except UNREADABLE:
        return []
    return [item for item in list(value or [])[:MAX_ITEMS] if isinstance(item, Dataset)]


def raw_bytes(ds: Dataset, keyword: str, vrs: Sequence[str]) -> bytes | None:
    """The bytes of an OB, OW, US or SS element as they stand in the file; None when absent."""
    element = _element(ds, keyword)
    if element is None:
        return None
    if element.VR not in (*vrs, "OB or OW", "US or OW", "US or SS or OW", None):
        raise MalformedElement(f"{keyword} has the VR {_named(element.VR)}, which is not {' or '.join(vrs)}")
    if isinstance(element.value, bytes):
        return element.value
    if isinstance(element.value, Sequence) and not isinstance(element.value, str):
        return b"".join(struct.pack("<H", _whole(value, keyword) & 0xFFFF) for value in element.value)
    return b"" if element.value is None else struct.pack("<H", _whole(element.value, keyword) & 0xFFFF)


def _element(ds: Dataset, keyword: str) -> Any:
    tag = _tag(keyword)
    return ds.get_item(tag) if tag in ds else None


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag


def _named(vr: Any) -> str:
    """A file can have any two bytes there."""
    said = str(vr)
    return said if said.isascii() and said.isalpha() and said.isupper() else "??"


def _whole(value: Any, keyword: str) -> int:
    if not isinstance(value, int):
        raise MalformedElement(f"{keyword} is not a whole number")
    return value


def _decode(value: bytes, ds: Dataset) -> str:
    """Good enough for words in a table: the reports copy patient attributes elsewhere, from the original bytes."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")

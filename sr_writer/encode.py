"""Data sets as bytes in Explicit VR Little Endian (PS3.5 7.1.2): those that pydicom writes, in a fraction of its
time, for result objects are trees of hundreds of short strings.

What is no plain string and no sequence goes to pydicom's own writer, element by element, and so does an item that was
read from a file: its values are written as they lay there.
"""

import struct
from collections.abc import Sequence
from io import BytesIO

from pydicom.charset import default_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_dataset
from pydicom.uid import UID

Encodings = str | Sequence[str] | None  # Specific Character Set (0008,0005)

_TEXT = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UI", "UT"})
_ITEM, _SHORT_MAX = b"\xfe\xff\x00\xe0", 0xFFFF
_META_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
_LENGTHS = 6  # groups above have no Group Length any more (PS3.5 7.2)


class CannotEncode(Exception):
    """The data set holds something whose VR is yet to be decided."""


def as_file(ds: Dataset, meta: FileMetaDataset) -> bytes:
    """`ds` as a Part 10 file (PS3.10 7.1). meta: whole but for its version and length."""
    try:
        data = encoded(ds)
    except CannotEncode:
        buffer = BytesIO()
        ds.file_meta = meta
        ds.save_as(buffer, enforce_file_format=True, implicit_vr=False, little_endian=True)
        return buffer.getvalue()
    meta.FileMetaInformationVersion = b"\x00\x01"
    head = encoded(meta)
    return bytes(128) + b"DICM" + _META_LENGTH + struct.pack("<L", len(head)) + head + data


def encoded(ds: Dataset, character_set: Encodings = None) -> bytes:
    """`ds` without file meta information. character_set: of what encloses it. Raises CannotEncode."""
    if ds.original_encoding != (None, None):
        buffer = _buffer()
        write_dataset(buffer, ds, character_set or default_encoding)  # type: ignore[arg-type]
        return buffer.getvalue()
    character_set = ds.get("SpecificCharacterSet", character_set)
    tags = sorted(tag for tag in ds.keys() if tag.element or tag.group <= _LENGTHS)  # noqa: SIM118
    return b"".join([_element(ds[tag], character_set) for tag in tags])


def _element(element: DataElement, character_set: Encodings) -> bytes:
    vr, value = str(element.VR), element.value
    data: bytes
    if vr in _TEXT and type(value) in (str, UID) and value.isascii() and len(value) < _SHORT_MAX:
        data = value.encode("ascii")
        if len(data) % 2:
            data += b"\0" if vr == "UI" else b" "
        if vr == "UT":
            return _tag(element) + b"UT\0\0" + struct.pack("<L", len(data)) + data
        return _tag(element) + vr.encode() + struct.pack("<H", len(data)) + data
    if vr == "SQ" and not element.is_undefined_length:
        items = b"".join([_item(item, character_set) for item in value])
        return _tag(element) + b"SQ\0\0" + struct.pack("<L", len(items)) + items
    return _as_pydicom_does(element, character_set)


def _item(item: Dataset, character_set: Encodings) -> bytes:
    data = encoded(item, character_set)
    return _ITEM + struct.pack("<L", len(data)) + data


def _tag(element: DataElement) -> bytes:
    return struct.pack("<HH", element.tag.group, element.tag.element)


def _as_pydicom_does(element: DataElement, character_set: Encodings) -> bytes:
    if len(element.VR) != 2:  # such as "US or SS"
        raise CannotEncode(str(element.tag))
    buffer = _buffer()
    write_data_element(buffer, element, character_set)  # type: ignore[arg-type]
    return buffer.getvalue()


def _buffer() -> DicomBytesIO:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    return buffer

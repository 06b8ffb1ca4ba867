"""Small data sets as bytes, without a DICOM library in between."""

import struct
from datetime import UTC, datetime

LONG = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
CT = "1.2.840.10008.5.1.4.1.1.2"
CR = "1.2.840.10008.5.1.4.1.1.1"
SC = "1.2.840.10008.5.1.4.1.1.7"
TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
NOW = datetime.now(UTC)  # once: what is made twice has the same bytes, also when a second has passed between


def element(tag: int, vr: str, value: bytes | str = b"", explicit: bool = True, big: bool = False) -> bytes:
    """One element; the value is padded to even length. vr "" is as good as any in implicit VR."""
    data = value.encode() if isinstance(value, str) else value
    if len(data) % 2:
        data += b"\0" if vr in ("UI", "OB", "UN") else b" "
    return raw_header(tag, vr, len(data), explicit, big) + data


def raw_header(tag: int, vr: str, length: int, explicit: bool = True, big: bool = False) -> bytes:
    order = ">" if big else "<"
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if not explicit or tag >> 16 == 0xFFFE:
        return head + struct.pack(order + "L", length)
    if vr in LONG:
        return head + vr.encode() + b"\0\0" + struct.pack(order + "L", length)
    return head + vr.encode() + struct.pack(order + "H", length)


def data_set(explicit: bool = True, big: bool = False, tail: bytes = b"", **changes: str | None) -> bytes:
    """A minimal image data set. changes: by keyword below; None leaves the element out."""
    values: dict[str, tuple[int, str, str | None]] = {
        "SOPClassUID": (0x00080016, "UI", CT),
        "SOPInstanceUID": (0x00080018, "UI", "1.2.3.4"),
        "StudyDate": (0x00080020, "DA", f"{NOW:%Y%m%d}"),
        "StudyTime": (0x00080030, "TM", f"{NOW:%H%M%S}"),
        "Modality": (0x00080060, "CS", "CT"),
        "Manufacturer": (0x00080070, "LO", "Invented"),
        "TimezoneOffsetFromUTC": (0x00080201, "SH", "+0000"),
        "ManufacturerModelName": (0x00081090, "LO", "Test tube"),
        "PatientName": (0x00100010, "PN", None),
        "PatientID": (0x00100020, "LO", None),
        "PatientBirthDate": (0x00100030, "DA", None),
        "StudyInstanceUID": (0x0020000D, "UI", "1.2.3.1"),
        "SeriesInstanceUID": (0x0020000E, "UI", "1.2.3.2"),
    }
    parts = []
    for keyword, (tag, vr, default) in values.items():
        value = changes.get(keyword, default)
        if value is not None:
            parts.append(element(tag, vr, value, explicit, big))
    return b"".join(parts) + tail

"""The Part 10 header put in front of a received data set (PS3.10 7.1): made by us, the same for the same instance."""

import struct
from typing import Final

IMPLEMENTATION_CLASS_UID: Final = "2.25.316554527806047187180040993849549862208"
IMPLEMENTATION_VERSION_NAME: Final = "OPENTRIAGE_1"
_PREAMBLE: Final = bytes(128) + b"DICM"


def header(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble of zeros, prefix and file meta information. The UIDs must be valid: ASCII, at most 64 long."""
    elements = b"".join(
        (
            struct.pack("<HH2sxxL2s", 2, 0x0001, b"OB", 2, b"\0\1"),
            _element(0x0002, b"UI", sop_class_uid),
            _element(0x0003, b"UI", sop_instance_uid),
            _element(0x0010, b"UI", transfer_syntax_uid),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
        )
    )
    return _PREAMBLE + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(elements)) + elements


def _element(element: int, vr: bytes, value: str) -> bytes:
    encoded = value.encode("ascii")
    if len(encoded) % 2:
        encoded += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 2, element, vr, len(encoded)) + encoded

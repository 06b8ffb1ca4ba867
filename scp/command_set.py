"""The command sets a receiver needs, in implicit VR, little endian (PS3.7 6.3.1, E.1)."""

import struct
from typing import Final

from scp.status import Answer

C_STORE_RQ: Final = 0x0001
C_STORE_RSP: Final = 0x8001
N_EVENT_REPORT_RQ: Final = 0x0100
N_EVENT_REPORT_RSP: Final = 0x8100
NO_DATA_SET: Final = 0x0101

AFFECTED_SOP_CLASS_UID: Final = 0x0002
COMMAND_FIELD: Final = 0x0100
MESSAGE_ID: Final = 0x0110
MESSAGE_ID_RESPONDED_TO: Final = 0x0120
PRIORITY: Final = 0x0700
DATA_SET_TYPE: Final = 0x0800
STATUS: Final = 0x0900
OFFENDING_ELEMENT: Final = 0x0901
ERROR_COMMENT: Final = 0x0902
AFFECTED_SOP_INSTANCE_UID: Final = 0x1000
EVENT_TYPE_ID: Final = 0x1002

COMMAND_SET_MAX_BYTES: Final = 65_536
_HEADER = struct.Struct("<HHL")


def decode(encoded: bytes) -> dict[int, bytes]:
    """Element number -> raw value of group 0000. Raises ValueError unless the elements end where the bytes end."""
    elements: dict[int, bytes] = {}
    position, size = 0, len(encoded)
    while position < size:
        if size - position < 8:
            raise ValueError("command set is cut off")
        group, element, length = _HEADER.unpack_from(encoded, position)
        position += 8
        if group != 0 or length > size - position:
            raise ValueError("command set is malformed")
        elements[element] = encoded[position : position + length]
        position += length
    return elements


def number(elements: dict[int, bytes], element: int, default: int | None = None) -> int:
    """A US value. Raises ValueError when it is not two bytes, or absent without a default."""
    value = elements.get(element)
    if value is None and default is not None:
        return default
    if value is None or len(value) != 2:
        raise ValueError("command set lacks a number")
    return int.from_bytes(value, "little")


def uid(elements: dict[int, bytes], element: int) -> str:
    return elements.get(element, b"").decode("ascii", "replace").rstrip("\0 ")


def store_response(request: dict[int, bytes], answer: Answer) -> bytes:
    """A C-STORE-RSP (PS3.7 9.3.1.2). UIDs are echoed byte for byte."""
    elements = [
        _us(COMMAND_FIELD, C_STORE_RSP),
        _us(MESSAGE_ID_RESPONDED_TO, number(request, MESSAGE_ID)),
        _us(DATA_SET_TYPE, NO_DATA_SET),
        _us(STATUS, answer.status),
    ]
    if answer.offending_element is not None:
        tag = answer.offending_element
        elements.append(_element(OFFENDING_ELEMENT, struct.pack("<HH", tag >> 16, tag & 0xFFFF)))
    if answer.comment:
        comment = answer.comment.encode("ascii", "replace")
        elements.append(_element(ERROR_COMMENT, comment + b" " * (len(comment) % 2)))
    return _with_echoes(request, elements)


def event_report_response(request: dict[int, bytes], status: int) -> bytes:
    """An N-EVENT-REPORT-RSP (PS3.7 10.3.1.2). UIDs and event type are echoed byte for byte."""
    elements = [
        _us(COMMAND_FIELD, N_EVENT_REPORT_RSP),
        _us(MESSAGE_ID_RESPONDED_TO, number(request, MESSAGE_ID)),
        _us(DATA_SET_TYPE, NO_DATA_SET),
        _us(STATUS, status),
    ]
    return _with_echoes(request, elements, EVENT_TYPE_ID)


def _with_echoes(request: dict[int, bytes], elements: list[bytes], *last: int) -> bytes:
    """A whole command set: `elements` between what is repeated of the request, in ascending order."""
    echoed = [_element(name, request[name]) for name in (AFFECTED_SOP_INSTANCE_UID, *last) if name in request]
    body = b"".join([*elements, *echoed])
    if AFFECTED_SOP_CLASS_UID in request:
        body = _element(AFFECTED_SOP_CLASS_UID, request[AFFECTED_SOP_CLASS_UID]) + body
    return _element(0x0000, struct.pack("<L", len(body))) + body


def _element(element: int, value: bytes) -> bytes:
    return _HEADER.pack(0, element, len(value)) + value


def _us(element: int, value: int) -> bytes:
    return _element(element, value.to_bytes(2, "little"))

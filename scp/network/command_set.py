"""The command sets a receiver needs, in implicit VR, little endian (PS3.7 6.3.1, E.1)."""

import struct
from typing import Final

from scp.status import Answer

C_STORE_RQ: Final = 0x0001
C_STORE_RSP: Final = 0x8001
N_EVENT_REPORT_RQ: Final = 0x0100
N_EVENT_REPORT_RSP: Final = 0x8100
N_ACTION_RQ: Final = 0x0130
N_ACTION_RSP: Final = 0x8130
C_ECHO_RQ: Final = 0x0030
C_ECHO_RSP: Final = 0x8030
C_CANCEL_RQ: Final = 0x0FFF
NO_DATA_SET: Final = 0x0101
_SOME_DATA_SET: Final = 0x0001

AFFECTED_SOP_CLASS_UID: Final = 0x0002
REQUESTED_SOP_CLASS_UID: Final = 0x0003
COMMAND_FIELD: Final = 0x0100
MESSAGE_ID: Final = 0x0110
MESSAGE_ID_RESPONDED_TO: Final = 0x0120
PRIORITY: Final = 0x0700
DATA_SET_TYPE: Final = 0x0800
STATUS: Final = 0x0900
OFFENDING_ELEMENT: Final = 0x0901
ERROR_COMMENT: Final = 0x0902
AFFECTED_SOP_INSTANCE_UID: Final = 0x1000
REQUESTED_SOP_INSTANCE_UID: Final = 0x1001
EVENT_TYPE_ID: Final = 0x1002
ACTION_TYPE_ID: Final = 0x1008

COMMAND_SET_MAX_BYTES: Final = 65_536
_HEADER = struct.Struct("<HHL")
_AFFECTED: Final = {
    AFFECTED_SOP_CLASS_UID: AFFECTED_SOP_CLASS_UID,
    AFFECTED_SOP_INSTANCE_UID: AFFECTED_SOP_INSTANCE_UID,
}


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
    more: dict[int, bytes] = {}
    if answer.offending_element is not None:
        tag = answer.offending_element
        more[OFFENDING_ELEMENT] = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if answer.comment:
        comment = answer.comment.encode("ascii", "replace")
        more[ERROR_COMMENT] = comment + b" " * (len(comment) % 2)
    return _response(request, C_STORE_RSP, answer.status, _AFFECTED, more)


def has_data_set(elements: dict[int, bytes]) -> bool:
    """Raises ValueError when the command set does not say."""
    return number(elements, DATA_SET_TYPE) != NO_DATA_SET


def echo_response(request: dict[int, bytes], status: int) -> bytes:
    """A C-ECHO-RSP (PS3.7 9.3.5.2)."""
    return _response(request, C_ECHO_RSP, status, {AFFECTED_SOP_CLASS_UID: AFFECTED_SOP_CLASS_UID})


def event_report_response(request: dict[int, bytes], status: int) -> bytes:
    """An N-EVENT-REPORT-RSP (PS3.7 10.3.1.2). UIDs and event type are echoed byte for byte."""
    return _response(request, N_EVENT_REPORT_RSP, status, {**_AFFECTED, EVENT_TYPE_ID: EVENT_TYPE_ID})


def action_response(request: dict[int, bytes], status: int) -> bytes:
    """An N-ACTION-RSP (PS3.7 10.3.5.2). What was requested is echoed, byte for byte, as what is affected."""
    echoes = {
        AFFECTED_SOP_CLASS_UID: REQUESTED_SOP_CLASS_UID,
        AFFECTED_SOP_INSTANCE_UID: REQUESTED_SOP_INSTANCE_UID,
        ACTION_TYPE_ID: ACTION_TYPE_ID,
    }
    return _response(request, N_ACTION_RSP, status, echoes)


def event_report_request(message_id: int, sop_class_uid: str, sop_instance_uid: str, event_type: int) -> bytes:
    """An N-EVENT-REPORT-RQ (PS3.7 10.3.1.1) with a data set behind it."""
    return _command_set(
        {
            AFFECTED_SOP_CLASS_UID: _padded(sop_class_uid),
            COMMAND_FIELD: N_EVENT_REPORT_RQ.to_bytes(2, "little"),
            MESSAGE_ID: message_id.to_bytes(2, "little"),
            DATA_SET_TYPE: _SOME_DATA_SET.to_bytes(2, "little"),
            AFFECTED_SOP_INSTANCE_UID: _padded(sop_instance_uid),
            EVENT_TYPE_ID: event_type.to_bytes(2, "little"),
        }
    )


def _response(
    request: dict[int, bytes],
    field: int,
    status: int,
    echoes: dict[int, int],
    more: dict[int, bytes] | None = None,
) -> bytes:
    """echoes: element of the response -> element of the request that it repeats."""
    elements = {name: request[asked] for name, asked in echoes.items() if asked in request}
    elements |= more or {}
    elements[COMMAND_FIELD] = field.to_bytes(2, "little")
    elements[MESSAGE_ID_RESPONDED_TO] = number(request, MESSAGE_ID).to_bytes(2, "little")
    elements[DATA_SET_TYPE] = NO_DATA_SET.to_bytes(2, "little")
    elements[STATUS] = status.to_bytes(2, "little")
    return _command_set(elements)


def _command_set(elements: dict[int, bytes]) -> bytes:
    body = b"".join(_element(name, elements[name]) for name in sorted(elements))
    return _element(0x0000, struct.pack("<L", len(body))) + body


def _padded(uid: str) -> bytes:
    return uid.encode("ascii") + b"\0" * (len(uid) % 2)


def _element(element: int, value: bytes) -> bytes:
    return _HEADER.pack(0, element, len(value)) + value

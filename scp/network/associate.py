"""A-ASSOCIATE PDUs taken apart and put together (PS3.8 9.3.2, 9.3.3; PS3.7 D.3.3). No value is believed.

pynetdicom's classes do the same in seventy milliseconds for a hundred contexts of forty syntaxes, checking each UID
through pydicom, whose warnings quote it. This is two; a test holds the two against each other.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pynetdicom.pdu import A_ASSOCIATE_RQ

from scp import part10
from scp.network import pdu

APPLICATION_CONTEXT: Final = b"1.2.840.10008.3.1.1.1"
FIXED_BYTES: Final = 68  # before the variable items
UID_MAX_CHARACTERS: Final = 64
_ITEM: Final = struct.Struct(">BxH")

(_APPLICATION, _CONTEXT_RQ, _CONTEXT_AC, _ABSTRACT, _TRANSFER, _USER) = (0x10, 0x20, 0x21, 0x30, 0x40, 0x50)
(_MAXIMUM_LENGTH, _CLASS_UID, _ASYNC_WINDOW, _ROLE, _VERSION_NAME) = (0x51, 0x52, 0x53, 0x54, 0x55)

Role = tuple[bool, bool]  # of the requestor: (SCU, SCP)


@dataclass(frozen=True)
class ProposedContext:
    context_id: int
    abstract_syntax_uid: str
    transfer_syntax_uids: tuple[str, ...]


@dataclass
class AssociateRequest:
    """An A-ASSOCIATE-RQ. items: its variable items, not looked at yet."""

    calling_ae_title: str
    called_ae_title: str
    protocol_version: int
    items: bytes


@dataclass
class Proposal:
    """The variable items of an A-ASSOCIATE-RQ."""

    contexts: list[ProposedContext] = field(default_factory=list)
    roles: dict[str, Role] = field(default_factory=dict)
    pdu_max_bytes: int = 0  # 0: no limit
    async_window: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class ContextResult:
    """result: 0 accepted, 1 refused by the user, 3 and 4 abstract and transfer syntax not supported (PS3.8 9.3.3.2)."""

    context_id: int
    abstract_syntax_uid: str
    transfer_syntax_uid: str
    result: int


def decode_request(body: memoryview) -> AssociateRequest:
    """Raises ValueError for a fixed part that is malformed."""
    if len(body) < FIXED_BYTES:
        raise ValueError("A-ASSOCIATE-RQ is cut off")
    fixed = A_ASSOCIATE_RQ()
    fixed.decode(bytes(pdu.HEADER_BYTES) + body[:FIXED_BYTES])
    return AssociateRequest(
        fixed.calling_ae_title, fixed.called_ae_title, fixed.protocol_version, bytes(body[FIXED_BYTES:])
    )


def decode_proposal(items: bytes) -> Proposal:
    """Raises ValueError for malformed items. What is not used is not looked into; items of a type that nobody knows
    are skipped, at every level (PS3.8 9.3.1)."""
    proposal = Proposal()
    for kind, value in _items(items):
        if kind == _CONTEXT_RQ:
            proposal.contexts.append(_context(value))
        elif kind == _USER:
            _user_items(value, proposal)
    return proposal


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    position, size = 0, len(data)
    while position < size:
        if size - position < _ITEM.size:
            raise ValueError("an item is cut off")
        kind, length = _ITEM.unpack_from(data, position)
        position += _ITEM.size
        if length > size - position:
            raise ValueError("an item is longer than what holds it")
        yield kind, data[position : position + length]
        position += length


def _context(value: bytes) -> ProposedContext:
    if len(value) < 4 or not value[0] % 2:
        raise ValueError("a presentation context without a valid id")
    abstract, has_abstract = "", False
    names: list[str] = []
    for kind, name in _items(value[4:]):
        if kind == _ABSTRACT:
            abstract, has_abstract = _uid(name), True
        elif kind == _TRANSFER:
            names.append(_uid(name))
    if not has_abstract or not all(names) or not names:
        raise ValueError("a presentation context lacks a syntax")
    return ProposedContext(value[0], abstract, tuple(names))


def _uid(value: bytes) -> str:
    """Raises ValueError; one null and spaces around it are forgiven."""
    uid = value.removesuffix(b"\0").decode("ascii").strip()
    if len(uid) > UID_MAX_CHARACTERS:
        raise ValueError("a UID is too long")
    return uid


def _user_items(value: bytes, proposal: Proposal) -> None:
    has_length = has_window = False
    for kind, data in _items(value):
        if kind == _MAXIMUM_LENGTH:
            (length,) = _unpack(">L", data)
            proposal.pdu_max_bytes = proposal.pdu_max_bytes if has_length else length
            has_length = True
        elif kind == _ASYNC_WINDOW:
            invoked, performed = _unpack(">HH", data)
            proposal.async_window = proposal.async_window if has_window else (invoked, performed)
            has_window = True
        elif kind == _ROLE:
            uid, role = _role(data)
            proposal.roles[uid] = role


def _role(data: bytes) -> tuple[str, Role]:
    (length,) = _unpack(">H", data[:2])
    if len(data) != length + 4 or data[-2] > 1 or data[-1] > 1:
        raise ValueError("a role selection is malformed")
    return _uid(data[2:-2]), (bool(data[-2]), bool(data[-1]))


def _unpack(form: str, data: bytes) -> tuple[int, ...]:
    try:
        return struct.unpack(form, data)
    except struct.error as error:
        raise ValueError("a user item is of another size") from error


# --- what we answer ---


def encode_accept(request: AssociateRequest, items: bytes) -> bytes:
    """An A-ASSOCIATE-AC. The titles are repeated, and not to be tested."""
    titles = (request.called_ae_title, request.calling_ae_title)
    encoded = b"".join(title.encode("ascii", "replace").ljust(16)[:16] for title in titles)
    return pdu.encode(pdu.ASSOCIATE_AC, struct.pack(">HH", 1, 0) + encoded + bytes(32) + items)


def encode_reject(result: int, source: int, reason: int) -> bytes:
    return pdu.encode(pdu.ASSOCIATE_RJ, bytes((0, result, source, reason)))


def encode_items(results: list[ContextResult], roles: dict[str, Role], pdu_max_bytes: int, window: bool) -> bytes:
    """The variable items of an A-ASSOCIATE-AC. window: whether to answer that operations go one by one."""
    users = [
        _encode_item(_MAXIMUM_LENGTH, struct.pack(">L", pdu_max_bytes)),
        _encode_item(_CLASS_UID, part10.IMPLEMENTATION_CLASS_UID.encode("ascii")),
        _encode_item(_VERSION_NAME, part10.IMPLEMENTATION_VERSION_NAME.encode("ascii")),
    ]
    if window:
        users.append(_encode_item(_ASYNC_WINDOW, struct.pack(">HH", 1, 1)))
    for uid, role in sorted(roles.items()):
        name = uid.encode("ascii")
        users.append(_encode_item(_ROLE, struct.pack(">H", len(name)) + name + bytes(role)))
    contexts = [_encode_result(result) for result in results]
    return b"".join([_encode_item(_APPLICATION, APPLICATION_CONTEXT), *contexts, _encode_item(_USER, b"".join(users))])


def _encode_result(result: ContextResult) -> bytes:
    syntax = _encode_item(_TRANSFER, result.transfer_syntax_uid.encode("ascii"))
    return _encode_item(_CONTEXT_AC, bytes((result.context_id, 0, result.result, 0)) + syntax)


def _encode_item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value

"""pynetdicom is the oracle: the same bytes get the same answer from the native engine. Where pynetdicom closes without
a word, or its thread dies, ours sends an A-ABORT."""

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from scp.network.contexts import COMMITMENT_PUSH_MODEL
from scp.network.engine import Engine
from tests.support.bare_engines import bare_engine
from tests.support.encoded import CT
from tests.support.rawscu import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    VERIFICATION,
    associate_rq,
    command,
    item,
    p_data,
    ui,
    us,
)

MR, FIND = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.2.1.1"
JPEG, J2K, DEFLATED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1.99"
COMMON = [
    (VERIFICATION, (IMPLICIT_LITTLE,)),
    (CT, (JPEG, EXPLICIT_LITTLE, IMPLICIT_LITTLE)),
    (FIND, (IMPLICIT_LITTLE,)),
]
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),  # pynetdicom's threads die
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom.valuerep"),
]


def _role(uid: str, scu: int, scp: int) -> bytes:
    return item(0x54, struct.pack(">H", len(uid)) + uid.encode() + bytes((scu, scp)))


def _identity(kind: int, wants_answer: int, first: bytes, second: bytes = b"") -> bytes:
    fields = struct.pack(">H", len(first)) + first + struct.pack(">H", len(second)) + second
    return item(0x58, bytes((kind, wants_answer)) + fields)


def _raw(
    contexts: bytes = b"",
    version: int = 1,
    called: bytes = b"OPENTRIAGE      ",
    calling: bytes = b"TESTSCU         ",
    application: bytes = item(0x10, b"1.2.840.10008.3.1.1.1"),
    user: bytes = item(0x50, item(0x51, struct.pack(">L", 16_384)) + item(0x52, b"1.2.3.4")),
    lie: int = 0,
) -> bytes:
    """An A-ASSOCIATE-RQ of which every part may be odd. lie: added to the length that it claims."""
    body = struct.pack(">HH", version, 0) + called + calling + bytes(32) + application + contexts + user
    return struct.pack(">BxL", 1, len(body) + lie) + body


def _context(context_id: int, *subitems: bytes) -> bytes:
    return item(0x20, bytes((context_id, 0, 0, 0)) + b"".join(subitems))


ABSTRACT, IMPLICIT = item(0x30, CT.encode()), item(0x40, IMPLICIT_LITTLE.encode())
ONE = _context(1, ABSTRACT, IMPLICIT)
LENGTH, CLASS_UID = item(0x51, struct.pack(">L", 16_384)), item(0x52, b"1.2.3.4")

REQUESTS = {
    "common": associate_rq(COMMON),
    "all accepted twice": associate_rq([(CT, (EXPLICIT_LITTLE,)), (CT, (IMPLICIT_LITTLE,)), (CT, (JPEG, J2K))]),
    "nothing acceptable": associate_rq([(FIND, (IMPLICIT_LITTLE,)), (CT, (DEFLATED,))]),
    "one hundred and twenty-eight contexts": associate_rq([(CT, (JPEG, EXPLICIT_LITTLE))] * 128),
    "every syntax unknown": associate_rq([(CT, ("1.2.3", "1.2.4"))]),
    "roles for storage": associate_rq(COMMON, extra_user_items=_role(CT, 1, 1) + _role(VERIFICATION, 0, 1)),
    "no role for commitment": associate_rq(
        [(COMMITMENT_PUSH_MODEL, (IMPLICIT_LITTLE,))],
        calling="ARCHIVE",
        extra_user_items=_role(COMMITMENT_PUSH_MODEL, 0, 0),
    ),
    "role that is neither yes nor no": associate_rq(COMMON, extra_user_items=_role(CT, 2, 1)),
    "role that lies": associate_rq(COMMON, extra_user_items=item(0x54, b"\0\x50" + CT.encode() + b"\1\1")),
    "role of nothing proposed": associate_rq(COMMON, extra_user_items=_role(MR, 1, 1)),
    "commitment": associate_rq([(COMMITMENT_PUSH_MODEL, (IMPLICIT_LITTLE,))]),
    "commitment as SCP": associate_rq(
        [(COMMITMENT_PUSH_MODEL, (IMPLICIT_LITTLE,))], extra_user_items=_role(COMMITMENT_PUSH_MODEL, 0, 1)
    ),
    "commitment of a reporter": associate_rq(
        [(COMMITMENT_PUSH_MODEL, (IMPLICIT_LITTLE,))],
        calling="PACS",
        extra_user_items=_role(COMMITMENT_PUSH_MODEL, 0, 1),
    ),
    "commitment of a reporter as SCU": associate_rq(
        [(COMMITMENT_PUSH_MODEL, (IMPLICIT_LITTLE,))],
        calling="PACS",
        extra_user_items=_role(COMMITMENT_PUSH_MODEL, 1, 0),
    ),
    "commitment of a requestor": associate_rq(
        [(COMMITMENT_PUSH_MODEL, (EXPLICIT_LITTLE,))],
        calling="ARCHIVE",
        extra_user_items=_role(COMMITMENT_PUSH_MODEL, 1, 0),
    ),
    "commitment of a requestor as both": associate_rq(
        [(COMMITMENT_PUSH_MODEL, (EXPLICIT_LITTLE,))],
        calling="ARCHIVE",
        extra_user_items=_role(COMMITMENT_PUSH_MODEL, 1, 1),
    ),
    "async unlimited": associate_rq(COMMON, extra_user_items=item(0x53, struct.pack(">HH", 0, 0))),
    "async eight": associate_rq(COMMON, extra_user_items=item(0x53, struct.pack(">HH", 8, 2))),
    "async one": associate_rq(COMMON, extra_user_items=item(0x53, struct.pack(">HH", 1, 1))),
    "user name": associate_rq(COMMON, extra_user_items=_identity(1, 0, b"somebody")),
    "user name and passcode, answer wanted": associate_rq(COMMON, extra_user_items=_identity(2, 1, b"me", b"secret")),
    "SAML": associate_rq(COMMON, extra_user_items=_identity(4, 1, b"<saml/>")),
    "identity of an unknown kind": associate_rq(COMMON, extra_user_items=_identity(77, 0, b"x")),
    "identity that lies": associate_rq(COMMON, extra_user_items=item(0x58, b"\1\0\xff\xffx\0\0")),
    "extended negotiation": associate_rq(
        COMMON, extra_user_items=item(0x56, struct.pack(">H", len(CT)) + CT.encode() + b"\2\0\1\2\3\0")
    ),
    "common extended negotiation": associate_rq(
        COMMON,
        extra_user_items=item(
            0x57, struct.pack(">H", len(CT)) + CT.encode() + struct.pack(">H", 17) + b"1.2.840.10008.4.2" + b"\0\0"
        ),
    ),
    "version name": associate_rq(COMMON, extra_user_items=item(0x55, b"THEIRS_1")),
    "version name too long": associate_rq(COMMON, extra_user_items=item(0x55, b"X" * 40)),
    "unknown user item": associate_rq(COMMON, extra_user_items=item(0x5A, b"abc")),
    "no maximum length": _raw(ONE, user=item(0x50, CLASS_UID)),
    "maximum length of another size": _raw(ONE, user=item(0x50, item(0x51, b"\0\0") + CLASS_UID)),
    "no implementation class": _raw(ONE, user=item(0x50, LENGTH)),
    "no user information": _raw(ONE, user=b""),
    "empty user information": _raw(ONE, user=item(0x50, b"")),
    "unlimited PDUs": associate_rq(COMMON, max_pdu_bytes=0),
    "tiny PDUs": associate_rq(COMMON, max_pdu_bytes=7),
    "version 0": _raw(ONE, version=0),
    "version 2": _raw(ONE, version=2),
    "version 3": _raw(ONE, version=3),
    "version 0x8001": _raw(ONE, version=0x8001),
    "other application context": _raw(ONE, application=item(0x10, b"1.2.3.4.5")),
    "no application context": _raw(ONE, application=b""),
    "empty application context": _raw(ONE, application=item(0x10, b"")),
    "called wrongly": associate_rq(COMMON, called="SOMEONE"),
    "called in lower case": associate_rq(COMMON, called="opentriage"),
    "called with spaces before": _raw(ONE, called=b"      OPENTRIAGE"),
    "called blank": _raw(ONE, called=b" " * 16),
    "called with nulls": _raw(ONE, called=b"OPENTRIAGE" + bytes(6)),
    "calling blank": _raw(ONE, calling=b" " * 16),
    "calling with a backslash": _raw(ONE, calling=b"A\\B".ljust(16)),
    "calling with a control character": _raw(ONE, calling=b"A\x07B".ljust(16)),
    "calling beyond ASCII": _raw(ONE, calling="MÜNCHEN".encode("latin-1").ljust(16)),
    "calling a stranger": associate_rq(COMMON, calling="STRANGER"),
    "calling a stranger, called wrongly": associate_rq(COMMON, calling="STRANGER", called="SOMEONE"),
    "a stranger's malformed contexts": _raw(_context(2, ABSTRACT, IMPLICIT), calling=b"STRANGER".ljust(16)),
    "no contexts": _raw(),
    "the same id twice": _raw(ONE + ONE),
    "the same id for two classes": _raw(ONE + _context(1, item(0x30, MR.encode()), IMPLICIT)),
    "ids in descending order": _raw(_context(5, ABSTRACT, IMPLICIT) + _context(3, ABSTRACT, IMPLICIT)),
    "an even id": _raw(_context(2, ABSTRACT, IMPLICIT)),
    "id nought": _raw(_context(0, ABSTRACT, IMPLICIT)),
    "id 255": _raw(_context(255, ABSTRACT, IMPLICIT)),
    "no transfer syntax": _raw(_context(1, ABSTRACT)),
    "no abstract syntax": _raw(_context(1, IMPLICIT)),
    "two abstract syntaxes": _raw(_context(1, ABSTRACT, item(0x30, MR.encode()), IMPLICIT)),
    "syntax before class": _raw(_context(1, IMPLICIT, ABSTRACT)),
    "the same syntax twice": _raw(_context(1, ABSTRACT, IMPLICIT, IMPLICIT)),
    "padded UIDs": _raw(_context(1, item(0x30, CT.encode() + b"\0"), item(0x40, IMPLICIT_LITTLE.encode() + b"\0"))),
    "UIDs with a space behind": _raw(_context(1, item(0x30, CT.encode() + b" "), IMPLICIT)),
    "an empty class": _raw(_context(1, item(0x30, b""), IMPLICIT)),
    "an empty syntax": _raw(_context(1, ABSTRACT, item(0x40, b""))),
    "a class of seventy characters": _raw(_context(1, item(0x30, b"1." * 35), IMPLICIT)),
    "a syntax of seventy characters": _raw(_context(1, ABSTRACT, item(0x40, b"1." * 35), IMPLICIT)),
    "a class that is no UID": _raw(_context(1, item(0x30, b"hello"), IMPLICIT)),
    "a class beyond ASCII": _raw(_context(1, item(0x30, b"\xff\xfe"), IMPLICIT)),
    "an unknown sub-item": _raw(_context(1, ABSTRACT, IMPLICIT, item(0x77, b"x"))),
    "an unknown item": _raw(ONE + item(0x77, b"x")),
    "an item of an A-ASSOCIATE-AC": _raw(item(0x21, b"\1\0\0\0" + item(0x40, IMPLICIT_LITTLE.encode()))),
    "an item that is too long": _raw(struct.pack(">BxH", 0x20, 500) + bytes(10)),
    "an item that ends in its header": _raw(b"\x20\0"),
    "a context of two bytes": _raw(item(0x20, b"\1\0")),
    "a sub-item that is too long": _raw(_context(1, struct.pack(">BxH", 0x30, 90) + CT.encode())),
    "a request of ten bytes": struct.pack(">BxL", 1, 10) + bytes(10),
    "a request of no bytes": struct.pack(">BxL", 1, 0),
    "a request of 67 bytes": struct.pack(">BxL", 1, 67) + _raw()[6:73],
}

ACCEPT = associate_rq([(VERIFICATION, (IMPLICIT_LITTLE,)), (CT, (EXPLICIT_LITTLE,))])
ECHO = command({0x2: ui(VERIFICATION), 0x100: us(0x30), 0x110: us(7), 0x800: us(0x101)})
STORE = command({0x2: ui(CT), 0x100: us(1), 0x110: us(8), 0x700: us(0), 0x800: us(1), 0x1000: ui("1.2.3.4")})
RELEASE_RQ, RELEASE_RP = (struct.pack(">BxLL", kind, 4, 0) for kind in (5, 6))
ABORT, REJECT = struct.pack(">BxLL", 7, 4, 0), struct.pack(">BxLBBBB", 3, 4, 0, 1, 1, 1)

ECHO_PDU, STORE_PDU = p_data(1, 3, ECHO), p_data(3, 3, STORE)
NO_DATA = STORE.replace(b"\0\0\0\x08\2\0\0\0\1\0", b"\0\0\0\x08\2\0\0\0\1\1")
ANSWER = b""  # in a sequence: what is said is waited for here

SEQUENCES: dict[str, Sequence[bytes]] = {
    "echo and release": (ACCEPT, ANSWER, ECHO_PDU, ANSWER, RELEASE_RQ, ANSWER),
    "release at once": (ACCEPT, ANSWER, RELEASE_RQ, ANSWER),
    "abort": (ACCEPT, ANSWER, ABORT, ANSWER),
    "store": (ACCEPT, ANSWER, STORE_PDU, p_data(3, 2, b"abcd"), ANSWER, RELEASE_RQ, ANSWER),
    "release inside a message": (ACCEPT, ANSWER, STORE_PDU, RELEASE_RQ, ANSWER),
    "data before an association": (ECHO_PDU, ANSWER),
    "release before an association": (RELEASE_RQ, ANSWER),
    "release answered before an association": (RELEASE_RP, ANSWER),
    "abort before an association": (ABORT, ANSWER),
    "acceptance before an association": (b"\2" + ACCEPT[1:], ANSWER),
    "rejection before an association": (REJECT, ANSWER),
    "unknown PDU before an association": (struct.pack(">BxLL", 9, 4, 0), ANSWER),
    "PDU of type 0 before an association": (struct.pack(">BxLL", 0, 4, 0), ANSWER),
    "second request": (ACCEPT, ANSWER, ACCEPT, ANSWER),
    "acceptance": (ACCEPT, ANSWER, b"\2" + ACCEPT[1:], ANSWER),
    "rejection": (ACCEPT, ANSWER, REJECT, ANSWER),
    "release answered that nobody asked for": (ACCEPT, ANSWER, RELEASE_RP, ANSWER),
    "unknown PDU": (ACCEPT, ANSWER, struct.pack(">BxLL", 8, 4, 0), ANSWER),
    "unknown PDU type 255": (ACCEPT, ANSWER, struct.pack(">BxLL", 255, 4, 0), ANSWER),
    "release of eight bytes": (ACCEPT, ANSWER, struct.pack(">BxLLL", 5, 8, 0, 0), ANSWER),
    "release of no bytes": (ACCEPT, ANSWER, struct.pack(">BxL", 5, 0), ANSWER),
    "abort of eight bytes": (ACCEPT, ANSWER, struct.pack(">BxLLL", 7, 8, 0, 0), ANSWER),
    "data without a PDV": (ACCEPT, ANSWER, struct.pack(">BxL", 4, 0), ANSWER),
    "PDV without a control header": (ACCEPT, ANSWER, struct.pack(">BxLLB", 4, 5, 1, 1), ANSWER),
    "PDV of no bytes": (ACCEPT, ANSWER, struct.pack(">BxLL", 4, 4, 0), ANSWER),
    "PDV longer than its PDU": (ACCEPT, ANSWER, struct.pack(">BxLLBB", 4, 6, 900, 1, 3), ANSWER),
    "PDV that claims four bytes more": (
        ACCEPT,
        ANSWER,
        struct.pack(">BxLLBB", 4, len(ECHO) + 6, len(ECHO) + 6, 1, 3) + ECHO,
        ANSWER,
    ),
    "PDV of 4 GiB": (ACCEPT, ANSWER, struct.pack(">BxLLBB", 4, 6, 0xFFFFFFFF, 1, 3), ANSWER),
    "PDV header cut off": (ACCEPT, ANSWER, struct.pack(">BxLH", 4, 2, 0), ANSWER),
    "empty fragment of a command": (ACCEPT, ANSWER, p_data(1, 1, b""), ANSWER),
    "empty last fragment of a command": (ACCEPT, ANSWER, p_data(1, 1, ECHO), p_data(1, 3, b""), ANSWER),
    "empty fragment of data": (ACCEPT, ANSWER, STORE_PDU, p_data(3, 0, b""), ANSWER),
    "empty last fragment of data": (ACCEPT, ANSWER, STORE_PDU, p_data(3, 0, b"ab"), p_data(3, 2, b""), ANSWER),
    "data without a command": (ACCEPT, ANSWER, p_data(3, 2, b"abcd"), ANSWER),
    "command inside data": (ACCEPT, ANSWER, STORE_PDU, ECHO_PDU, ANSWER),
    "data of another context": (ACCEPT, ANSWER, STORE_PDU, p_data(1, 2, b"abcd"), ANSWER),
    "context that was not proposed": (ACCEPT, ANSWER, p_data(9, 3, ECHO), ANSWER),
    "garbage for a command": (ACCEPT, ANSWER, p_data(1, 3, b"garbage"), ANSWER),
    "command without a field": (ACCEPT, ANSWER, p_data(1, 3, command({0x110: us(1), 0x800: us(0x101)})), ANSWER),
    "command that nobody knows": (
        ACCEPT,
        ANSWER,
        p_data(1, 3, command({0x100: us(0x7777), 0x110: us(1), 0x800: us(0x101)})),
        ANSWER,
    ),
    "store without a message id": (
        ACCEPT,
        ANSWER,
        p_data(3, 3, command({0x2: ui(CT), 0x100: us(1), 0x800: us(1)})),
        ANSWER,
    ),
    "store without data": (ACCEPT, ANSWER, p_data(3, 3, NO_DATA), ANSWER),
    "cancel of nothing": (
        ACCEPT,
        ANSWER,
        p_data(1, 3, command({0x100: us(0x0FFF), 0x120: us(3), 0x800: us(0x101)})),
        ECHO_PDU,
        ANSWER,
    ),
}

# Where ours is the milder: what is not used is not looked into, and items of unrecognised types are ignored and
# skipped, as PS3.8 9.3.1 asks and DCMTK does; pynetdicom aborts.
OURS_ACCEPTS = {
    "identity of an unknown kind",
    "version name too long",
    "unknown user item",
    "an unknown sub-item",
    "an unknown item",
}
# Where pynetdicom reads past the end, and where it looks at what a stranger proposes.
OURS_REFUSES = {"a request of 67 bytes": "aborted", "a stranger's malformed contexts": (1, 1, 3)}


@dataclass(frozen=True)
class Pair:
    native: Engine
    pynetdicom: Engine


@pytest.fixture(scope="module")
def engines() -> Iterator[Pair]:
    settings: dict[str, Any] = {
        "allowed_calling_ae_titles": ("TESTSCU", "PACS", "ARCHIVE", "A", "MNCHEN"),
        "acse_timeout_s": 2.5,
    }
    reporters = {"PACS": {"OPENTRIAGE"}}
    with ExitStack() as stack:
        pair = [
            stack.enter_context(bare_engine(kind, reporters=reporters, requestors=("ARCHIVE",), **settings))
            for kind in ("native", "pynetdicom")
        ]
        yield Pair(*pair)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_answered_alike(engines: Pair, name: str) -> None:
    said = _replay(engines.native, (REQUESTS[name], ANSWER))
    if name in OURS_ACCEPTS:
        assert isinstance(said[0], Agreed)
    elif name in OURS_REFUSES:
        assert said == [OURS_REFUSES[name]]
    else:
        _alike(said, _replay(engines.pynetdicom, (REQUESTS[name], ANSWER)))


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_is_answered_alike(engines: Pair, name: str) -> None:
    ours, theirs = _replay(engines.native, SEQUENCES[name]), _replay(engines.pynetdicom, SEQUENCES[name])
    _alike(ours, theirs)


def _alike(ours: list[object], theirs: list[object]) -> None:
    """Where pynetdicom closes, or its thread dies, ours may say A-ABORT; never the other way round."""
    if theirs[-1] == "closed" and ours[-1] == "aborted":
        ours, theirs = ours[:-1], theirs[:-1]
    assert ours == theirs


def _replay(engine: Engine, steps: Sequence[bytes]) -> list[object]:
    """What was said, up to where the association ended."""
    said: list[object] = []
    with socket.create_connection(engine.address, timeout=20) as connection:
        for step in steps:
            if step != ANSWER:
                connection.sendall(step)
                continue
            said.append(_said(connection))
            if said[-1] in ("aborted", "closed"):
                break
    return said


@dataclass(frozen=True)
class Agreed:
    results: dict[int, tuple[int, str]]
    user_items: list[tuple[int, bytes]]


def _said(connection: socket.socket) -> object:
    try:
        header = _exactly(connection, 6)
        kind, length = struct.unpack(">BxL", header)
        body = _exactly(connection, length)
    except (EOFError, ConnectionResetError):
        return "closed"
    if kind == 2:
        return _agreed(body)
    if kind == 3:
        return tuple(body[1:])
    return {4: body, 6: "released", 7: "aborted"}[kind]


def _agreed(body: bytes) -> Agreed:
    results: dict[int, tuple[int, str]] = {}
    users: list[tuple[int, bytes]] = []
    for kind, data in _items(body[68:]):
        if kind == 0x21:
            results[data[0]] = data[2], data[8:].decode()
        elif kind == 0x50:
            users = sorted(_items(data))
    return Agreed(results, users)


def _items(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        kind, length = struct.unpack_from(">BxH", data)
        found.append((kind, data[4 : 4 + length]))
        data = data[4 + length :]
    return found


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        step = connection.recv(count - len(data))
        if not step:
            raise EOFError
        data += step
    return data

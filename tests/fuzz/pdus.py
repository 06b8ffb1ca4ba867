"""The PDU parser of the native engine and what makes messages of PDUs, on a connection that is a script; and the
reader of A-ASSOCIATE-RQs."""

import random
import socket
import struct
import warnings
from dataclasses import dataclass, field
from typing import Any, Final, cast

from config.settings import ReceiveSettings
from scp.network import pdu
from scp.network.associate import decode_request, encode_accept
from scp.network.native_messages import Assembler
from scp.network.negotiation import AcceptedContext, Negotiator
from scp.network.pdu import AbortReason, AssociationEnded, Wire
from scp.network.policy import AssociationPolicy
from scp.status import SUCCESS, Answer
from tests.fuzz.mutate import LONG_LENGTHS, pick
from tests.support.encoded import CT, data_set
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

PDU_MAX_BYTES: Final = 4096
CONTEXTS: Final = {1: AcceptedContext(CT, EXPLICIT_LITTLE), 3: AcceptedContext(VERIFICATION, IMPLICIT_LITTLE)}
WHEN: Final[dict[str, str | None]] = {"StudyDate": "20261121", "StudyTime": "120000"}
SHORT_KINDS: Final = (3, 5, 6, 7)


class Scripted:
    """A connection on which these bytes arrive, at most `step` at a time, and then the end. Counts what it gave."""

    def __init__(self, data: bytes, step: int) -> None:
        self.left = memoryview(data)
        self.step = step
        self.reads = 0

    def recv_into(self, into: memoryview, size: int = 0, flags: int = 0) -> int:
        self.reads += 1
        assert len(into) > 0, "a read for nothing"
        most = len(into) if flags & socket.MSG_WAITALL else self.step
        count = min(len(into), len(self.left), most)
        into[:count] = self.left[:count]
        self.left = self.left[count:]
        return count

    def setsockopt(self, *option: object) -> None: ...

    def setblocking(self, blocking: bool) -> None: ...

    def settimeout(self, seconds: float) -> None: ...


class Sink:
    """An InstanceSink that keeps its bytes and counts its ends."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ends = 0

    def write(self, data: bytes | memoryview) -> None:
        assert not self.ends, "written to after its end"
        self.data += data

    def commit(self) -> Answer:
        self.ends += 1
        return Answer(SUCCESS)

    def abort(self) -> None:
        self.ends += 1


@dataclass
class Heard:
    """All that one reading of a stream found."""

    pdus: list[tuple[int, bytes]] = field(default_factory=list)
    messages: list[tuple[int, int, bytes]] = field(default_factory=list)  # context, command field, data set
    ended: tuple[AbortReason, Any] | None = None
    aborted_bytes: int = 0


def hear(stream: bytes, step: int) -> Heard:
    """Read the stream as the engine does, `step` bytes arriving at a time."""
    heard, sinks = Heard(), []
    connection = Scripted(stream, step)
    wire = Wire(cast(socket.socket, connection), PDU_MAX_BYTES, 0)
    wire.set_deadlines(1e6, 1e6)

    def begin(context: AcceptedContext, command: dict[int, bytes]) -> Sink:
        sinks.append(Sink())
        return sinks[-1]

    assembler = Assembler(CONTEXTS, begin, 1 << 30)
    try:
        while True:
            kind, body = wire.read(assembler.in_message)
            heard.pdus.append((kind, bytes(body)))
            if kind == pdu.P_DATA_TF:
                for message in assembler.take(body):
                    if message.sink is not None:
                        message.sink.commit()
                    data = message.sink.data if isinstance(message.sink, Sink) else message.kept.data
                    heard.messages.append((message.context_id, message.field, bytes(data)))
    except AssociationEnded as ended:
        heard.ended = ended.reason, ended.answer
    assembler.abandon()
    assert all(sink.ends == 1 for sink in sinks), "a sink was ended twice, or never"
    taken = sum(6 + len(body) for _, body in heard.pdus)
    assert taken <= len(stream), "more was read than was sent"
    assert connection.reads <= 2 * len(stream) + 8, "reads that bring nothing"
    return heard


def check_pdu(data: bytes) -> bool:
    """The first byte says how the stream is cut into arrivals; that must not matter."""
    stream = data[1:]
    whole = hear(stream, 1 << 20)
    dripped = hear(stream, 1 + (data[0] if data else 0) % 37)
    assert dripped == whole, f"arriving in pieces it was {dripped}, in one piece {whole}"
    assert whole.ended is not None
    assert whole.pdus == expected_pdus(stream)[: len(whole.pdus)]
    complete = len(whole.pdus) == len(expected_pdus(stream))
    assert complete or whole.ended[0] is not AbortReason.LOST, "a PDU that was there was not read"
    for _, _, encoded in whole.messages:
        assert len(encoded) <= len(stream)
    return bool(whole.pdus)


def expected_pdus(stream: bytes) -> list[tuple[int, bytes]]:
    """What PS3.8 9.3 and the limits say is there, read in the plainest way: up to the first PDU that is none."""
    found = []
    while len(stream) >= 6:
        kind, length = struct.unpack_from(">BxL", stream)
        fits = {1: length <= 1 << 20, 2: length <= 1 << 20, 4: length <= PDU_MAX_BYTES}.get(kind, length == 4)
        if kind not in (1, 2, 4, *SHORT_KINDS) or not fits or len(stream) < 6 + length:
            break
        found.append((kind, stream[6 : 6 + length]))
        stream = stream[6 + length :]
    return found


def make_pdus(rng: random.Random) -> bytes:
    parts = [bytes([rng.randrange(256)])]
    if rng.randint(0, 1):
        parts.append(make_request(rng))
    for _ in range(rng.randint(0, 4)):
        parts.append(store(rng) if rng.randint(0, 2) else echo(rng))
    parts.append(pick(rng, (b"", struct.pack(">BxLL", 5, 4, 0), struct.pack(">BxLL", 7, 4, 0))))
    return b"".join(parts)


def store(rng: random.Random, uid: str = "1.2.3.4", data: bytes | None = None, context_id: int = 1) -> bytes:
    """A whole C-STORE-RQ, cut into fragments at random."""
    rq = command({0x2: ui(CT), 0x100: us(1), 0x110: us(rng.randrange(9)), 0x700: us(0), 0x800: us(1), 0x1000: ui(uid)})
    encoded = data_set(SOPInstanceUID=uid, **WHEN) if data is None else data
    return fragments(rng, context_id, 1, rq) + fragments(rng, context_id, 0, encoded)


def echo(rng: random.Random, context_id: int = 3) -> bytes:
    rq = {0x2: ui(VERIFICATION), 0x100: us(0x30), 0x110: us(rng.randrange(9)), 0x800: us(0x101)}
    return fragments(rng, context_id, 1, command(rq))


def together(*p_datas: bytes) -> bytes:
    """P-DATA-TFs made one."""
    body = b"".join(one[6:] for one in p_datas)
    return struct.pack(">BxL", 4, len(body)) + body


def fragments(rng: random.Random, context_id: int, control: int, encoded: bytes) -> bytes:
    parts = b""
    while encoded:
        size = rng.randint(1, len(encoded)) if rng.randrange(3) == 0 else len(encoded)
        parts += p_data(context_id, control | (2 if size == len(encoded) else 0), encoded[:size])
        encoded = encoded[size:]
    return parts


def make_request(rng: random.Random) -> bytes:
    """An A-ASSOCIATE-RQ with its header."""
    syntaxes = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90")
    contexts = [
        (pick(rng, (CT.encode(), VERIFICATION.encode(), b"1.2.3")).decode(), syntaxes[: rng.randint(1, 4)])
        for _ in range(rng.randint(0, 4))
    ]
    extra = pick(
        rng,
        (
            b"",
            item(0x53, struct.pack(">HH", 0, 0)),
            item(0x54, struct.pack(">H", len(CT)) + CT.encode() + b"\1\1"),
            item(0x58, b"\1\0\0\4user\0\0"),
            item(0x56, struct.pack(">H", len(CT)) + CT.encode() + b"\0\0\0\0"),
            item(0x55, b"INVENTED_1"),
        ),
    )
    length = LONG_LENGTHS[rng.randrange(len(LONG_LENGTHS))]
    return associate_rq(contexts, extra_user_items=extra, max_pdu_bytes=length)


# --- A-ASSOCIATE-RQ ---

SETTINGS: Final = ReceiveSettings(host="127.0.0.1", port=0, require_called_ae_title=False)
POLICY: Final = AssociationPolicy(SETTINGS, lambda: False)
NEGOTIATOR: Final = Negotiator(SETTINGS, POLICY)


def check_request(data: bytes) -> bool:
    """The body of an A-ASSOCIATE-RQ: refused as malformed, or answered by what any peer can read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pynetdicom and pydicom warn of odd UIDs
        try:
            request = decode_request(memoryview(data))
            agreement = NEGOTIATOR.agree(request)
        except ValueError:
            return False
        answer = encode_accept(request, agreement.items)
    kind, length = struct.unpack_from(">BxL", answer)
    assert (kind, length) == (2, len(answer) - 6)
    results = _results(answer[6 + 68 :])
    assert len(request.calling_ae_title) <= 16
    assert len(request.called_ae_title) <= 16
    accepted = {context_id for context_id, result in results if result == 0}
    assert accepted == set(agreement.accepted), "the peer is told of other contexts than are in force"
    for context in agreement.accepted.values():
        assert context.transfer_syntax_uid in POLICY.contexts[context.abstract_syntax_uid]
    return True


def _results(items: bytes) -> list[tuple[int, int]]:
    """(context id, result) of each presentation context item of an A-ASSOCIATE-AC; fails where one overlaps."""
    found = []
    while items:
        kind, length = struct.unpack_from(">BxH", items)
        assert len(items) >= 4 + length
        if kind == 0x21:
            found.append((items[4], items[6]))
        items = items[4 + length :]
    return found


REQUEST_WORDS: Final = (
    *(bytes([kind, 0, 0, 0]) for kind in (0x10, 0x20, 0x21, 0x30, 0x40, 0x50, 0x51, 0x52, 0x53, 0x54, 0x56, 0x58)),
    *(uid.encode() for uid in (CT, VERIFICATION, EXPLICIT_LITTLE, IMPLICIT_LITTLE)),
    b"\xff\xff",
    b"\0\1",
)
PDU_WORDS: Final = (
    *(struct.pack(">BxL", kind, 4) for kind in range(9)),
    *(struct.pack(">BxL", 4, length) for length in (0, 5, 6, 7, PDU_MAX_BYTES, PDU_MAX_BYTES + 1, 0xFFFFFFFF)),
    *(
        struct.pack(">LBB", length, context, control)
        for length in (0, 1, 2, 3)
        for context in (1, 3)
        for control in range(4)
    ),
    *REQUEST_WORDS[:4],
)

"""A requestor made of bytes: what goes on the wire is exactly what a test says. No DICOM library takes part."""

import socket
import ssl
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"


@dataclass
class Response:
    status: int
    comment: str = ""
    offending_element: int | None = None
    elements: dict[int, bytes] = field(default_factory=dict)


class Rejected(Exception):
    """A-ASSOCIATE-RJ: result, source, reason."""

    def __init__(self, result: int, source: int, reason: int) -> None:
        super().__init__(result, source, reason)
        self.triple = (result, source, reason)


class Aborted(Exception):
    """The peer sent A-ABORT or closed the connection."""


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def associate_rq(
    contexts: Sequence[tuple[str, Sequence[str]]],
    called: str = "OPENTRIAGE",
    calling: str = "TESTSCU",
    extra_user_items: bytes = b"",
    max_pdu_bytes: int = 16_384,
) -> bytes:
    body = struct.pack(">HH", 1, 0) + called.ljust(16).encode() + calling.ljust(16).encode() + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for index, (abstract, transfers) in enumerate(contexts):
        syntaxes = b"".join(item(0x40, uid.encode()) for uid in transfers)
        body += item(0x20, bytes([2 * index + 1, 0, 0, 0]) + item(0x30, abstract.encode()) + syntaxes)
    user = item(0x51, struct.pack(">L", max_pdu_bytes)) + item(0x52, b"1.2.3.4") + extra_user_items
    body += item(0x50, user)
    return struct.pack(">BxL", 1, len(body)) + body


def command(elements: dict[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in sorted(elements.items()))
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def us(value: int) -> bytes:
    return value.to_bytes(2, "little")


def ui(value: str) -> bytes:
    encoded = value.encode()
    return encoded + b"\0" * (len(encoded) % 2)


def p_data(context_id: int, control: int, fragment: bytes) -> bytes:
    return struct.pack(">BxLLBB", 4, len(fragment) + 6, len(fragment) + 2, context_id, control) + fragment


class RawScu:
    """An association. contexts: (abstract syntax, transfer syntaxes) each; ids are 1, 3, 5, ..."""

    def __init__(
        self,
        address: tuple[str, int],
        contexts: Sequence[tuple[str, Sequence[str]]] = ((VERIFICATION, (IMPLICIT_LITTLE,)),),
        called: str = "OPENTRIAGE",
        calling: str = "TESTSCU",
        extra_user_items: bytes = b"",
        max_pdu_bytes: int = 16_384,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 20.0,
    ) -> None:
        self.socket = socket.create_connection(address, timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.message_id = 0
        self.pdv: list[tuple[int, int, bytes]] = []
        self.pdu_lengths: list[int] = []  # of every P-DATA received
        try:
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket)
            self.socket.sendall(associate_rq(contexts, called, calling, extra_user_items, max_pdu_bytes))
            kind, body = self.read_pdu()
            if kind == 3:
                raise Rejected(body[1], body[2], body[3])
            if kind != 2:
                raise Aborted(kind)
        except BaseException:
            self.socket.close()
            raise
        self.results: dict[int, tuple[int, str]] = {}  # context id -> (result, transfer syntax)
        self.user_items: dict[int, bytes] = {}
        self._read_items(body[68:])

    def __enter__(self) -> "RawScu":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.socket.close()

    def _read_items(self, data: bytes) -> None:
        while data:
            kind, length = struct.unpack_from(">BxH", data)
            body, data = data[4 : 4 + length], data[4 + length :]
            if kind == 0x21:
                self.results[body[0]] = (body[2], body[8:].decode().rstrip("\0"))
            elif kind == 0x50:
                while body:
                    sub, size = struct.unpack_from(">BxH", body)
                    self.user_items[sub] = body[4 : 4 + size]
                    body = body[4 + size :]

    def read_exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            step = self.socket.recv(count - len(data))
            if not step:
                raise Aborted("closed")
            data += step
        return data

    def read_pdu(self) -> tuple[int, bytes]:
        try:
            kind, length = struct.unpack(">BxL", self.read_exactly(6))
            return int(kind), self.read_exactly(length)
        except ConnectionResetError:
            raise Aborted("reset") from None

    def read_response(self) -> Response:
        encoded = b""
        while True:
            while not self.pdv:
                kind, body = self.read_pdu()
                if kind != 4:
                    raise Aborted(kind, body)
                self.pdu_lengths.append(len(body))
                while body:
                    length, context_id, control = struct.unpack_from(">LBB", body)
                    self.pdv.append((context_id, control, body[6 : 4 + length]))
                    body = body[4 + length :]
            _, control, fragment = self.pdv.pop(0)
            encoded += fragment
            if control & 2:
                return _response(encoded)

    def echo(self, context_id: int = 1) -> int:
        self.message_id += 1
        rq = {0x2: ui(VERIFICATION), 0x100: us(0x30), 0x110: us(self.message_id), 0x800: us(0x101)}
        self.socket.sendall(p_data(context_id, 3, command(rq)))
        return self.read_response().status

    def send_command(self, sop_class: str, sop_instance: str, context_id: int = 1, priority: int = 0) -> None:
        self.message_id += 1
        rq = {
            0x2: ui(sop_class),
            0x100: us(1),
            0x110: us(self.message_id),
            0x700: us(priority),
            0x800: us(1),
            0x1000: ui(sop_instance),
        }
        self.socket.sendall(p_data(context_id, 3, command(rq)))

    def store(
        self, sop_class: str, sop_instance: str, data: bytes, context_id: int = 1, priority: int = 0, step: int = 16_000
    ) -> Response:
        self.send_command(sop_class, sop_instance, context_id, priority)
        for start in range(0, len(data) or 1, step):
            last = 2 if start + step >= len(data) else 0
            self.socket.sendall(p_data(context_id, last, data[start : start + step]))
        return self.read_response()

    def release(self) -> None:
        self.socket.sendall(struct.pack(">BxLL", 5, 4, 0))
        kind, _ = self.read_pdu()
        assert kind == 6
        self.socket.close()

    def abort(self) -> None:
        self.socket.sendall(struct.pack(">BxLL", 7, 4, 0))
        self.socket.close()


def _response(encoded: bytes) -> Response:
    elements: dict[int, bytes] = {}
    while encoded:
        group, tag, length = struct.unpack_from("<HHL", encoded)
        assert group == 0
        elements[tag] = encoded[8 : 8 + length]
        encoded = encoded[8 + length :]
    offending = elements.get(0x901)
    pair = struct.unpack("<HH", offending) if offending else None
    return Response(
        status=int.from_bytes(elements[0x900], "little"),
        comment=elements.get(0x902, b"").decode("ascii").rstrip(),
        offending_element=pair[0] << 16 | pair[1] if pair else None,
        elements=elements,
    )

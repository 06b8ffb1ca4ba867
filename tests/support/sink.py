"""A PACS made of bytes that writes down what it was given and how it answered: the ground truth outside the node.

Every C-STORE is answered as a script says: with a status, with silence, or by closing the connection; before or after
it was stored. It can be taken down and brought up again at the same port, connections and all.
"""

import contextlib
import hashlib
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.support.peers import free_port
from tests.support.rawscu import command, item, p_data, ui, us

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_STORE_RQ, _ECHO_RQ, _HAS_DATA = 0x0001, 0x0030, 0x0101


@dataclass(frozen=True)
class Heard:
    """One C-STORE-RQ. `data`: the data set's bytes."""

    number: int  # from 1, in order of arrival
    association: int
    sop_class_uid: str
    sop_instance_uid: str
    message_priority: int
    data: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def read(self) -> Dataset:
        """The data set, without pixels."""
        return dcmread(BytesIO(self.data), force=True, stop_before_pixels=True)


@dataclass(frozen=True)
class Answer:
    """What happens to a C-STORE. status None: closed, or silent until the peer gives up."""

    name: str
    status: int | None = 0x0000
    stored: bool = True
    silent: bool = False
    afterwards: Callable[[], None] | None = None  # right after the answer was handed to the system
    before: Callable[[], None] | None = None  # stored, not yet answered


STORE = Answer("stored")
BUSY = Answer("A700", 0xA700, stored=False)
FAILED = Answer("0110", 0x0110, stored=False)
SILENT = Answer("stored, then silent", None, silent=True)
CLOSED = Answer("stored, then closed", None)
CUT = Answer("closed before it was stored", None, stored=False)


class Sink:
    """accepts: SOP classes, None for all. `script` says how each C-STORE ends."""

    def __init__(
        self, script: Callable[[Heard], Answer] = lambda heard: STORE, accepts: set[str] | None = None
    ) -> None:
        self.port = free_port()
        self.script = script
        self._accepts = accepts
        self._lock = threading.Lock()
        self._server: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._associations = 0
        self.heard: list[tuple[Heard, Answer]] = []

    def __enter__(self) -> "Sink":
        self.up()
        return self

    def __exit__(self, *error: object) -> None:
        self.down()
        for thread in self._threads:
            thread.join(10)

    # --- what came ---

    def stored(self) -> list[Heard]:
        """What was stored, in order, resends included."""
        with self._lock:
            return [heard for heard, answer in self.heard if answer.stored]

    def holds(self) -> dict[str, set[str]]:
        """SOP Instance UID -> SHA-256 of every data set that came under it. More than one: bytes have changed."""
        found: dict[str, set[str]] = defaultdict(set)
        for heard in self.stored():
            found[heard.sop_instance_uid].add(heard.sha256)
        return dict(found)

    def answers(self) -> dict[str, int]:
        """How often each answer was given."""
        counted: dict[str, int] = defaultdict(int)
        with self._lock:
            for _, answer in self.heard:
                counted[answer.name] += 1
        return dict(counted)

    # --- up and down ---

    def up(self) -> None:
        """Listen."""
        if self._server is not None:
            return
        server = socket.create_server(("127.0.0.1", self.port), backlog=64)
        with self._lock:
            self._server = server
        self._start(self._accept, server)

    def down(self) -> None:
        """Stop listening and cut every connection."""
        with self._lock:
            server, self._server = self._server, None
            connections = list(self._connections)
        if server is not None:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        for connection in connections:
            _cut(connection)

    def _start(self, target: Callable[[socket.socket], None], given: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(given,), daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._server is not server:
                    connection.close()
                    return
                self._connections.add(connection)
            self._start(self._serve, connection)

    # --- one association ---

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._talk(connection)
        except (OSError, EOFError):
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _talk(self, connection: socket.socket) -> None:
        with self._lock:
            self._associations += 1
            association = self._associations
        parts: dict[bool, bytes] = {True: b"", False: b""}
        request: dict[int, bytes] = {}
        while True:
            kind, body = _read_pdu(connection)
            if kind == 1:
                connection.sendall(self._accepted(body))
            elif kind == 5:
                connection.sendall(struct.pack(">BxLL", 6, 4, 0))
                return
            elif kind != 4:
                return
            while kind == 4 and body:
                length, context_id, control = struct.unpack_from(">LBB", body)
                is_command, fragment, body = bool(control & 1), body[6 : 4 + length], body[4 + length :]
                parts[is_command] += fragment
                if not control & 2:
                    continue
                whole, parts[is_command] = parts[is_command], b""
                if is_command:
                    request = _elements(whole)
                    if _number(request, 0x800) != _HAS_DATA:
                        continue
                    whole = b""
                if not self._answer(connection, association, context_id, request, whole):
                    return

    def _accepted(self, body: bytes) -> bytes:
        """A-ASSOCIATE-AC for the RQ's body: same titles, first transfer syntax of each context."""
        answer = body[:4] + body[4:36] + body[36:68] + item(0x10, b"1.2.840.10008.3.1.1.1")
        for kind, content in _items(body[68:]):
            if kind != 0x20:
                continue
            inner = _items(content[4:])
            syntax = next(uid for sub, uid in inner if sub == 0x40)
            abstract = next(uid for sub, uid in inner if sub == 0x30).decode().rstrip("\0")
            taken = self._accepts is None or abstract in self._accepts
            answer += item(0x21, bytes([content[0], 0, 0 if taken else 3, 0]) + item(0x40, syntax))
        answer += item(0x50, item(0x51, struct.pack(">L", 131_072)) + item(0x52, b"1.2.3.4"))
        return struct.pack(">BxL", 2, len(answer)) + answer

    def _answer(
        self, connection: socket.socket, association: int, context_id: int, request: dict[int, bytes], data: bytes
    ) -> bool:
        """False when the connection is to be closed."""
        if _number(request, 0x100) == _ECHO_RQ:
            connection.sendall(_response(context_id, request, 0x8030, 0))
            return True
        if _number(request, 0x100) != _STORE_RQ:
            return False
        with self._lock:
            number = len(self.heard) + 1
            uids = [request[tag].decode().rstrip("\0") for tag in (0x2, 0x1000)]
            heard = Heard(number, association, uids[0], uids[1], _number(request, 0x700), data)
            answer = self.script(heard)
            self.heard.append((heard, answer))
        if answer.before:
            answer.before()
        if answer.silent:
            connection.recv(1)  # until the peer gives up
        if answer.status is None:
            return False
        connection.sendall(_response(context_id, request, 0x8001, answer.status))
        if answer.afterwards:
            answer.afterwards()
        return True


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)


def _read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    kind, length = struct.unpack(">BxL", _exactly(connection, 6))
    return kind, _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        step = connection.recv(count - len(parts))
        if not step:
            raise EOFError
        parts += step
    return bytes(parts)


def _items(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        kind, length = struct.unpack_from(">BxH", data)
        found.append((kind, data[4 : 4 + length]))
        data = data[4 + length :]
    return found


def _elements(encoded: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while encoded:
        _, tag, length = struct.unpack_from("<HHL", encoded)
        found[tag] = encoded[8 : 8 + length]
        encoded = encoded[8 + length :]
    return found


def _number(elements: dict[int, bytes], tag: int) -> int:
    return int.from_bytes(elements.get(tag, b""), "little")


def _response(context_id: int, request: dict[int, bytes], field_: int, status: int) -> bytes:
    elements = {
        0x2: request[0x2],
        0x100: us(field_),
        0x120: request[0x110],
        0x800: us(_HAS_DATA),
        0x900: us(status),
    }
    if 0x1000 in request:
        elements[0x1000] = ui(request[0x1000].decode().rstrip("\0"))
    return p_data(context_id, 3, command(elements))

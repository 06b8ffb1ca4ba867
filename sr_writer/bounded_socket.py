"""Limits on an association that we open: no peer holds a thread of ours, or fills our memory.

pynetdicom waits for the rest of a PDU for as long as it takes, and believes whatever length it announces. Here each PDU
has a deadline from its first byte to its last and a length that was agreed on, and all that answers one question has a
length too. Whoever keeps to none of that is cut off, and `reason_of` says why.
"""

import socket
import struct
import time
from contextlib import suppress
from typing import Final

import structlog
from pynetdicom import evt
from pynetdicom.association import Association

ANSWER_MAX_BYTES: Final = 8 << 20  # of all that comes between one question and the next
ASSOCIATE_AC_MAX_BYTES: Final = 1 << 20
SHORT_MAX_BYTES: Final = 256  # A-ASSOCIATE-RJ, A-RELEASE and A-ABORT have 4
LINGER_S: Final = 1.0  # for the rest of a PDU that nobody waits for any more
_HEADER: Final = struct.Struct(">BxL")
_ASSOCIATE_AC, _P_DATA_TF = 2, 4
_KNOWN: Final = range(1, 8)
_ABORT: Final = bytes((7, 0, 0, 0, 0, 4, 0, 0, 2, 6))  # by the service provider: invalid value (PS3.8 9.3.8)
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
_NAME: Final = "limits"  # of the attribute
log = structlog.get_logger()


class CutOff(OSError):
    """The peer kept to no limit. pynetdicom takes it for the end of the connection."""


class Limits:
    """Of one association with the peer called `key`.

    Its reads and writes are in pynetdicom's thread; the others may be called from any. connect_s, answer_s: how long a
    PDU may take from its first byte to its last, before and after the association stands.
    """

    def __init__(self, key: str, connect_s: float, answer_s: float) -> None:
        self._key = key
        self._pdu_s, self._answer_s = connect_s, answer_s
        self._data_max_bytes = 0
        self._left_bytes = ANSWER_MAX_BYTES
        self._until = 0.0  # for the PDU that is being read
        self._body: int | None = None  # of it, once its header is here: what is read next
        self._busy = self._over = False
        self._reason = ""

    def take(self, event: evt.Event) -> None:
        """A handler of EVT_CONN_OPEN: from here on the connection has its limits."""
        association, wire = event.assoc, event.assoc.dul.socket
        if wire is None or wire.socket is None:
            return
        self._data_max_bytes = association.requestor.maximum_length or ASSOCIATE_AC_MAX_BYTES
        self._send, self._socket = wire.send, wire.socket
        vars(wire).update(recv=self._receive, send=self._send_on)
        vars(association)[_NAME] = self
        _tune(wire.socket, self._answer_s)

    def stands(self) -> None:
        """The association was accepted."""
        self._pdu_s = self._answer_s

    def asks(self) -> None:
        """A question leaves: its answer has all the room again."""
        self._left_bytes = ANSWER_MAX_BYTES

    def give_up(self) -> None:
        """Nobody waits any more. In the middle of a PDU the connection is shut, else it may end in good order."""
        self._over = True
        if self._busy:
            self._because("fell silent in the middle of a message")
            self._shut()

    @property
    def reason(self) -> str:
        """What the peer did, as the end of a sentence, where it was cut off for that; else empty."""
        return self._reason

    # --- in pynetdicom's thread ---

    def _receive(self, size: int) -> bytearray:
        """In place of AssociationSocket.recv: `size` bytes, fewer at the end of the connection. Raises OSError."""
        self._busy = True
        try:
            if self._body is not None:
                self._body = None
                return self._read(size)
            self._until = time.monotonic() + (LINGER_S if self._over else self._pdu_s)
            header = self._read(size)
            if len(header) == _HEADER.size:
                self._check(*_HEADER.unpack(header))
            return header
        finally:
            self._busy = self._body is not None

    def _read(self, size: int) -> bytearray:
        read = bytearray()
        while len(read) < size:
            left_s = self._until - time.monotonic()
            if left_s <= 0:
                raise self._cut_off("fell silent in the middle of a message")
            self._socket.settimeout(left_s)
            try:
                piece = self._socket.recv(min(size - len(read), 65_536))
            except TimeoutError:
                continue
            if not piece:
                break
            read += piece
        return read

    def _check(self, kind: int, length: int) -> None:
        """Before the body is read. What kind is unknown pynetdicom turns away by itself."""
        if kind not in _KNOWN:
            return
        most = {_ASSOCIATE_AC: ASSOCIATE_AC_MAX_BYTES, _P_DATA_TF: self._data_max_bytes}.get(kind, SHORT_MAX_BYTES)
        if length > most:
            raise self._cut_off(f"announced a PDU of {length} bytes where {most} are allowed")
        self._left_bytes -= length
        if self._left_bytes < 0:
            raise self._cut_off(f"answered without end (more than {ANSWER_MAX_BYTES} bytes)")
        self._body = length

    def _send_on(self, data: bytes) -> None:
        """In place of AssociationSocket.send, which turns errors into an event."""
        self._busy = True
        try:
            self._socket.settimeout(self._pdu_s)
            self._send(data)
        finally:
            self._busy = False

    def _cut_off(self, reason: str) -> CutOff:
        self._because(reason)
        with suppress(OSError):
            self._socket.settimeout(LINGER_S)
            self._socket.sendall(_ABORT)
        self._shut()
        return CutOff(reason)

    def _shut(self) -> None:
        """Wakes who reads or writes. Of TLS too the connection beneath: what is still sent must not leave in clear."""
        with suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _because(self, reason: str) -> None:
        if not self._reason:
            self._reason = reason
            log.warning("association_cut_off", destination=self._key, reason=reason)


def reason_of(association: Association) -> str:
    """What the peer did, as the end of a sentence, where it was cut off for that; else empty."""
    limits: Limits | None = vars(association).get(_NAME)
    return limits.reason if limits else ""


def _tune(connection: socket.socket, answer_s: float) -> None:
    """Small PDUs leave at once: Nagle and delayed acknowledgement together cost 40 ms an object. A machine that is gone
    is found out in time, whether we read or write."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(answer_s * 1000))

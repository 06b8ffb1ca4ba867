"""PDUs on a connection: framing, limits, deadlines (PS3.8 9.3). Knows nothing of what they mean.

Everything is read into one buffer that belongs to the association and is never grown for data, so memory does not
depend on the size of an instance. A large PDU costs two reads: one for whatever is there, one that waits for the rest.
"""

import mmap
import socket
import ssl
import struct
import time
from contextlib import suppress
from enum import StrEnum
from typing import Final

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
ASSOCIATE_RQ_MAX_BYTES: Final = 1 << 20
HEADER_BYTES: Final = 6
SHORT_PDU_BYTES: Final = 4  # the body of A-ASSOCIATE-RJ, A-RELEASE and A-ABORT
RATE_WINDOW_S: Final = 30.0
LINGER_S: Final = 2.0  # how long a peer gets to read our last PDU and to close
LINGER_MAX_BYTES: Final = 64 * 1024 * 1024
_STEP_BYTES: Final = 65_536
_HEADER: Final = struct.Struct(">BxL")
_PDV: Final = struct.Struct(">LBB")  # of one presentation data value: length, context, message control header
_PDV_IN_PDU: Final = struct.Struct(">BxLLBB")
_TIMEVAL: Final = struct.Struct("@ll")
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)

# (source, reason) of an A-ABORT (PS3.8 9.3.8); the service user gives no reason
USER: Final = (0, 0)
NOT_SPECIFIED: Final = (2, 0)
UNRECOGNISED: Final = (2, 1)
UNEXPECTED: Final = (2, 2)
INVALID_VALUE: Final = (2, 6)


class AbortReason(StrEnum):
    """Why an association ended without a release: a label of a metric, so a closed set."""

    PEER = "peer"  # the peer sent A-ABORT
    LOST = "connection_lost"
    IDLE = "idle"
    PDU_DEADLINE = "pdu_deadline"
    RATE = "minimum_rate"
    PDU_LENGTH = "pdu_length"
    UNRECOGNISED_PDU = "unrecognised_pdu"
    UNEXPECTED_PDU = "unexpected_pdu"
    FRAGMENT = "fragment"  # a PDV that lies about its length, is empty, or belongs to another context
    COMMAND_SET = "command_set"
    MESSAGE = "message"  # an unknown one, or one too long to be kept
    ENDLESS = "endless_data_set"
    CONTEXT = "presentation_context"
    STOPPING = "stopping"
    INTERNAL = "internal"
    MALFORMED_REQUEST = "malformed_request"  # an A-ASSOCIATE-RQ


class AssociationEnded(Exception):
    """It ends now. answer: (source, reason) of the A-ABORT to send; None where the peer is gone. facts: for the log."""

    def __init__(self, reason: AbortReason, answer: tuple[int, int] | None, **facts: str | int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer
        self.facts = facts


def encode(kind: int, body: bytes) -> bytes:
    return _HEADER.pack(kind, len(body)) + body


def encode_abort(source: int, reason: int) -> bytes:
    return encode(ABORT, bytes((0, 0, source, reason)))


def encode_fragments(context_id: int, is_command: bool, data: bytes, most: int) -> bytes:
    """P-DATA-TFs with one PDV each. most: the peer's maximum length of a P-DATA-TF, 0 for no limit (PS3.8 D.1)."""
    room = max(most - _PDV.size, 1) if most else max(len(data), 1)
    pieces: list[bytes] = []
    for start in range(0, max(len(data), 1), room):
        piece = data[start : start + room]
        control = is_command | (2 if start + room >= len(data) else 0)
        pieces += (_PDV_IN_PDU.pack(P_DATA_TF, len(piece) + 6, len(piece) + 2, context_id, control), piece)
    return b"".join(pieces)


RELEASE_RP_PDU: Final = encode(RELEASE_RP, bytes(4))


def tune(connection: socket.socket) -> None:
    """No silent peer keeps a thread, no small answer waits for a delayed acknowledgement."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_QUICKACK", 1)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)


class Wire:
    """Reads and writes whole PDUs. Used by one thread.

    Waiting is cut into slices of a quarter of the shortest deadline, so a deadline is kept to within one slice without
    a system call for each PDU. A peer that sends less than `min_bytes_per_s` while a message is under way is given up;
    only time spent waiting for it counts, never time in which we did not read.
    """

    def __init__(self, connection: socket.socket, pdu_max_bytes: int, min_bytes_per_s: int) -> None:
        self._connection = connection
        self._waits_for_all = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_WAITALL
        self._data_max_bytes = pdu_max_bytes
        self._buffer = mmap.mmap(-1, HEADER_BYTES + pdu_max_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0  # what was read and not yet taken
        self._min_bytes_per_s = min_bytes_per_s
        self._rate_window_s = RATE_WINDOW_S
        self._waited_s, self._read_bytes = 0.0, 0
        self._idle_s = self._pdu_s = 0.0
        self._said_last = False
        self.opening = b""  # the first bytes that ever came, a few of them

    def set_deadlines(self, idle_s: float, pdu_s: float) -> None:
        """idle_s: from one PDU to the next. pdu_s: for the whole of a PDU once its first byte is here."""
        self._idle_s, self._pdu_s = idle_s, pdu_s
        self._rate_window_s = min(RATE_WINDOW_S, pdu_s / 2)
        self._wait_at_most(min(max(min(idle_s, pdu_s) / 4, 0.05), 15.0), pdu_s)

    def _wait_at_most(self, read_s: float, write_s: float) -> None:
        if not self._waits_for_all:
            self._connection.settimeout(read_s)
            return
        self._connection.setblocking(True)
        for option, seconds in ((socket.SO_RCVTIMEO, read_s), (socket.SO_SNDTIMEO, write_s)):
            self._connection.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6)))

    # --- reading ---

    def read(self, in_message: bool) -> tuple[int, memoryview]:
        """(type, body) of the next PDU. The body is valid until the next call. Raises AssociationEnded."""
        if not in_message:
            self._waited_s, self._read_bytes = 0.0, 0
        if self._end - self._start < HEADER_BYTES:
            self._read_header(in_message)
        kind, length = _HEADER.unpack_from(self._view, self._start)
        self._check(kind, length)
        end = self._start + HEADER_BYTES + length
        if end > self._end:
            if length > self._data_max_bytes:
                return kind, self._read_outside(length)
            end = self._read_rest(length, in_message)
        body = self._view[self._start + HEADER_BYTES : end]
        self._start = end
        return kind, body

    def _check(self, kind: int, length: int) -> None:
        if kind == P_DATA_TF:
            fits = length <= self._data_max_bytes
        elif kind in (ASSOCIATE_RQ, ASSOCIATE_AC):
            fits = length <= ASSOCIATE_RQ_MAX_BYTES
        elif kind in (ASSOCIATE_RJ, RELEASE_RQ, RELEASE_RP, ABORT):
            fits = length == SHORT_PDU_BYTES
        else:
            raise AssociationEnded(AbortReason.UNRECOGNISED_PDU, UNRECOGNISED)
        if not fits:
            raise AssociationEnded(AbortReason.PDU_LENGTH, INVALID_VALUE)

    def _read_header(self, in_message: bool) -> None:
        self._to_front()
        deadline, reason = time.monotonic() + self._idle_s, AbortReason.IDLE
        if self._end:
            deadline, reason = time.monotonic() + self._pdu_s, AbortReason.PDU_DEADLINE
        while self._end < HEADER_BYTES:
            nothing_yet = self._end == 0
            self._end += self._receive(self._view[self._end :], 0, deadline, reason, in_message)
            if nothing_yet and self._end:
                self.opening = self.opening or bytes(self._view[: min(self._end, HEADER_BYTES)])
                deadline, reason = time.monotonic() + self._pdu_s, AbortReason.PDU_DEADLINE

    def _read_rest(self, length: int, in_message: bool) -> int:
        """All of a PDU whose header is here; where it ends in the buffer."""
        if self._start + HEADER_BYTES + length > len(self._view):
            self._to_front()
        end = self._start + HEADER_BYTES + length
        deadline = time.monotonic() + self._pdu_s
        while self._end < end:
            rest = self._view[self._end : end]
            self._end += self._receive(rest, self._waits_for_all, deadline, AbortReason.PDU_DEADLINE, in_message)
        return end

    def _read_outside(self, length: int) -> memoryview:
        """An A-ASSOCIATE PDU that is longer than a P-DATA-TF may be. Memory grows with what is sent, not announced."""
        body = bytearray(self._view[self._start + HEADER_BYTES : self._end])
        self._start = self._end = 0
        deadline = time.monotonic() + self._pdu_s
        while len(body) < length:
            step = self._view[: min(length - len(body), len(self._view))]
            count = self._receive(step, 0, deadline, AbortReason.PDU_DEADLINE, False)
            body += step[:count]
        return memoryview(body)

    def _to_front(self) -> None:
        rest = self._end - self._start
        if rest and self._start:
            self._buffer.move(0, self._start, rest)
        self._start, self._end = 0, rest

    def _receive(self, into: memoryview, flags: int, deadline: float, reason: AbortReason, in_message: bool) -> int:
        """One read; how many bytes came, 0 when a slice of waiting ended without any."""
        began = time.monotonic()
        try:
            count = self._connection.recv_into(into, 0, flags)
        except (BlockingIOError, TimeoutError, InterruptedError, ssl.SSLWantReadError):
            count = -1
        except OSError:
            raise AssociationEnded(AbortReason.LOST, None) from None
        if count == 0:
            raise AssociationEnded(AbortReason.LOST, None)
        now = time.monotonic()
        if count > 0:
            self._acknowledge_at_once()
        if now > deadline and (count < 0 or len(into) > count):
            raise AssociationEnded(reason, USER)
        if in_message:
            self._judge_rate(now - began, max(count, 0))
        return max(count, 0)

    def _acknowledge_at_once(self) -> None:
        """Senders with Nagle's algorithm on otherwise wait 40 ms for every small instance. The option wears off."""
        if _QUICKACK is not None:
            with suppress(OSError):
                self._connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _judge_rate(self, waited_s: float, count: int) -> None:
        self._waited_s += waited_s
        self._read_bytes += count
        if self._waited_s < self._rate_window_s:
            return
        if self._read_bytes < self._min_bytes_per_s * self._waited_s:
            raise AssociationEnded(AbortReason.RATE, USER)
        self._waited_s, self._read_bytes = 0.0, 0

    # --- writing ---

    def write(self, data: bytes) -> None:
        """Raises AssociationEnded when the peer is gone or takes nothing."""
        try:
            self._connection.sendall(data)
        except OSError:
            raise AssociationEnded(AbortReason.LOST, None) from None

    def say_last(self, data: bytes | None) -> None:
        """Send a last PDU; nothing is sent after it."""
        with suppress(OSError):
            if data is not None:
                self._connection.sendall(data)
                self._connection.shutdown(socket.SHUT_WR)
                self._said_last = True

    def close(self, linger_s: float = LINGER_S) -> None:
        """After a last PDU, what the peer still sends is read and dropped for a moment: closing with unread bytes
        would reset the connection, and the peer might never see what we said."""
        with suppress(OSError):
            if self._said_last:
                self._drain(time.monotonic() + linger_s)
        with suppress(OSError):
            self._connection.close()

    def farewell(self, data: bytes | None) -> None:
        self.say_last(data)
        self.close()

    def _drain(self, until: float) -> None:
        left = LINGER_MAX_BYTES
        while left > 0 and (remaining := until - time.monotonic()) > 0:
            self._wait_at_most(max(remaining, 0.01), 1.0)
            count = self._connection.recv_into(self._view[: min(_STEP_BYTES, len(self._view))])
            if count == 0:
                return
            left -= count

"""The pieces of pynetdicom that a hospital network breaks, replaced: socket, timers, DIMSE provider.

- A PDU has an absolute deadline and a length limit; reading is done in large steps, waiting with poll().
- TCP_QUICKACK is set again after each PDU: senders with Nagle on otherwise wait 40 ms for every small instance.
- C-STORE is taken apart here: data set fragments go straight to the sink, nothing is collected in memory, the command
  set is bounded, and pydicom never sees a value from the wire.
- Timers use the monotonic clock.
"""

import queue
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationSocket

from scp import command_set
from scp.engine import EVENT_MAX_BYTES, InstanceSink

if TYPE_CHECKING:
    from scp.pynetdicom_engine import AcceptedAssociation

ASSOCIATE_RQ_MAX_BYTES: Final = 1 << 20
# A-ABORT by the service provider, invalid PDU parameter value (PS3.8 9.3.8)
_ABORT_INVALID_PDU: Final = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x06"
_LAST, _COMMAND = 2, 1  # bits of the message control header (PS3.8 E.2)


def tune(connection: socket.socket, timeout_s: float) -> None:
    """No silent peer keeps a thread, no small answer waits for a delayed acknowledgement."""
    connection.settimeout(timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_QUICKACK", 1)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)


class MonotonicTimer(Timer):
    """A stepped clock must not end a healthy association."""

    @property
    def remaining(self) -> float:
        if self.timeout is None:
            return 1.0
        if self._start_time is None:
            return self.timeout
        end = time.monotonic() if self._end_time is None else self._end_time
        return self.timeout - (end - self._start_time)

    def start(self) -> None:
        self._start_time, self._end_time = time.monotonic(), None

    def stop(self) -> None:
        self._end_time = time.monotonic()


class BoundedSocket(AssociationSocket):
    """Reads whole PDUs with a limit and a deadline."""

    def __init__(self, association: "AcceptedAssociation", connection: socket.socket) -> None:
        super().__init__(association, client_socket=connection)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self.pdu_max_bytes = ASSOCIATE_RQ_MAX_BYTES
        self.pdu_timeout_s = connection.gettimeout() or 30.0

    @property
    def ready(self) -> bool:
        """Whether to read now: not while a message that nobody awaited is already queued."""
        if self.socket is None or not self._is_connected or self.assoc.dimse.msg_queue.qsize() > 1:
            return False
        try:
            return bool(self._poll.poll(0))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """`nr_bytes` bytes, fewer when the peer closed. Raises OSError past the limit or the deadline."""
        connection = self.socket
        if connection is None:
            raise OSError("connection is closed")
        if nr_bytes > self.pdu_max_bytes:
            connection.sendall(_ABORT_INVALID_PDU)
            raise OSError("PDU is longer than allowed")
        buffer = bytearray(nr_bytes)
        received, deadline = 0, time.monotonic() + self.pdu_timeout_s
        with memoryview(buffer) as view:
            while received < nr_bytes:
                step = connection.recv_into(view[received:])
                if step == 0:
                    break
                received += step
                if received < nr_bytes and time.monotonic() > deadline:
                    raise TimeoutError("PDU took too long")
        if hasattr(socket, "TCP_QUICKACK"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        del buffer[received:]
        return buffer


class StoreMessage:
    """A C-STORE-RQ under way; looks enough like pynetdicom's own messages for its reactor."""

    msg_type = "C-STORE"
    is_valid_request = True

    def __init__(self, context_id: int, command: dict[int, bytes], sink: InstanceSink) -> None:
        self.context_id = context_id
        self.command = command
        self.sink = sink

    def write(self, data: memoryview) -> None:
        self.sink.write(data)


class EventMessage:
    """An N-EVENT-REPORT-RQ under way, served by the association's own thread like every other message."""

    msg_type = "N-EVENT-REPORT"
    is_valid_request = True

    def __init__(self, context_id: int, command: dict[int, bytes]) -> None:
        self.context_id = context_id
        self.command = command
        self.data = bytearray()

    def write(self, data: memoryview) -> None:
        """Raises ValueError for more than EVENT_MAX_BYTES in all."""
        if len(self.data) + len(data) > EVENT_MAX_BYTES:
            raise ValueError("an event report is too long")
        self.data += data


class StreamingDimse(DIMSEServiceProvider):
    """Takes fragments in the thread that reads the socket. C-STORE and N-EVENT-REPORT are taken here, other messages
    go pynetdicom's own way."""

    def __init__(
        self, association: "AcceptedAssociation", begin: Callable[[int, dict[int, bytes]], InstanceSink]
    ) -> None:
        super().__init__(association)
        self._begin = begin
        self._command = bytearray()
        self._under_way: StoreMessage | EventMessage | None = None  # its data set comes next

    @property
    def is_receiving(self) -> bool:
        return bool(self._command) or self._under_way is not None or self.message is not None

    def receive_primitive(self, primitive: P_DATA) -> None:
        try:
            for context_id, fragment in primitive.presentation_data_value_list:
                self._receive_fragment(context_id, fragment)
        except (ValueError, KeyError, IndexError, AttributeError, TypeError):
            self.dul.event_queue.put("Evt19")  # invalid: the state machine aborts the association

    def _receive_fragment(self, context_id: int, fragment: bytes) -> None:
        control = fragment[0]
        if control & _COMMAND:
            self._receive_command(context_id, fragment, bool(control & _LAST))
        elif self._under_way is not None:
            self._receive_data(self._under_way, context_id, fragment, bool(control & _LAST))
        else:
            self._delegate(context_id, fragment)

    def _receive_command(self, context_id: int, fragment: bytes, last: bool) -> None:
        if self._under_way is not None:
            raise ValueError("a command inside a data set")
        self._command += memoryview(fragment)[1:]
        if len(self._command) > command_set.COMMAND_SET_MAX_BYTES:
            raise ValueError("command set is too long")
        if not last:
            return
        encoded = bytes(self._command)
        self._command.clear()
        command = command_set.decode(encoded)
        kind = command_set.number(command, command_set.COMMAND_FIELD)
        if kind == command_set.C_STORE_RQ:
            self._begin_store(context_id, command)
        elif kind == command_set.N_EVENT_REPORT_RQ:
            self._begin_event(context_id, command)
        else:
            self._delegate(context_id, b"\x03" + encoded)

    def _begin_store(self, context_id: int, command: dict[int, bytes]) -> None:
        command_set.number(command, command_set.MESSAGE_ID)
        if command_set.number(command, command_set.DATA_SET_TYPE) == command_set.NO_DATA_SET:
            raise ValueError("a C-STORE-RQ without a data set")
        self._under_way = StoreMessage(context_id, command, self._begin(context_id, command))

    def _begin_event(self, context_id: int, command: dict[int, bytes]) -> None:
        """KeyError for a context that was not accepted: the association is aborted."""
        self.assoc._accepted_cx[context_id]
        command_set.number(command, command_set.MESSAGE_ID)
        self._under_way = EventMessage(context_id, command)
        if command_set.number(command, command_set.DATA_SET_TYPE) == command_set.NO_DATA_SET:
            self._hand_on(self._under_way)

    def _receive_data(self, message: StoreMessage | EventMessage, context_id: int, fragment: bytes, last: bool) -> None:
        if context_id != message.context_id:
            raise ValueError("a fragment of another presentation context")
        message.write(memoryview(fragment)[1:])
        if last:
            self._hand_on(message)

    def _hand_on(self, message: StoreMessage | EventMessage) -> None:
        """To the association's own thread: all of it is here."""
        self._under_way = None
        self.msg_queue.put(cast(Any, (message.context_id, message)))

    def _delegate(self, context_id: int, fragment: bytes) -> None:
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context_id, fragment))
        super().receive_primitive(primitive)

    def respond(self, context_id: int, encoded: bytes) -> None:
        """Send a command set, in as many fragments as the peer's maximum PDU length asks for."""
        room = self.maximum_pdu_size - 6 if self.maximum_pdu_size else len(encoded)
        room = max(room, 1)
        for start in range(0, len(encoded), room):
            last = start + room >= len(encoded)
            primitive = P_DATA()
            control = bytes([_COMMAND | (_LAST if last else 0)])
            primitive.presentation_data_value_list.append((context_id, control + encoded[start : start + room]))
            self.dul.send_pdu(primitive)

    def abandon(self) -> None:
        """Forget every message that was not answered. Only when the reading thread has ended."""
        pending: list[Any] = [self._under_way]
        self._under_way = None
        while True:
            try:
                pending.append(self.msg_queue.get(block=False)[1])
            except queue.Empty:
                break
        for message in pending:
            if isinstance(message, StoreMessage):
                message.sink.abort()

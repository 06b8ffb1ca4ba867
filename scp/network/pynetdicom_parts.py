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
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationSocket

from scp.network import command_set, dimse, pdu
from scp.network.engine import ENDLESS, EVENT_MAX_BYTES, InstanceSink
from scp.network.pdu import AbortReason

if TYPE_CHECKING:
    from scp.network.pynetdicom_association import AcceptedAssociation

_SHORT_PDUS: Final = (pdu.ASSOCIATE_RJ, pdu.RELEASE_RQ, pdu.RELEASE_RP, pdu.ABORT)
_LAST, _COMMAND = 2, 1  # bits of the message control header (PS3.8 E.2)


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

    assoc: "AcceptedAssociation"

    def __init__(self, association: "AcceptedAssociation", connection: socket.socket) -> None:
        super().__init__(association, client_socket=connection)
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self.pdu_max_bytes = pdu.ASSOCIATE_RQ_MAX_BYTES
        self.pdu_timeout_s = connection.gettimeout() or 30.0
        self._kind = 0  # of the PDU whose header was read and whose body comes next

    @property
    def ready(self) -> bool:
        """Whether to read now: not while a message that nobody awaited is already queued."""
        if self.socket is None or not self._is_connected or self.assoc.dimse.msg_queue.qsize() > 1:
            return False
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True  # decrypted already: poll knows nothing of it
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
        kind, self._kind = self._kind, 0
        if nr_bytes > self.pdu_max_bytes or (kind in _SHORT_PDUS and nr_bytes != pdu.SHORT_PDU_BYTES):
            self.assoc.ends_for(AbortReason.PDU_LENGTH)
            connection.sendall(pdu.encode_abort(*pdu.INVALID_VALUE))
            raise OSError("PDU has not the length that it may have")
        buffer = bytearray(nr_bytes)
        received, deadline = 0, time.monotonic() + self.pdu_timeout_s
        with memoryview(buffer) as view:
            while received < nr_bytes:
                step = connection.recv_into(view[received:])
                if step == 0:
                    break
                received += step
                if received < nr_bytes and time.monotonic() > deadline:
                    self.assoc.ends_for(AbortReason.PDU_DEADLINE)
                    raise TimeoutError("PDU took too long")
        if hasattr(socket, "TCP_QUICKACK"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        del buffer[received:]
        if not kind and received == pdu.HEADER_BYTES and pdu.ASSOCIATE_RQ <= buffer[0] <= pdu.ABORT:
            self._kind = buffer[0]
        return buffer


class EndlessDataSet(ValueError):
    """size_bytes: that came of it."""

    def __init__(self, command: dict[int, bytes], size_bytes: int) -> None:
        super().__init__("an endless data set")
        self.command = command
        self.size_bytes = size_bytes


class StoreMessage:
    """A C-STORE-RQ under way; looks enough like pynetdicom's own messages for its reactor."""

    msg_type = "C-STORE"
    is_valid_request = True

    def __init__(self, context_id: int, command: dict[int, bytes], sink: InstanceSink, most_bytes: int) -> None:
        self.context_id = context_id
        self.command = command
        self.sink = sink
        self._most_bytes = most_bytes
        self._size_bytes = 0

    def write(self, data: memoryview) -> None:
        """Raises EndlessDataSet."""
        self._size_bytes += len(data)
        if self._size_bytes > self._most_bytes:
            raise EndlessDataSet(self.command, self._size_bytes)
        self.sink.write(data)


class KeptMessage:
    """An N-EVENT-REPORT-RQ or N-ACTION-RQ under way, served by the association's own thread like any other message."""

    is_valid_request = True

    def __init__(self, context_id: int, command: dict[int, bytes], is_action: bool) -> None:
        self.is_action = is_action
        self.msg_type = "N-ACTION" if is_action else "N-EVENT-REPORT"
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

    _assoc: "AcceptedAssociation"

    def __init__(
        self, association: "AcceptedAssociation", begin: Callable[[int, dict[int, bytes]], InstanceSink]
    ) -> None:
        super().__init__(association)
        self._begin = begin
        self._command = bytearray()
        self._under_way: StoreMessage | KeptMessage | None = None  # its data set comes next

    @property
    def is_receiving(self) -> bool:
        return bool(self._command) or self._under_way is not None or self.message is not None

    def receive_primitive(self, primitive: P_DATA) -> None:
        try:
            if not primitive.presentation_data_value_list:
                raise ValueError("a P-DATA-TF without a PDV")
            for context_id, fragment in primitive.presentation_data_value_list:
                self._receive_fragment(context_id, fragment)
        except EndlessDataSet as error:
            self._assoc.cut_off(AbortReason.ENDLESS, dimse.endless(error.command, error.size_bytes))
            self.dul.event_queue.put("Evt19")  # invalid: the state machine aborts the association
        except (ValueError, KeyError, IndexError, AttributeError, TypeError):
            self._assoc.ends_for(AbortReason.MESSAGE)
            self.dul.event_queue.put("Evt19")

    def _receive_fragment(self, context_id: int, fragment: bytes) -> None:
        control = fragment[0]
        if len(fragment) == 1 and not control & _LAST:
            raise ValueError("an empty fragment with more to come")
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
        elif kind in (command_set.N_EVENT_REPORT_RQ, command_set.N_ACTION_RQ):
            self._begin_kept(context_id, command, kind == command_set.N_ACTION_RQ)
        else:
            self._delegate(context_id, b"\x03" + encoded)

    def _begin_store(self, context_id: int, command: dict[int, bytes]) -> None:
        command_set.number(command, command_set.MESSAGE_ID)
        if command_set.number(command, command_set.DATA_SET_TYPE) == command_set.NO_DATA_SET:
            raise ValueError("a C-STORE-RQ without a data set")
        most_bytes = ENDLESS * self._assoc.engine.settings.max_instance_bytes
        self._under_way = StoreMessage(context_id, command, self._begin(context_id, command), most_bytes)

    def _begin_kept(self, context_id: int, command: dict[int, bytes], is_action: bool) -> None:
        """KeyError for a context that was not accepted: the association is aborted."""
        self.assoc._accepted_cx[context_id]
        command_set.number(command, command_set.MESSAGE_ID)
        self._under_way = KeptMessage(context_id, command, is_action)
        if command_set.number(command, command_set.DATA_SET_TYPE) == command_set.NO_DATA_SET:
            self._hand_on(self._under_way)

    def _receive_data(self, message: StoreMessage | KeptMessage, context_id: int, fragment: bytes, last: bool) -> None:
        if context_id != message.context_id:
            raise ValueError("a fragment of another presentation context")
        message.write(memoryview(fragment)[1:])
        if last:
            self._hand_on(message)

    def _hand_on(self, message: StoreMessage | KeptMessage) -> None:
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

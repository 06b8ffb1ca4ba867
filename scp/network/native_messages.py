"""DIMSE messages as they come in, fragment by fragment (PS3.7 6.3, PS3.8 E.2). One at a time for an association."""

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from scp.network import command_set, dimse
from scp.network.command_set import COMMAND_SET_MAX_BYTES
from scp.network.engine import ENDLESS, EVENT_MAX_BYTES, InstanceSink
from scp.network.negotiation import AcceptedContext
from scp.network.pdu import INVALID_VALUE, UNEXPECTED, AbortReason, AssociationEnded

Command = dict[int, bytes]
BeginStore = Callable[[AcceptedContext, Command], InstanceSink]
_PDV: Final = struct.Struct(">LBB")
_COMMAND, _LAST = 1, 2  # bits of the message control header


class _Taker(Protocol):
    def write(self, data: memoryview) -> None: ...


class _Kept:
    """A data set that is small enough to be kept in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: memoryview) -> None:
        if len(self.data) + len(data) > EVENT_MAX_BYTES:
            raise AssociationEnded(AbortReason.MESSAGE, INVALID_VALUE)
        self.data += data


class _Sunk:
    """A data set on its way to a sink. An honest sender that is too long hears so; an endless one is cut off."""

    def __init__(self, sink: InstanceSink, command: Command, most_bytes: int) -> None:
        self._sink = sink
        self._command = command
        self._most_bytes = most_bytes
        self._size_bytes = 0

    def write(self, data: memoryview) -> None:
        self._size_bytes += len(data)
        if self._size_bytes > self._most_bytes:
            raise AssociationEnded(AbortReason.ENDLESS, INVALID_VALUE, **dimse.endless(self._command, self._size_bytes))
        self._sink.write(data)


class Message:
    """Whole when it is handed out. sink: of a C-STORE; kept: the data set of anything else."""

    def __init__(self, context_id: int, context: AcceptedContext, command: Command, field: int) -> None:
        self.context_id = context_id
        self.context = context
        self.command = command
        self.field = field
        self.sink: InstanceSink | None = None
        self.kept = _Kept()


class Assembler:
    """Makes messages of P-DATA-TF bodies. Raises AssociationEnded for whatever cannot be a message."""

    def __init__(
        self, accepted: Mapping[int, AcceptedContext], begin_store: BeginStore, max_instance_bytes: int
    ) -> None:
        self._accepted = accepted
        self._most_bytes = ENDLESS * max_instance_bytes
        self._begin_store = begin_store
        self._encoded = bytearray()  # of a command set under way
        self._context_id = 0
        self._under_way: Message | None = None  # its data set comes next
        self._taker: _Taker = _Kept()

    @property
    def in_message(self) -> bool:
        return self._under_way is not None or bool(self._encoded)

    def take(self, body: memoryview) -> Iterator[Message]:
        """The messages that end in this body; each is to be answered before the next is asked for."""
        position, size = 0, len(body)
        if not size:
            raise _bad_fragment()
        while position < size:
            if size - position < _PDV.size:
                raise _bad_fragment()
            length, context_id, control = _PDV.unpack_from(body, position)
            start, position = position + _PDV.size, position + 4 + length
            if length < 2 or position > size or (length == 2 and not control & _LAST):
                raise _bad_fragment()
            message = self._fragment(context_id, control, body[start:position])
            if message is not None:
                yield message

    def abandon(self) -> None:
        """The association ends: forget what is under way."""
        message, self._under_way = self._under_way, None
        if message is not None and message.sink is not None:
            message.sink.abort()

    def _fragment(self, context_id: int, control: int, data: memoryview) -> Message | None:
        message = self._under_way
        if control & _COMMAND:
            if message is not None:
                raise AssociationEnded(AbortReason.FRAGMENT, UNEXPECTED)
            return self._command(context_id, data, bool(control & _LAST))
        if message is None or context_id != message.context_id:
            raise AssociationEnded(AbortReason.FRAGMENT, UNEXPECTED)
        self._taker.write(data)
        if not control & _LAST:
            return None
        self._under_way = None
        return message

    def _command(self, context_id: int, data: memoryview, last: bool) -> Message | None:
        if self._encoded and context_id != self._context_id:
            raise AssociationEnded(AbortReason.FRAGMENT, UNEXPECTED)
        context = self._accepted.get(context_id)
        if context is None:
            raise AssociationEnded(AbortReason.CONTEXT, INVALID_VALUE)
        self._context_id = context_id
        self._encoded += data
        if len(self._encoded) > COMMAND_SET_MAX_BYTES:
            raise AssociationEnded(AbortReason.COMMAND_SET, INVALID_VALUE)
        if not last:
            return None
        encoded, self._encoded = bytes(self._encoded), bytearray()
        try:
            return self._begin(context_id, context, command_set.decode(encoded))
        except ValueError:
            raise AssociationEnded(AbortReason.COMMAND_SET, INVALID_VALUE) from None

    def _begin(self, context_id: int, context: AcceptedContext, command: Command) -> Message | None:
        """The message, when no data set follows."""
        field = command_set.number(command, command_set.COMMAND_FIELD)
        has_data = command_set.has_data_set(command)
        message = Message(context_id, context, command, field)
        if field == command_set.C_STORE_RQ:
            command_set.number(command, command_set.MESSAGE_ID)
            if not has_data:
                raise ValueError("a C-STORE-RQ without a data set")
            message.sink = self._begin_store(context, command)
        if not has_data:
            return message
        self._under_way = message
        self._taker = message.kept if message.sink is None else _Sunk(message.sink, command, self._most_bytes)
        return None


def _bad_fragment() -> AssociationEnded:
    return AssociationEnded(AbortReason.FRAGMENT, INVALID_VALUE)

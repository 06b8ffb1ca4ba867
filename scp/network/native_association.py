"""An established association of the native engine: its message loop and its end (PS3.8 9.2, states 6 and 13)."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from scp import metrics
from scp.network import command_set, dimse, pdu
from scp.network.contexts import VERIFICATION
from scp.network.engine import AssociationFacts, Ending, EventToSend, Handlers, InstanceSink, printable
from scp.network.native_messages import Assembler, Command, Message
from scp.network.negotiation import AcceptedContext, Agreement, negotiated
from scp.network.pdu import AbortReason, AssociationEnded
from scp.status import SUCCESS

if TYPE_CHECKING:
    from scp.network.native_connection import Connection

log = structlog.get_logger()

SOP_CLASS_NOT_SUPPORTED: Final = 0x0122  # PS3.7 C
_LAST_MESSAGE_ID: Final = 0xFFFF
_STOP_LINGER_S: Final = 0.2
_LOUD: Final = frozenset(AbortReason) - {AbortReason.PEER, AbortReason.LOST, AbortReason.STOPPING, AbortReason.IDLE}


class _Released(Exception):
    pass


class Association:
    """Used by the connection's thread only."""

    def __init__(
        self,
        handlers: Handlers,
        connection: "Connection",
        wire: pdu.Wire,
        facts: AssociationFacts,
        agreement: Agreement,
    ) -> None:
        self._handlers = handlers
        self._connection = connection
        self._wire = wire
        self._facts = facts
        self._agreement = agreement
        most_bytes = connection.settings.max_instance_bytes
        self._messages = Assembler(agreement.accepted, partial(_begin_store, handlers, facts), most_bytes)
        self._told: dict[int, Callable[[bool], None]] = {}  # our message id -> whom to tell what became of it
        self._message_id = 0

    def run(self) -> None:
        try:
            negotiated(self._handlers, self._facts, self._agreement.refused)
            self._converse()
        except _Released:
            self._end(Ending.RELEASED, pdu.RELEASE_RP_PDU)
        except AssociationEnded as ended:
            self._aborted(ended)
        except Exception:  # a fault of ours: the peer is told, and comes again
            log.error("association_failed", exc_info=True, association_id=self._facts.association_id)
            self._aborted(AssociationEnded(AbortReason.INTERNAL, pdu.NOT_SPECIFIED))

    # --- the end ---

    def _aborted(self, ended: AssociationEnded) -> None:
        if ended.reason is AbortReason.LOST and self._connection.draining:  # we woke the thread
            ended = AssociationEnded(AbortReason.STOPPING, pdu.USER)
        metrics.ASSOCIATIONS_ABORTED.labels(ended.reason.value).inc()
        say = log.warning if ended.reason in _LOUD else log.info
        say(
            "association_aborted",
            reason=ended.reason.value,
            association_id=self._facts.association_id,
            calling_ae_title=printable(self._facts.calling_ae_title),
            peer=self._facts.peer_address,
            **ended.facts,
        )
        ending = Ending.ABORTED if ended.reason is AbortReason.PEER else Ending.CUT
        self._end(ending, pdu.encode_abort(*ended.answer) if ended.answer else None)

    def _end(self, ending: Ending, last: bytes | None) -> None:
        metrics.ASSOCIATIONS_OPEN.dec()
        self._messages.abandon()
        self._connection.leave()
        self._wire.say_last(last)
        told, self._told = self._told, {}
        for tell in told.values():
            tell(False)
        self._handlers.ended(self._facts, ending)
        self._wire.close(_STOP_LINGER_S if self._connection.draining else pdu.LINGER_S)

    # --- messages ---

    def _converse(self) -> None:
        wire, messages, connection = self._wire, self._messages, self._connection
        while True:
            in_message = messages.in_message
            if not in_message:
                connection.idle = True
                if connection.draining:
                    raise AssociationEnded(AbortReason.STOPPING, pdu.USER)
            kind, body = wire.read(in_message)
            connection.idle = False
            if kind != pdu.P_DATA_TF:
                self._not_data(kind)
            for message in messages.take(body):
                self._answer(message)

    def _not_data(self, kind: int) -> None:
        if kind == pdu.RELEASE_RQ:
            raise _Released
        if kind == pdu.ABORT:
            raise AssociationEnded(AbortReason.PEER, None)
        raise AssociationEnded(AbortReason.UNEXPECTED_PDU, pdu.UNEXPECTED)

    def _answer(self, message: Message) -> None:
        serve = _SERVE.get(message.field)
        if serve is None:
            raise AssociationEnded(AbortReason.MESSAGE, pdu.INVALID_VALUE)
        try:
            serve(self, message)
        except ValueError:  # a number that is none
            raise AssociationEnded(AbortReason.COMMAND_SET, pdu.INVALID_VALUE) from None

    def _store(self, message: Message) -> None:
        assert message.sink is not None
        self._respond(message, command_set.store_response(message.command, message.sink.commit()))

    def _echo(self, message: Message) -> None:
        known = command_set.uid(message.command, command_set.AFFECTED_SOP_CLASS_UID) == VERIFICATION
        status = SUCCESS if known else SOP_CLASS_NOT_SUPPORTED
        self._respond(message, command_set.echo_response(message.command, status))

    def _report(self, message: Message) -> None:
        command = message.command
        command_set.number(command, command_set.MESSAGE_ID)
        report = dimse.event_report(self._facts, message.context, command, bytes(message.kept.data))
        self._respond(message, command_set.event_report_response(command, self._handlers.report(report)))

    def _act(self, message: Message) -> None:
        command = message.command
        command_set.number(command, command_set.MESSAGE_ID)
        request = dimse.action_request(self._facts, message.context, command, bytes(message.kept.data))
        answer = self._handlers.act(request)
        self._respond(message, command_set.action_response(command, answer.status))
        event = answer.event() if answer.event is not None else None
        if event is not None:
            self._send_event(message.context_id, event)

    def _send_event(self, context_id: int, event: EventToSend) -> None:
        self._message_id = self._message_id % _LAST_MESSAGE_ID + 1
        self._told[self._message_id] = event.told
        command = command_set.event_report_request(
            self._message_id, event.sop_class_uid, event.sop_instance_uid, event.event_type
        )
        most = self._agreement.peer_pdu_max_bytes
        self._wire.write(
            pdu.encode_fragments(context_id, True, command, most)
            + pdu.encode_fragments(context_id, False, event.data, most)
        )

    def _reported(self, message: Message) -> None:
        """The answer to an event of ours. One that nobody asked for is no reason to lose an association."""
        answered = command_set.number(message.command, command_set.MESSAGE_ID_RESPONDED_TO)
        tell = self._told.pop(answered, None)
        if tell is not None:
            tell(command_set.number(message.command, command_set.STATUS) == SUCCESS)

    def _nothing(self, message: Message) -> None:
        pass

    def _respond(self, message: Message, encoded: bytes) -> None:
        most = self._agreement.peer_pdu_max_bytes
        self._wire.write(pdu.encode_fragments(message.context_id, True, encoded, most))


def _begin_store(
    handlers: Handlers, facts: AssociationFacts, context: AcceptedContext, command: Command
) -> InstanceSink:
    return handlers.begin(dimse.store_request(facts, context, command))


# Not bound to an association: a cycle would keep its buffer until the next full collection.
_SERVE: Final[dict[int, Callable[[Association, Message], None]]] = {
    command_set.C_STORE_RQ: Association._store,
    command_set.C_ECHO_RQ: Association._echo,
    command_set.N_EVENT_REPORT_RQ: Association._report,
    command_set.N_ACTION_RQ: Association._act,
    command_set.N_EVENT_REPORT_RSP: Association._reported,
    command_set.C_CANCEL_RQ: Association._nothing,  # of an operation that is answered already
}

"""An association of the engine on pynetdicom: what is taken from the library, and what is replaced."""

import socket
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import structlog
from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE
from pynetdicom.transport import AddressInformation

from scp.network import command_set, dimse
from scp.network.engine import AssociationFacts, Ending, InstanceSink, printable
from scp.network.negotiation import AcceptedContext, negotiated, refused_context
from scp.network.pdu import AbortReason
from scp.network.policy import Refusal
from scp.network.pynetdicom_parts import BoundedSocket, KeptMessage, MonotonicTimer, StoreMessage, StreamingDimse

if TYPE_CHECKING:
    from scp.network.pynetdicom_engine import PynetdicomEngine

log = structlog.get_logger()


class AcceptedAssociation(Association):
    """An association of ours. Its thread answers messages, its DUL thread reads the socket."""

    dimse: StreamingDimse

    def __init__(self, engine: "PynetdicomEngine", connection: socket.socket, peer: Any) -> None:
        super().__init__(engine.ae, MODE_ACCEPTOR)
        self.engine = engine
        self.name = "scp-association"
        self.association_id = uuid.uuid4().hex
        self.peer_address = str(peer[0])
        self.counted = False
        self.was_accepted = False
        self.serving = False
        self._abort_reason: AbortReason | None = None
        self.dimse = StreamingDimse(self, self._begin)
        self.dul.daemon = True
        self.dul._idle_timer = MonotonicTimer(engine.settings.network_timeout_s)
        self.dul.artim_timer = MonotonicTimer(engine.settings.acse_timeout_s)
        self.bounded = BoundedSocket(self, connection)
        self.set_socket(self.bounded)
        self._introduce(engine, connection, peer)
        self.bind(evt.EVT_REQUESTED, self._on_requested)
        self.bind(evt.EVT_ACCEPTED, self._on_accepted)
        self.bind(evt.EVT_ACSE_RECV, self._on_acse)
        self.bind(evt.EVT_ASYNC_OPS, lambda event: (1, 1))  # whatever was asked for: one message at a time

    def _introduce(self, engine: "PynetdicomEngine", connection: socket.socket, peer: Any) -> None:
        self.acceptor.maximum_length = engine.settings.max_pdu_bytes
        self.acceptor.ae_title = engine.settings.ae_title
        self.acceptor.address_info = AddressInformation.from_tuple(connection.getsockname())
        self.acceptor.implementation_class_uid = engine.ae.implementation_class_uid
        self.acceptor.implementation_version_name = engine.ae.implementation_version_name
        self.acceptor.supported_contexts = engine.contexts  # read only: never copied
        self.requestor.address_info = AddressInformation.from_tuple(peer)

    @property
    def is_idle(self) -> bool:
        busy = self.serving or self.dimse.is_receiving or not self.dimse.msg_queue.empty()
        return not busy and self.dul.to_provider_queue.empty()

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        finally:
            self._close()

    def _close(self) -> None:
        self.bounded._shutdown_socket()
        self.dul.kill_dul()
        self.dul.join(5.0)
        self.dimse.abandon()
        self.engine.ended(self)

    def end(self) -> None:
        """Abort without waiting; the thread ends by itself."""
        self.ends_for(AbortReason.STOPPING)
        if not self.was_accepted:  # its state machine knows no abort yet: as if the peer had gone
            if self.dul.to_user_queue.empty():
                self.dul.to_user_queue.put(A_ABORT())
        elif not self._sent_abort:
            self._abort_blocking(block=False)
        elif self.dul.to_provider_queue.empty():
            self._kill = True

    def _serve_request(self, msg: Any, context_id: int) -> None:
        self.serving = True
        try:
            if isinstance(msg, StoreMessage):
                answer = msg.sink.commit()
                self.dimse.respond(context_id, command_set.store_response(msg.command, answer))
            elif isinstance(msg, KeptMessage) and msg.is_action:
                self._act(msg)
            elif isinstance(msg, KeptMessage):
                report = dimse.event_report(self.facts, self._context(context_id), msg.command, bytes(msg.data))
                status = self.engine.handlers.report(report)
                self.dimse.respond(context_id, command_set.event_report_response(msg.command, status))
            else:
                super()._serve_request(msg, context_id)
        finally:
            self.serving = False

    def _act(self, msg: KeptMessage) -> None:
        request = dimse.action_request(self.facts, self._context(msg.context_id), msg.command, bytes(msg.data))
        answer = self.engine.handlers.act(request)
        self.dimse.respond(msg.context_id, command_set.action_response(msg.command, answer.status))
        event = answer.event() if answer.event is not None else None
        if event is not None:
            event.told(False)  # pynetdicom's acceptor would wait for the answer in the thread that takes it

    def _context(self, context_id: int) -> AcceptedContext:
        """KeyError for a context that was not accepted: the association is aborted."""
        context = self._accepted_cx[context_id]
        return AcceptedContext(str(context.abstract_syntax), str(context.transfer_syntax[0]))

    def _begin(self, context_id: int, command: dict[int, bytes]) -> InstanceSink:
        return self.engine.handlers.begin(dimse.store_request(self.facts, self._context(context_id), command))

    @property
    def calling_ae_title(self) -> str:
        """As it came, with its padding: what the association was counted under."""
        request = self.requestor.primitive
        return request.calling_ae_title or "" if isinstance(request, A_ASSOCIATE) else ""

    @property
    def facts(self) -> AssociationFacts:
        request = self.requestor.primitive
        assert request is not None
        return AssociationFacts(
            association_id=self.association_id,
            calling_ae_title=(request.calling_ae_title or "").strip(),
            called_ae_title=(request.called_ae_title or "").strip(),
            peer_address=self.peer_address,
        )

    def _on_requested(self, event: Any) -> None:
        request = self.requestor.primitive
        if not isinstance(request, A_ASSOCIATE):  # the peer aborted or went away instead
            self.is_aborted = True
        elif self._may_enter(request):
            return
        self.kill()

    def _may_enter(self, request: A_ASSOCIATE) -> bool:
        """pynetdicom would swallow what is raised here, and accept."""
        try:
            return self.engine.requested(self, request)
        except Exception:  # a fault of ours: the peer is told, and comes again
            log.error("connection_failed", exc_info=True, peer=self.peer_address)
            self.acse.send_reject(*Refusal.TEMPORARY_CONGESTION.answer)
            return False

    def _on_accepted(self, event: Any) -> None:
        self.bounded.pdu_max_bytes = self.engine.settings.max_pdu_bytes
        self.bounded.pdu_timeout_s = self.engine.settings.dimse_timeout_s
        if self.bounded.socket is not None:
            self.bounded.socket.settimeout(self.engine.settings.dimse_timeout_s)
        self.was_accepted = True
        request = self.requestor.primitive
        assert isinstance(request, A_ASSOCIATE)
        proposed = {context.context_id: context for context in request.presentation_context_definition_list}
        refused = tuple(
            refused_context(
                str(context.abstract_syntax), proposed[context.context_id].transfer_syntax, context.result or 0
            )
            for context in self._rejected_cx
        )
        negotiated(self.engine.handlers, self.facts, refused)

    def _on_acse(self, event: Any) -> None:
        if isinstance(event.primitive, A_ABORT):
            self.ends_for(AbortReason.PEER)

    def ends_for(self, reason: AbortReason) -> None:
        """The first reason is the one that counts."""
        if self._abort_reason is None:
            self._abort_reason = reason

    def cut_off(self, reason: AbortReason, said: Mapping[str, str | int]) -> None:
        """Somebody has to hear of it."""
        self.ends_for(reason)
        log.warning(
            "association_aborted",
            reason=reason.value,
            association_id=self.association_id,
            calling_ae_title=printable(self.calling_ae_title),
            peer=self.peer_address,
            **said,
        )

    @property
    def abort_reason(self) -> AbortReason:
        return self._abort_reason or AbortReason.LOST

    @property
    def ending(self) -> Ending:
        if self.is_released:
            return Ending.RELEASED
        return Ending.ABORTED if self.abort_reason is AbortReason.PEER else Ending.CUT

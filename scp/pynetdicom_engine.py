"""The network engine on pynetdicom's upper layer, hardened (scp/pynetdicom_parts.py)."""

import gc
import logging
import socket
import threading
import time
import uuid
from typing import Any, Final

import structlog
from pynetdicom import AE, _config, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationServer, RequestHandler

from config.settings import ReceiveSettings
from scp import command_set, metrics, part10
from scp.contexts import COMMITMENT_PUSH_MODEL, EXPLICIT_LITTLE, IMPLICIT_LITTLE, VERIFICATION
from scp.engine import (
    AssociationFacts,
    AssociationPolicy,
    Begin,
    EventReport,
    InstanceSink,
    Report,
    StoreRequest,
    printable,
)
from scp.pynetdicom_parts import BoundedSocket, EventMessage, MonotonicTimer, StoreMessage, StreamingDimse, tune

log = structlog.get_logger()

LISTEN_BACKLOG: Final = 128
COLLECT_EVERY_S: Final = 30.0  # dead associations are cycles
SPARE_CONNECTIONS: Final = 32  # above the association limit, so that the limit can be answered by a rejection


class PynetdicomEngine:
    """scp.engine.Engine: one accepting thread, two threads per association."""

    def __init__(self, settings: ReceiveSettings, policy: AssociationPolicy, begin: Begin, report: Report) -> None:
        _config.LOG_HANDLER_LEVEL = "none"  # the standard handlers take a lock for every PDU
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its messages quote values from the wire
        self.settings = settings
        self.policy = policy
        self.begin = begin
        self.report = report
        self.stopping = False
        self.ae = _application_entity(settings)
        self.contexts = [_context(uid, syntaxes) for uid, syntaxes in policy.contexts.items()]
        self._echo_contexts = [context for context in self.contexts if context.abstract_syntax == VERIFICATION]
        self._report_contexts = [_report_context()]
        self._lock = threading.Lock()
        self._live: set[AcceptedAssociation] = set()
        self._established = 0
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="scp-accept", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        if self._server is None:
            raise RuntimeError("the engine is not started")
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def stop(self, grace_s: float) -> None:
        if self._server is None or self._thread is None or self.stopping:
            return
        self.stopping = True
        super(AssociationServer, self._server).shutdown()
        self._server.server_close()
        self._thread.join()
        deadline = time.monotonic() + grace_s
        while self._live_now() and time.monotonic() < deadline:
            for association in self._live_now():
                if association.is_idle:
                    association.end()
            time.sleep(0.01)
        for association in self._live_now():
            association.end()
        until = time.monotonic() + 2.0
        while self._live_now() and time.monotonic() < until:
            time.sleep(0.01)

    # --- called by the server and the associations ---

    def has_room(self) -> bool:
        with self._lock:
            return len(self._live) < self.policy.max_associations + SPARE_CONNECTIONS

    def contexts_for(self, request: A_ASSOCIATE) -> list[PresentationContext]:
        """What is negotiated with this peer: storage, the answers to our requests for storage commitment, or both."""
        titles = request.calling_ae_title or "", request.called_ae_title or ""
        contexts = self.contexts if self.policy.may_store(*titles) else self._echo_contexts
        return contexts + self._report_contexts if self.policy.may_report(*titles) else contexts

    def _live_now(self) -> list["AcceptedAssociation"]:
        with self._lock:
            return list(self._live)

    def connected(self, association: "AcceptedAssociation") -> None:
        with self._lock:
            self._live.add(association)

    def requested(self, association: "AcceptedAssociation", request: A_ASSOCIATE) -> bool:
        """Ask the policy; reject, or count the association in."""
        with self._lock:
            refusal = self.policy.refusal(
                request.calling_ae_title or "", request.called_ae_title or "", self._established
            )
            if refusal is None:
                self._established += 1
                association.counted = True
        if refusal is None:
            association.acceptor.supported_contexts = self.contexts_for(request)
            return True
        metrics.ASSOCIATIONS_REJECTED.labels(refusal.name.lower()).inc()
        log.warning(
            "association_rejected",
            reason=refusal.name.lower(),
            calling_ae_title=printable(request.calling_ae_title or ""),
            called_ae_title=printable(request.called_ae_title or ""),
            peer=association.peer_address,
        )
        association.acse.send_reject(*refusal.value)
        return False

    def ended(self, association: "AcceptedAssociation") -> None:
        with self._lock:
            self._live.discard(association)
            self._established -= association.counted
        if association.counted:
            metrics.ASSOCIATIONS_OPEN.dec()
            if not association.is_released:
                metrics.ASSOCIATIONS_ABORTED.inc()


class AcceptedAssociation(Association):
    """An association of ours. Its thread answers messages, its DUL thread reads the socket."""

    dimse: StreamingDimse

    def __init__(self, engine: PynetdicomEngine, connection: socket.socket, peer: Any) -> None:
        super().__init__(engine.ae, MODE_ACCEPTOR)
        self.engine = engine
        self.name = "scp-association"
        self.association_id = uuid.uuid4().hex
        self.peer_address = str(peer[0])
        self.counted = False
        self.serving = False
        self.dimse = StreamingDimse(self, self._begin)
        self.dul.daemon = True
        self.dul._idle_timer = MonotonicTimer(engine.settings.network_timeout_s)
        self.dul.artim_timer = MonotonicTimer(engine.settings.acse_timeout_s)
        self.bounded = BoundedSocket(self, connection)
        self.set_socket(self.bounded)
        self._introduce(engine, connection, peer)
        self.bind(evt.EVT_REQUESTED, self._on_requested)
        self.bind(evt.EVT_ACCEPTED, self._on_accepted)
        self.bind(evt.EVT_ASYNC_OPS, lambda event: (1, 1))  # whatever was asked for: one message at a time

    def _introduce(self, engine: PynetdicomEngine, connection: socket.socket, peer: Any) -> None:
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
        if not self._sent_abort:
            self._abort_blocking(block=False)
        elif self.dul.to_provider_queue.empty():
            self._kill = True

    def _serve_request(self, msg: Any, context_id: int) -> None:
        self.serving = True
        try:
            if isinstance(msg, StoreMessage):
                answer = msg.sink.commit()
                self.dimse.respond(context_id, command_set.store_response(msg.command, answer))
            elif isinstance(msg, EventMessage):
                status = self.engine.report(self._event_report(msg))
                self.dimse.respond(context_id, command_set.event_report_response(msg.command, status))
            else:
                super()._serve_request(msg, context_id)
        finally:
            self.serving = False

    def _begin(self, context_id: int, command: dict[int, bytes]) -> InstanceSink:
        """KeyError for a context that was not accepted: the association is aborted."""
        context = self._accepted_cx[context_id]
        return self.engine.begin(
            StoreRequest(
                association=self._facts(),
                abstract_syntax_uid=str(context.abstract_syntax),
                transfer_syntax_uid=str(context.transfer_syntax[0]),
                sop_class_uid=command_set.uid(command, command_set.AFFECTED_SOP_CLASS_UID),
                sop_instance_uid=command_set.uid(command, command_set.AFFECTED_SOP_INSTANCE_UID),
                message_priority=command_set.number(command, command_set.PRIORITY, default=0),
            )
        )

    def _event_report(self, message: EventMessage) -> EventReport:
        return EventReport(
            association=self._facts(),
            transfer_syntax_uid=str(self._accepted_cx[message.context_id].transfer_syntax[0]),
            sop_class_uid=command_set.uid(message.command, command_set.AFFECTED_SOP_CLASS_UID),
            event_type=command_set.number(message.command, command_set.EVENT_TYPE_ID, default=0),
            data=bytes(message.data),
        )

    def _facts(self) -> AssociationFacts:
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
        elif self.engine.requested(self, request):
            return
        self.kill()

    def _on_accepted(self, event: Any) -> None:
        self.bounded.pdu_max_bytes = self.engine.settings.max_pdu_bytes
        self.bounded.pdu_timeout_s = self.engine.settings.dimse_timeout_s
        if self.bounded.socket is not None:
            self.bounded.socket.settimeout(self.engine.settings.dimse_timeout_s)
        metrics.ASSOCIATIONS_ACCEPTED.inc()
        metrics.ASSOCIATIONS_OPEN.inc()
        for context in self._rejected_cx:
            metrics.CONTEXTS_REFUSED.labels("abstract_syntax" if context.result == 3 else "transfer_syntax").inc()


class _Handler(RequestHandler):
    server: "_Server"

    def handle(self) -> None:
        engine = self.server.engine
        tune(self.request, engine.settings.acse_timeout_s)
        association = AcceptedAssociation(engine, self.request, self.client_address)
        association._server = self.server
        engine.connected(association)
        association.start()


class _Server(AssociationServer):
    """Accepts in one thread; an association gets its own threads, so nothing here ever waits for a peer."""

    request_queue_size = LISTEN_BACKLOG

    def __init__(self, engine: PynetdicomEngine) -> None:
        self.engine = engine
        self._collected_at = time.monotonic()
        settings = engine.settings
        super().__init__(
            engine.ae, (settings.host, settings.port), settings.ae_title, engine.contexts, request_handler=_Handler
        )

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Close what may not connect, before a thread is spent on it."""
        reason = None
        if not self.engine.policy.admits_peer(client_address[0]):
            reason = "network"
        elif not self.engine.has_room():
            reason = "connections"
        if reason is not None:
            metrics.CONNECTIONS_REFUSED.labels(reason).inc()
        return reason is None

    def service_actions(self) -> None:
        if time.monotonic() - self._collected_at > COLLECT_EVERY_S:
            self._collected_at = time.monotonic()
            gc.collect()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.error("connection_failed", exc_info=True)


def _application_entity(settings: ReceiveSettings) -> AE:
    ae = AE(ae_title=settings.ae_title)
    ae.implementation_class_uid = part10.IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = part10.IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = settings.max_pdu_bytes
    ae.maximum_associations = 1_000_000  # the policy counts
    ae.acse_timeout = settings.acse_timeout_s
    ae.dimse_timeout = settings.dimse_timeout_s
    ae.network_timeout = settings.network_timeout_s
    return ae


def _report_context() -> PresentationContext:
    """The peer is SCP here although it requests the association: SCP/SCU role selection (PS3.7 D.3.3.4), where it
    asks for one. pynetdicom's acceptor: (scu_role, scp_role) that the requestor is granted."""
    context = _context(COMMITMENT_PUSH_MODEL, (EXPLICIT_LITTLE, IMPLICIT_LITTLE))
    context.scu_role, context.scp_role = False, True
    return context


def _context(abstract_syntax: str, transfer_syntaxes: tuple[str, ...]) -> PresentationContext:
    """pynetdicom's acceptor goes through its own list in order and takes the first that the peer proposed, so this
    order is the preference (presentation.negotiate_as_acceptor)."""
    context = PresentationContext()
    context.abstract_syntax = abstract_syntax
    for syntax in transfer_syntaxes:
        context.add_transfer_syntax(syntax)
    return context

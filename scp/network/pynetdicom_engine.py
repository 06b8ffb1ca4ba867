"""The network engine on pynetdicom's upper layer, hardened (scp/network/pynetdicom_parts.py)."""

import errno
import gc
import logging
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

import structlog
from pynetdicom import AE, _config
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AssociationServer, RequestHandler

from config.settings import ReceiveSettings
from scp import metrics, part10
from scp.network import descriptors
from scp.network.engine import Surroundings, printable
from scp.network.negotiation import ContextTables
from scp.network.pdu import tune
from scp.network.policy import Refusal
from scp.network.pynetdicom_association import AcceptedAssociation

log = structlog.get_logger()

LISTEN_BACKLOG: Final = 1024
COLLECT_EVERY_S: Final = 30.0  # dead associations are cycles
BREATHE_S: Final = 0.2  # after accept() failed for want of descriptors
SPARE_CONNECTIONS: Final = 32  # above the association limit, so that the limit can be answered by a rejection


class PynetdicomEngine:
    """scp.network.engine.Engine: one accepting thread, two threads per association."""

    def __init__(self, settings: ReceiveSettings, surroundings: Surroundings) -> None:
        _config.LOG_HANDLER_LEVEL = "none"  # the standard handlers take a lock for every PDU
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its messages quote values from the wire
        self.settings = settings
        self.surroundings = surroundings
        self.policy = surroundings.policy
        self.handlers = surroundings.handlers
        self.stopping = False
        self.ae = _application_entity(settings)
        self._tables = ContextTables(self.policy)
        self.contexts = self._tables.storage
        self._most = self.policy.max_associations
        self._lock = threading.Lock()
        self._established = 0
        self._live: set[AcceptedAssociation] = set()
        self._securing = 0  # connections in the middle of a TLS handshake
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._most = descriptors.room(self.policy.max_associations).associations
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="scp-accept", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        if self._server is None:
            raise RuntimeError("the engine is not started")
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def drain(self, grace_s: float) -> None:
        self._accept_no_more()
        deadline = time.monotonic() + grace_s
        while (self._live_now() or self._securing) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _accept_no_more(self) -> None:
        if self._server is not None and self._thread is not None:
            super(AssociationServer, self._server).shutdown()
            self._server.server_close()
            self._thread.join()
            self._thread = None

    def stop(self, grace_s: float) -> None:
        if self._server is None or self.stopping:
            return
        self.stopping = True
        self._accept_no_more()
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
            return len(self._live) + self._securing < self._most + SPARE_CONNECTIONS

    def securing(self, more: int) -> None:
        """A TLS handshake begins (1) or is over (-1): the connection counts for has_room meanwhile."""
        with self._lock:
            self._securing += more

    def _live_now(self) -> list["AcceptedAssociation"]:
        with self._lock:
            return list(self._live)

    def connected(self, association: "AcceptedAssociation") -> None:
        with self._lock:
            self._live.add(association)

    def requested(self, association: "AcceptedAssociation", request: A_ASSOCIATE) -> bool:
        """Ask the policy; reject, or count the association in."""
        calling, called = request.calling_ae_title or "", request.called_ae_title or ""
        refusal = self.policy.unproven(calling, association.bounded.socket, association.peer_address)
        if refusal is None:
            refusal = self.surroundings.occupancy.enter(calling, partial(self._refusal, calling, called))
        if refusal is None:
            association.counted = True
            with self._lock:
                self._established += 1
            association.acceptor.supported_contexts = self._tables.of(self._tables.kind(calling, called))
            return True
        metrics.ASSOCIATIONS_REJECTED.labels(refusal.name.lower()).inc()
        log.warning(
            "association_rejected",
            reason=refusal.name.lower(),
            calling_ae_title=printable(calling),
            called_ae_title=printable(called),
            peer=association.peer_address,
        )
        self.handlers.rejected(calling, called, refusal)
        if refusal.is_alarming:
            self.handlers.turned_away(association.peer_address, calling, refusal.name.lower())
        association.acse.send_reject(*refusal.answer)
        return False

    def _refusal(self, calling: str, called: str, in_all: int, of_this_ae: int) -> Refusal | None:
        refusal = self.policy.refusal(calling, called, in_all, of_this_ae)
        return Refusal.LOCAL_LIMIT if refusal is None and self._established >= self._most else refusal

    def ended(self, association: "AcceptedAssociation") -> None:
        with self._lock:
            self._live.discard(association)
            self._established -= association.counted
        if association.counted:
            self.surroundings.occupancy.leave(association.calling_ae_title)
        if association.was_accepted:
            metrics.ASSOCIATIONS_OPEN.dec()
            if not association.is_released:
                metrics.ASSOCIATIONS_ABORTED.labels(association.abort_reason.value).inc()
            self.handlers.ended(association.facts, association.ending)


class _Handler(RequestHandler):
    server: "_Server"

    def handle(self) -> None:
        engine = self.server.engine
        self.request.settimeout(engine.settings.acse_timeout_s)
        tune(self.request)
        if engine.surroundings.secure is None:
            self._associate(self.request)
            return
        engine.securing(1)
        args = (engine.surroundings.secure,)
        try:
            threading.Thread(target=self._secure, args=args, name="scp-handshake", daemon=True).start()
        except RuntimeError:  # no thread to be had: socketserver closes what was accepted
            engine.securing(-1)
            raise

    def _secure(self, secure: Callable[[socket.socket], socket.socket]) -> None:
        try:
            self._associate(secure(self.request))
        except OSError:
            self.request.close()  # why is told by who could not secure it
        finally:
            self.server.engine.securing(-1)

    def _associate(self, connection: socket.socket) -> None:
        engine = self.server.engine
        if engine.stopping:
            connection.close()
            return
        association = AcceptedAssociation(engine, connection, self.client_address)
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

    def server_bind(self) -> None:
        listener = self.engine.surroundings.listener
        if listener is None:
            super().server_bind()
            return
        cast(socket.socket, self.socket).close()
        self.socket = listener
        listener.setblocking(False)  # another process may have taken what select() saw
        self.server_address = listener.getsockname()

    def server_activate(self) -> None:
        if self.engine.surroundings.listener is None:
            super().server_activate()

    def server_close(self) -> None:
        """Without the shutdown() of pynetdicom's, which would deafen every process that shares the socket."""
        cast(socket.socket, self.socket).close()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Nothing that spins where no descriptor is left for what waits to be accepted."""
        try:
            return cast(tuple[socket.socket, Any], super().get_request())
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                metrics.CONNECTIONS_REFUSED.labels("descriptors").inc()
                time.sleep(BREATHE_S)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Close what may not connect, before a thread is spent on it."""
        reason = None
        if not self.engine.policy.admits_peer(client_address[0]):
            reason = "network"
            self.engine.handlers.turned_away(str(client_address[0]), "", "address")
        elif not self.engine.has_room():
            reason = "connections"
        if reason is not None:
            metrics.CONNECTIONS_REFUSED.labels(reason).inc()
        return reason is None

    def service_actions(self) -> None:
        self.engine.surroundings.accepts()
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

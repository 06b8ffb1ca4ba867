"""A connection of the native engine, from its acceptance to its end, in a thread of its own."""

import _thread
import socket
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from scp import metrics
from scp.network import pdu
from scp.network.associate import AssociateRequest, decode_request, encode_accept, encode_reject
from scp.network.engine import AssociationFacts, printable
from scp.network.native_association import Association
from scp.network.negotiation import PROTOCOL_VERSION, PROTOCOL_VERSION_NOT_SUPPORTED, Agreement
from scp.network.pdu import AbortReason, AssociationEnded
from scp.network.policy import Refusal

if TYPE_CHECKING:
    from scp.network.native_engine import NativeEngine

log = structlog.get_logger()

TLS_HANDSHAKE: Final = b"\x16"  # the type of a TLS record (RFC 8446 5.1), of no PDU
SPEAKS_TLS: Final = "it speaks TLS, this port does not: switch TLS off at the sender, or on here (receive.tls.enabled)"
HTTP_METHODS: Final = (b"GET ", b"HEAD ", b"POST ", b"OPTION", b"PUT ", b"CONNEC")


class Connection:
    """Other threads may call `drain` and `cut`. idle: its thread waits for the next message, and may be woken."""

    def __init__(self, engine: "NativeEngine", connection: socket.socket, peer_address: str) -> None:
        self._engine = engine
        self.settings = engine.settings
        self._socket = connection
        self.peer_address = peer_address
        self.draining = False
        self.idle = False
        self._born = False  # its thread runs; one that finds no memory for its first step never does
        self._counted: str | None = None  # the calling AE title that it was counted under

    def start(self) -> None:
        """Not by threading.Thread: its start() waits for the new thread's first step, which may find no memory."""
        _thread.start_new_thread(self._run, ())

    def drain(self) -> None:
        """End once the message under way, if any, is answered."""
        self.draining = True
        if self.idle:
            self._wake()

    def cut(self) -> None:
        """End now, as far as a thread can be made to."""
        self.draining = True
        self._wake()
        if not self._born:
            self._end()

    def _wake(self) -> None:
        """A read that waits returns. SSLSocket.shutdown would take the cipher from under the other thread."""
        with suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RD)

    # --- its own thread ---

    def _run(self) -> None:
        self._born = True
        try:
            wire = self._open()
            if wire is not None:
                self._live(wire)
        except Exception:
            log.error("connection_failed", exc_info=True)
        finally:
            self._end()

    def _end(self) -> None:
        with suppress(OSError):
            self._socket.close()
        self.leave()
        self._engine.closed(self)

    def _open(self) -> pdu.Wire | None:
        settings = self.settings
        try:
            pdu.tune(self._socket)
            self._socket.settimeout(settings.acse_timeout_s)
            if self._engine.surroundings.secure is not None:
                self._socket = self._engine.surroundings.secure(self._socket)
            wire = pdu.Wire(self._socket, settings.max_pdu_bytes, settings.min_bytes_per_s)
            wire.set_deadlines(settings.acse_timeout_s, settings.acse_timeout_s)
        except OSError:
            metrics.CONNECTIONS_REFUSED.labels("tls" if self._engine.surroundings.secure else "lost").inc()
            return None
        return wire

    def _live(self, wire: pdu.Wire) -> None:
        try:
            request = self._read_request(wire)
            agreement = self._agree(wire, request)
            if agreement is None:
                return
            wire.write(encode_accept(request, agreement.items))
        except AssociationEnded as ended:
            self._never_associated(wire, ended)
            return
        except Exception:  # a fault of ours: the peer is told, and comes again
            log.error("connection_failed", exc_info=True, peer=self.peer_address)
            self._never_associated(wire, AssociationEnded(AbortReason.INTERNAL, pdu.NOT_SPECIFIED))
            return
        wire.set_deadlines(self.settings.network_timeout_s, self.settings.dimse_timeout_s)
        Association(self._engine.surroundings.handlers, self, wire, _facts(request, self.peer_address), agreement).run()

    def _read_request(self, wire: pdu.Wire) -> AssociateRequest:
        kind, body = wire.read(False)
        if kind == pdu.ABORT:
            raise AssociationEnded(AbortReason.PEER, None)
        if kind != pdu.ASSOCIATE_RQ:
            raise AssociationEnded(AbortReason.UNEXPECTED_PDU, pdu.USER)
        try:
            return decode_request(body)
        except ValueError:
            raise AssociationEnded(AbortReason.MALFORMED_REQUEST, pdu.INVALID_VALUE) from None

    def _agree(self, wire: pdu.Wire, request: AssociateRequest) -> Agreement | None:
        """What was agreed, the association counted in; None: rejected."""
        if request.protocol_version != PROTOCOL_VERSION:
            wire.farewell(encode_reject(*PROTOCOL_VERSION_NOT_SUPPORTED))
            return None
        titles = request.calling_ae_title, request.called_ae_title
        policy = self._engine.policy
        refusal = policy.unproven(titles[0], self._socket, self.peer_address)
        refusal = refusal or policy.refusal(*titles, 0)  # a stranger's contexts are not worth the work
        if refusal is None:
            try:
                agreement = self._engine.negotiator.agree(request)
            except ValueError:
                raise AssociationEnded(AbortReason.MALFORMED_REQUEST, pdu.INVALID_VALUE) from None
            refusal = self._engine.enter(self, *titles)
        if refusal is None:
            self._counted = request.calling_ae_title
            return agreement
        self._reject(wire, request, refusal)
        return None

    def _reject(self, wire: pdu.Wire, request: AssociateRequest, refusal: Refusal) -> None:
        metrics.ASSOCIATIONS_REJECTED.labels(refusal.name.lower()).inc()
        log.warning(
            "association_rejected",
            reason=refusal.name.lower(),
            calling_ae_title=printable(request.calling_ae_title),
            called_ae_title=printable(request.called_ae_title),
            peer=self.peer_address,
        )
        titles = request.calling_ae_title, request.called_ae_title
        handlers = self._engine.surroundings.handlers
        handlers.rejected(*titles, refusal)
        if refusal.is_alarming:
            handlers.turned_away(self.peer_address, request.calling_ae_title, refusal.name.lower())
        wire.farewell(encode_reject(*refusal.answer))

    def _never_associated(self, wire: pdu.Wire, ended: AssociationEnded) -> None:
        """A probe that connects and goes away without a word is nobody's business."""
        self.leave()
        if wire.opening or ended.reason is not AbortReason.LOST:
            metrics.CONNECTIONS_REFUSED.labels(ended.reason.value).inc()
            if not self.draining:  # whoever cut it has said why
                self._engine.strangers.warn(self.peer_address, ended.reason.value, **self._hint(wire.opening))
        too_late = ended.reason in (AbortReason.IDLE, AbortReason.PDU_DEADLINE)  # AA-2: closed without a word
        wire.farewell(pdu.encode_abort(*ended.answer) if ended.answer and not too_late else None)

    def _hint(self, opening: bytes) -> dict[str, str]:
        """What the first bytes tell of a peer that does not speak DICOM."""
        if opening[:1] == TLS_HANDSHAKE and self._engine.surroundings.secure is None:
            return {"hint": SPEAKS_TLS}
        return {"hint": "it speaks HTTP"} if opening.startswith(HTTP_METHODS) else {}

    def leave(self) -> None:
        """No longer counted: before the peer is told, so that it finds its place free when it comes again."""
        calling, self._counted = self._counted, None
        if calling is not None:
            self._engine.leave(self, calling)


def _facts(request: AssociateRequest, peer_address: str) -> AssociationFacts:
    return AssociationFacts(
        association_id=uuid.uuid4().hex,
        calling_ae_title=request.calling_ae_title.strip(),
        called_ae_title=request.called_ae_title.strip(),
        peer_address=peer_address,
    )

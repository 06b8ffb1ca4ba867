"""An association that we open: to store results with a destination, to ask in one of the DICOM ways what it holds, or
to tell a sender what we keep."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from config.settings import DeliverSettings
from ledger.errors import PermanentError
from sr_writer.answers import keep_answers
from sr_writer.bounded_socket import Limits
from sr_writer.errors import Unreachable
from sr_writer.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from sr_writer.peer import Peer
from sr_writer.secure import client_context, why_not
from sr_writer.statuses import class_name, rejection

_config.LOG_RESPONSE_IDENTIFIERS = False  # an answer to a query may name a patient
_config.LOG_REQUEST_IDENTIFIERS = False
_TRANSIENT = 2  # result of A-ASSOCIATE-RJ

T = TypeVar("T")


class NotOffered(PermanentError):
    """The destination does not talk to us, or not about this, until somebody changes something; the text says what."""


class BrokeOff(Unreachable):
    """The destination took the association and broke off at the request itself."""


def insisting(ask: Callable[[], T], destination: Peer, what: str) -> T:
    """`ask`, and once more on a new association when the destination breaks off at the request.

    One that takes the association again and breaks off again is there and does not want to be asked: some archives say
    so of a calling AE title that they do not know. Raises NotOffered then; what `ask` raises otherwise.
    """
    try:
        return ask()
    except BrokeOff:
        pass
    try:
        return ask()
    except BrokeOff:
        raise NotOffered(
            f"{destination.key} breaks off when {destination.calling_ae_title} asks it for {what}: "
            "make this AE title known there and allow it to ask."
        ) from None


@contextmanager
def asking(
    destination: Peer,
    settings: DeliverSettings,
    sop_class_uid: str,
    handlers: Sequence[evt.EventHandlerType] = (),
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Iterator[Association]:
    """An association with one accepted context for `sop_class_uid`; released at the end. roles: where ours is not SCU.

    Raises Unreachable (later it may work) and NotOffered (it will not, until somebody changes something there).
    """
    context = build_context(sop_class_uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    association = associate(destination, settings, [context], handlers, roles)
    try:
        if not association.accepted_contexts:
            raise NotOffered(f"{destination.key} does not offer {class_name(sop_class_uid)}.")
        yield association
    finally:
        if association.is_established:
            association.release()


def associate(
    destination: Peer,
    settings: DeliverSettings,
    contexts: list[PresentationContext],
    handlers: Sequence[evt.EventHandlerType] = (),
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Association:
    """An association that was accepted, perhaps without a single context; then it has ended already.

    Raises Unreachable (later it may work) and NotOffered (rejected for good).
    """
    ae = AE(ae_title=destination.calling_ae_title)
    ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = settings.connect_timeout_s
    ae.acse_timeout = settings.connect_timeout_s
    ae.dimse_timeout = settings.response_timeout_s
    ae.network_timeout = settings.response_timeout_s
    connected: list[evt.Event] = []
    rejections: list[A_ASSOCIATE_RJ] = []
    secured = client_context(destination.tls, destination.key) if destination.tls.enabled else None
    limits = Limits(destination.key, settings.connect_timeout_s, settings.response_timeout_s)
    try:
        association = ae.associate(
            destination.host,
            destination.port,
            contexts=contexts,
            ae_title=destination.ae_title,
            ext_neg=list(roles),
            tls_args=(secured, destination.host) if secured else None,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, limits.take),
                (evt.EVT_CONN_OPEN, connected.append),
                (evt.EVT_PDU_RECV, _keep_rejection, [rejections]),
                *handlers,
            ],
        )
    except (OSError, UnicodeError) as error:  # its name means nothing, or this process may have no such socket
        why = getattr(error, "strerror", "") or type(error).__name__
        raise Unreachable(f"no connection to {destination.key}: {why}.") from None
    if association.is_established or association.rejected_contexts:
        limits.stands()
        keep_answers(association, destination.key, settings.response_timeout_s, limits)
        return association
    if secured is not None and secured.failure is not None:
        raise Unreachable(f"{destination.key}: {why_not(secured.failure)}.")
    if limits.reason:
        raise Unreachable(f"{destination.key} {limits.reason} when it was asked for an association.")
    raise _no_association(rejections, destination, bool(connected))


def _no_association(rejections: Sequence[A_ASSOCIATE_RJ], destination: Peer, connected: bool) -> Exception:
    for answer in rejections:
        source, reason = int(answer.source or 0), int(answer.reason_diagnostic or 0)
        if answer.result != _TRANSIENT:
            return NotOffered(rejection(source, reason, destination))
        return Unreachable(f"{destination.key} is busy ({source}/{reason}); it is tried again.")
    if connected:
        perhaps = "; it may not accept our certificate" if destination.tls.enabled else ""
        return Unreachable(f"{destination.key} broke off or did not answer the association request{perhaps}.")
    return Unreachable(f"no connection to {destination.key}: check host, port and network.")


def _keep_rejection(event: evt.Event, rejections: list[A_ASSOCIATE_RJ]) -> None:
    """As it comes in. pynetdicom itself forgets one that came, with the end of the connection, before it waited."""
    if isinstance(event.pdu, A_ASSOCIATE_RJ):
        rejections.append(event.pdu)

"""An association with a destination: to store results there, or to ask in one of the DICOM ways what it holds."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from config.settings import DeliverSettings, Destination
from ledger.errors import PermanentError
from sr_writer.errors import Unreachable
from sr_writer.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from sr_writer.statuses import class_name, rejection

_config.LOG_RESPONSE_IDENTIFIERS = False  # an answer to a query may name a patient
_config.LOG_REQUEST_IDENTIFIERS = False
_TRANSIENT = 2  # result of A-ASSOCIATE-RJ

T = TypeVar("T")


class NotOffered(PermanentError):
    """The destination does not talk to us, or not about this, until somebody changes something; the text says what."""


class BrokeOff(Unreachable):
    """The destination took the association and broke off at the request itself."""


def insisting(ask: Callable[[], T], destination: Destination, what: str) -> T:
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
    destination: Destination,
    settings: DeliverSettings,
    sop_class_uid: str,
    handlers: Sequence[evt.EventHandlerType] = (),
) -> Iterator[Association]:
    """An association with one accepted context for `sop_class_uid`; released at the end.

    Raises Unreachable (later it may work) and NotOffered (it will not, until somebody changes something there).
    """
    context = build_context(sop_class_uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    association = associate(destination, settings, [context], handlers)
    try:
        if not association.accepted_contexts:
            raise NotOffered(f"{destination.key} does not offer {class_name(sop_class_uid)}.")
        yield association
    finally:
        if association.is_established:
            association.release()


def associate(
    destination: Destination,
    settings: DeliverSettings,
    contexts: list[PresentationContext],
    handlers: Sequence[evt.EventHandlerType] = (),
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
    association = ae.associate(
        destination.host,
        destination.port,
        contexts=contexts,
        ae_title=destination.ae_title,
        evt_handlers=[(evt.EVT_CONN_OPEN, _without_delay), (evt.EVT_CONN_OPEN, connected.append), *handlers],
    )
    if association.is_established or association.rejected_contexts:
        return association
    raise _no_association(association, destination, bool(connected))


def _no_association(association: Association, destination: Destination, connected: bool) -> Exception:
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        source, reason = int(answer.result_source or 0), int(answer.diagnostic or 0)
        if answer.result != _TRANSIENT:
            return NotOffered(rejection(source, reason, destination))
        return Unreachable(f"{destination.key} is busy ({source}/{reason}); it is tried again.")
    if connected:
        return Unreachable(f"{destination.key} broke off or did not answer the association request.")
    return Unreachable(f"no connection to {destination.key}: check host, port and network.")


def _without_delay(event: evt.Event) -> None:
    """Small PDUs leave at once: Nagle and delayed acknowledgement together cost 40 ms an object."""
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

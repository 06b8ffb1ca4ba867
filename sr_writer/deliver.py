"""Deliver: stored objects to one destination by C-STORE, byte for byte as they are kept.

Of objects that say the same (a choice) the destination gets one: the accepted form with the smallest preference.
pynetdicom's own `send_c_store` decodes and encodes again; here the stored data set goes into the request as it lies.
Implicit VR Little Endian is offered beside the syntax of the file (PS3.5 10.1), and spoken where nothing else is
accepted: the same elements with the same values, written without their VRs.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from io import BytesIO

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from config.settings import DeliverSettings, Destination
from ledger.delivery_records import NOT_GONE, DeliveryOutcome, DeliveryState
from ledger.records import StoredObject, TriagePriority
from ledger.store import Store
from sr_writer.association import NotOffered, associate
from sr_writer.bounded_socket import reason_of
from sr_writer.errors import NotNow, NotProven, Unreachable
from sr_writer.implicit_vr import in_implicit_vr
from sr_writer.statuses import class_name, context_refusal, negotiation, sentence, state_of

OnOutcome = Callable[[DeliveryOutcome], None]
Prove = Callable[[StoredObject, bytes], None]  # right before a send; raises NotProven, NotNow
Begin = Callable[[Sequence[StoredObject]], None]  # an association was taken, and these will go over it
Forms = tuple[StoredObject, ...]  # of one choice, the preferred first; an object without a choice is alone
Contexts = dict[tuple[str, str], PresentationContext]  # accepted ones by (SOP class UID, transfer syntax UID)

_MEDIUM, _HIGH = 0, 1  # (0000,0700), PS3.7 9.3.1.1
_PREFIX = 132  # preamble and "DICM"
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"


class DamagedObject(Exception):
    """The stored file is not what was stored."""


class _Ended(Enum):
    """How a round on one association ended."""

    DONE = auto()
    ABORTED = auto()  # the peer broke off: the next object may do better on a new association
    SILENT = auto()  # no answer in time, or none that can be taken: nothing more is tried now


def data_set_bytes(content: bytes, sha256: str) -> bytes:
    """The encoded data set of a Part 10 file: everything after group 0002. Raises DamagedObject."""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedObject
    if content[128:_PREFIX] != b"DICM" or content[_PREFIX : _PREFIX + 8] != _GROUP_LENGTH:
        raise DamagedObject
    length = int.from_bytes(content[_PREFIX + 8 : _PREFIX + 12], "little")
    return content[_PREFIX + 12 + length :]


def forms_of(objects: Sequence[StoredObject]) -> list[Forms]:
    """What is to be sent, most urgent first, then in the order it was made."""
    choices: dict[tuple[int, str], list[StoredObject]] = {}
    for item in sorted(objects, key=lambda item: (item.priority.rank, item.object_id)):
        choices.setdefault((item.report_id, item.choice or f"object {item.object_id}"), []).append(item)
    return [tuple(sorted(forms, key=lambda item: (item.preference, item.object_id))) for forms in choices.values()]


def _accepted(item: StoredObject, contexts: Contexts) -> PresentationContext | None:
    """The context in the syntax of the file, else the one in Implicit VR."""
    syntaxes = (item.transfer_syntax_uid, str(ImplicitVRLittleEndian))
    return next((found for syntax in syntaxes if (found := contexts.get((item.sop_class_uid, syntax)))), None)


def _unchecked(item: StoredObject, content: bytes) -> None:
    """Nobody asks for a proof."""


def _unheard(objects: Sequence[StoredObject]) -> None:
    """Nobody wants to know of associations."""


class Sender:
    """Sends to one destination. Holds no connection between calls; safe to use from one thread at a time.

    prove: told of each object and its file's bytes right before they would leave. begin: told of what one association
    is for, once it is there. priority: (0000,0700) of every object, instead of what its report says (PS3.7 9.3.1.1).
    """

    def __init__(
        self,
        destination: Destination,
        settings: DeliverSettings,
        prove: Prove = _unchecked,
        priority: int | None = None,
        begin: Begin = _unheard,
    ) -> None:
        self._destination = destination
        self._settings = settings
        self._prove = prove
        self._priority = priority
        self._begin = begin

    def send(self, objects: Sequence[StoredObject], store: Store, on_outcome: OnOutcome) -> None:
        """Send on one association, most urgent first; `on_outcome` hears of an object once, as soon as it is known.

        Nothing is heard of the other forms of a choice that was accepted or waits, nor of what `prove` puts off.
        An association that the peer breaks off is opened anew for the objects that are left, so that one object a
        destination chokes on does not hold back the others. Raises Unreachable when there is no association at first.
        """
        waiting = forms_of(objects)
        first = True
        while waiting:
            try:
                association = self._associate(waiting)
            except NotOffered as error:
                return self._all(waiting, DeliveryState.REFUSED, str(error), on_outcome)
            except Unreachable as error:
                if first:
                    raise
                return self._all(waiting, DeliveryState.WAITING, str(error), on_outcome)
            first = False
            try:
                self._begin([item for forms in waiting for item in forms])
                ended, waiting = self._round(association, waiting, store, on_outcome)
            finally:
                if association.is_established:
                    association.release()
            if ended is _Ended.SILENT:
                silent = f"{self._destination.key} did not answer what was sent before it."
                return self._all(waiting, DeliveryState.WAITING, silent, on_outcome)
        return None

    def _round(
        self, association: Association, waiting: Sequence[Forms], store: Store, on_outcome: OnOutcome
    ) -> tuple[_Ended, list[Forms]]:
        """Send in order until the association ends; returns how, and what has had no outcome yet."""
        contexts = {(str(c.abstract_syntax), str(c.transfer_syntax[0])): c for c in association.accepted_contexts}
        refused = {str(c.abstract_syntax): c.result or 0 for c in association.rejected_contexts}
        for i, forms in enumerate(waiting):
            outcomes, ended = self._one_of(association, forms, contexts, refused, store)
            for outcome in outcomes:
                on_outcome(outcome)
            if ended is not _Ended.DONE:
                return ended, list(waiting[i + 1 :])
        return _Ended.DONE, []

    def _one_of(
        self, association: Association, forms: Forms, contexts: Contexts, refused: dict[str, int], store: Store
    ) -> tuple[list[DeliveryOutcome], _Ended]:
        """Send the first form that is accepted; a form that is refused for good makes room for the next.

        The outcomes are those of the forms that were tried, or of all when none of them got through.
        """
        outcomes: list[DeliveryOutcome] = []
        for item in forms:
            if (context := _accepted(item, contexts)) is None:
                continue
            try:
                outcome, ended = self._store(association, context, item, store)
            except NotNow:
                return outcomes, _Ended.DONE
            except NotProven as error:
                return [self._stopped(form, str(error)) for form in forms], _Ended.DONE
            outcomes.append(outcome)
            if ended is not _Ended.DONE or outcome.state not in NOT_GONE:
                return outcomes, ended
        tried = {outcome.object_id for outcome in outcomes}
        left = [item for item in forms if item.object_id not in tried]
        reason = context_refusal(left, refused, self._destination)
        outcomes += [
            DeliveryOutcome(item.object_id, DeliveryState.REFUSED, None, reason, negotiation(item, refused))
            for item in left
        ]
        return outcomes, _Ended.DONE

    def _store(
        self, association: Association, context: PresentationContext, item: StoredObject, store: Store
    ) -> tuple[DeliveryOutcome, _Ended]:
        try:
            content = store.read(item.path)
            data = data_set_bytes(content, item.sha256)
        except (FileNotFoundError, DamagedObject):
            reason = "the stored object is missing or damaged here: it was not sent; check the store's disk"
            return self._stopped(item, reason), _Ended.DONE
        except OSError as error:
            reason = f"the stored object cannot be read now ({type(error).__name__}); it is tried again."
            return DeliveryOutcome(item.object_id, DeliveryState.WAITING, None, reason), _Ended.DONE
        self._prove(item, content)
        syntax = context.transfer_syntax[0]
        if syntax != item.transfer_syntax_uid:
            data = in_implicit_vr(data)
        agreed = f"{class_name(item.sop_class_uid)}, {UID(syntax).name}"
        began = time.monotonic()
        status = _c_store(association, context, item, data, self._priority)
        if status is not None:
            text = sentence(status, item.sop_class_uid, self._destination)
            return DeliveryOutcome(item.object_id, state_of(status), status, text, agreed), _Ended.DONE
        silent, cut_off = time.monotonic() - began >= self._settings.response_timeout_s, reason_of(association)
        how = f"did not answer within {self._settings.response_timeout_s:g} s" if silent else "broke off"
        reason = f"{self._destination.key} {cut_off or how} while an object was sent; it is tried again."
        outcome = DeliveryOutcome(item.object_id, DeliveryState.WAITING, None, reason, agreed)
        return outcome, _Ended.SILENT if silent or cut_off else _Ended.ABORTED

    def _associate(self, waiting: Sequence[Forms]) -> Association:
        """An association with contexts for every form, perhaps none accepted. Raises Unreachable, NotOffered."""
        stored = [(item.sop_class_uid, item.transfer_syntax_uid) for forms in waiting for item in forms]
        plain = [(sop_class, str(ImplicitVRLittleEndian)) for sop_class, _ in stored]
        contexts = [build_context(sop_class, syntax) for sop_class, syntax in dict.fromkeys([*stored, *plain])]
        return associate(self._destination, self._settings, contexts)

    @staticmethod
    def _stopped(item: StoredObject, reason: str) -> DeliveryOutcome:
        return DeliveryOutcome(item.object_id, DeliveryState.STOPPED, None, reason)

    @staticmethod
    def _all(waiting: Sequence[Forms], state: DeliveryState, reason: str, on_outcome: OnOutcome) -> None:
        for forms in waiting:
            for item in forms:
                on_outcome(DeliveryOutcome(item.object_id, state, None, reason))


def _c_store(
    association: Association, context: PresentationContext, item: StoredObject, data: bytes, priority: int | None
) -> int | None:
    """One C-STORE with exactly `data` as its data set; the status, or None when there was no valid answer.

    Follows `Association.send_c_store` of pynetdicom 3.0, which has no public way to send encoded bytes. The
    association numbers it, and lets nothing through that answers another one (sr_writer/answers.py).
    """
    request = C_STORE()
    request.AffectedSOPClassUID = item.sop_class_uid
    request.AffectedSOPInstanceUID = item.sop_instance_uid
    said = _HIGH if item.priority is TriagePriority.HIGH else _MEDIUM
    request.Priority = said if priority is None else priority
    request.DataSet = BytesIO(data)
    if context.context_id is None or not association.is_established:
        return None
    association._reactor_checkpoint.clear()  # the reactor must not read our answer
    while not association._is_paused:
        time.sleep(0.0001)
    try:
        association.dimse.send_msg(request, context.context_id)
        _, response = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    if response is None:
        association._handle_no_response()
        return None
    answered = association._check_received_status(response)
    return int(answered.Status) if "Status" in answered else None

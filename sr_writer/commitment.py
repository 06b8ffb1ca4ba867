"""Ask a destination to take responsibility for what it accepted: Storage Commitment Push Model as SCU (PS3.4 J).

Its answer is an N-EVENT-REPORT, on the association that asked or, minutes later, on one of its own to our AE. What we
answer to senders is in sr_writer/commitment_reporting.py.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association

from config.settings import DeliverSettings, Destination
from ledger.commitments import CommitmentAnswer, answer_of
from sr_writer.association import BrokeOff, NotOffered, asking, insisting
from sr_writer.bounded_socket import reason_of
from sr_writer.errors import Unreachable

PUSH_MODEL = "1.2.840.10008.1.20.1"  # SOP class, PS3.4 J.3
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"  # its well-known SOP instance, PS3.4 J.3.5
REPLY_S = 5.0  # for our response to leave; the answer counts without it
_REQUEST = 1  # Action Type ID, PS3.4 J.3.2.1
_SUCCESS, _INVALID_ARGUMENT = 0x0000, 0x0115
_LATER = frozenset({0x0110, 0x0213})  # processing failure, resource limitation

# Failure Reasons (0008,1197), PS3.4 J.3.3.1.1
NO_SUCH_OBJECT = 0x0112
CONFLICT = 0x0119
REASONS = {
    0x0110: "could not process the request for it",
    NO_SUCH_OBJECT: "has no such object",
    CONFLICT: "has an object of another SOP class under its UID: look there for what lies under this UID",
    0x0122: "does not commit to objects of its SOP class",
    0x0131: "calls the transaction a duplicate",
    0x0213: "is short of resources to commit to it",
}

Named = tuple[str, str]  # SOP Class UID, SOP Instance UID


def reason_words(reason: int | None) -> str:
    """What a Failure Reason says of an object; None: the answer does not mention it."""
    if reason is None:
        return "answered without a word on it"
    words = REASONS.get(reason, "does not commit to it and gives no reason that the standard defines")
    return f"{words} (0x{reason:04X})"


def request(
    destination: Destination,
    settings: DeliverSettings,
    transaction_uid: str,
    objects: Sequence[Named],
    wait_s: float,
    on_accepted: Callable[[], None],
) -> CommitmentAnswer | None:
    """Ask once. The answer when it comes on this association within `wait_s`, else None: it may come later.

    on_accepted: called when the destination has taken the request. Raises NotOffered, Unreachable.
    """
    answers: queue.Queue[CommitmentAnswer] = queue.Queue()
    heard, replied = threading.Event(), threading.Event()

    def listen(event: evt.Event) -> tuple[int, None]:
        try:
            answer = answer_of(event.event_information)
        except Exception:  # noqa: BLE001  whatever a peer sends
            return _INVALID_ARGUMENT, None
        if answer.transaction_uid == transaction_uid:
            answers.put(answer)
            heard.set()
        return _SUCCESS, None

    def sent(event: evt.Event) -> None:
        if heard.is_set():
            replied.set()

    handlers: list[evt.EventHandlerType] = [(evt.EVT_N_EVENT_REPORT, listen), (evt.EVT_PDU_SENT, sent)]

    def ask() -> CommitmentAnswer | None:
        with asking(destination, settings, PUSH_MODEL, handlers) as association:
            _act(association, destination, _information(transaction_uid, objects), settings.response_timeout_s)
            on_accepted()
            try:
                answer = answers.get(timeout=wait_s)
            except queue.Empty:
                return None
            replied.wait(REPLY_S)  # a release that overtook our response would leave the destination without it
            return answer

    return insisting(ask, destination, "storage commitment")


def _information(transaction_uid: str, objects: Sequence[Named]) -> Dataset:
    """The Action Information of PS3.4 Table J.3-1."""
    information = Dataset()
    information.TransactionUID = UID(transaction_uid)
    information.ReferencedSOPSequence = []
    for sop_class_uid, sop_instance_uid in objects:
        item = Dataset()
        item.ReferencedSOPClassUID = UID(sop_class_uid)
        item.ReferencedSOPInstanceUID = UID(sop_instance_uid)
        information.ReferencedSOPSequence.append(item)
    return information


def _act(association: Association, destination: Destination, information: Dataset, timeout_s: float) -> None:
    began = time.monotonic()
    answered, _ = association.send_n_action(information, _REQUEST, PUSH_MODEL, PUSH_MODEL_INSTANCE)
    status = answered.get("Status")
    if status is None and (cut_off := reason_of(association)):
        raise Unreachable(f"{destination.key} {cut_off} at a request for storage commitment.")
    if status is None and time.monotonic() - began < timeout_s:
        raise BrokeOff(f"{destination.key} broke off at a request for storage commitment.")
    if status is None:
        raise Unreachable(f"{destination.key} did not answer a request for storage commitment.")
    if status in _LATER:
        raise Unreachable(f"{destination.key} cannot take a request for storage commitment now (0x{status:04X}).")
    if status != _SUCCESS:
        raise NotOffered(f"{destination.key} refused a request for storage commitment (0x{status:04X}).")

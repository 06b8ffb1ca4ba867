"""What an answer of the destination means for us: one table (PS3.4 B.2.3, PS3.7 C), and sentences to act on.

Sentences name AE titles and SOP classes, never the Error Comment of the peer: that may quote a patient.
"""

from collections.abc import Mapping, Sequence

from pydicom.uid import UID

from config.settings import Destination
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.records import StoredObject
from sr_writer.peer import Peer

DUPLICATE_SOP_INSTANCE = 0x0111  # the same UID is there already, and our bytes under a UID never change

_DELIVERED = frozenset({0x0000, 0x0001, 0x0107, 0x0116, DUPLICATE_SOP_INSTANCE})
_LATER = frozenset({0x0110, 0x0210, 0x0213})
_REFUSALS = {
    0x0117: "calls the SOP Instance UID invalid: its UID check must allow the root 2.25 with 44 characters",
    0x0118: "does not know an element it needs: look at its log for {this} {object}",
    0x0119: "says class and instance do not belong together: look for another object under its UID there",
    0x0122: "does not support {this} SOP {class}: enable storage of {this} {class} there",
    0x0124: "does not authorise us: allow storage for our AE title there",
    0x0211: "does not know C-STORE on this connection: check that AE title and port belong to a storage service",
    0x0212: "calls the request mistyped: look at its log for {this} {object}",
}
_PUT_OFF = {
    0x0110: "it failed while it processed it",
    0x0210: "it still has the same message in hand",
    0x0213: "it lacks resources",
}
_OUT_OF_RESOURCES = "out of resources, often a full disk there"  # 0xA7xx
_NO_TRANSFER_SYNTAX = 4
_CONTEXTS = {1: "refused by the user", 2: "refused", 3: "class refused", _NO_TRANSFER_SYNTAX: "transfer syntax refused"}


def state_of(status: int) -> DeliveryState:
    """The whole table; a status nobody defined is refused, so that a person sees it."""
    if status in _DELIVERED or status >> 12 == 0xB:
        return DeliveryState.DELIVERED
    if status in _LATER or status >> 8 == 0xA7:
        return DeliveryState.WAITING
    return DeliveryState.REFUSED


def sentence(status: int, sop_class_uid: str, destination: Destination) -> str:
    """Why an object is where it is; empty for plain success."""
    state, code = state_of(status), f"0x{status:04X}"
    who, what = destination.key, class_name(sop_class_uid)
    if status == DUPLICATE_SOP_INSTANCE:
        return f"{who} already holds this {what} ({code})."
    if state is DeliveryState.DELIVERED:
        return "" if status == 0 else f"{who} stored the {what} with a warning ({code}): it may have changed elements."
    if state is DeliveryState.WAITING:
        return f"{who} cannot take the {what} now ({code}: {_later(status)}); it is tried again."
    return _refusal(status, [what], destination)


def _later(status: int) -> str:
    return _PUT_OFF.get(status, _OUT_OF_RESOURCES)


def refusals(outcomes: Sequence[tuple[StoredObject, DeliveryOutcome]], destination: Destination) -> str:
    """What was refused for good, for a person: each reason once, naming the classes of all objects that met it."""
    met: dict[int, dict[str, None]] = {}
    for stored, outcome in outcomes:
        if outcome.status is not None:
            met.setdefault(outcome.status, {})[class_name(stored.sop_class_uid)] = None
    said = [_refusal(status, list(classes), destination) for status, classes in met.items()]
    said += [outcome.reason for _, outcome in outcomes if outcome.status is None]  # never sent: it names every form
    return " ".join(dict.fromkeys(said))


def _refusal(status: int, classes: Sequence[str], destination: Destination) -> str:
    *others, last = (f"the {name}" for name in classes)
    what = f"{', '.join(others)} and {last}" if others else last
    return f"{destination.key} refused {what} (0x{status:04X}): it {_advice(status, many=bool(others))}."


def _advice(status: int, many: bool) -> str:
    words = {"this": "these", "class": "classes", "object": "objects"}
    return _template(status).format_map(words if many else {word: word for word in words})


def _template(status: int) -> str:
    if status >> 8 == 0xA9:
        return (
            "says the data set does not match the SOP class: check its rules for {this} {class}, then release the "
            "delivery"
        )
    if status >> 12 == 0xC:
        return (
            "cannot understand the data set: look at its log for {this} {object} and check its rules for {this} {class}"
        )
    return _REFUSALS.get(status, "gave no reason that the standard defines: look at its log for {this} {object}")


def class_name(sop_class_uid: str) -> str:
    """ "Enhanced SR Storage" for its UID."""
    return UID(sop_class_uid).name


_REJECTIONS = {
    (1, 1): "gave no reason: check there that our AE title {calling} is registered with this machine's address",
    (1, 2): "does not speak our application context: check that the port belongs to a DICOM service",
    (1, 3): "does not know the calling AE title {calling}: register it there, or change calling_ae_title here",
    (1, 7): "does not answer to the AE title {called}: correct its ae_title here",
    (2, 2): "does not speak our protocol version: check that the port belongs to a DICOM service",
}


def rejection(source: int, reason: int, destination: Peer) -> str:
    """A sentence for A-ASSOCIATE-RJ (PS3.8 9.3.4) by its source and reason."""
    text = _REJECTIONS.get((source, reason), _REJECTIONS[1, 1])
    advice = text.format(calling=destination.calling_ae_title, called=destination.ae_title)
    return f"{destination.key} rejected the association for good ({source}/{reason}): it {advice}."


def negotiation(form: StoredObject, results: Mapping[str, int]) -> str:
    """How the presentation context of an object's class was refused (PS3.8 9.3.3.2)."""
    return f"{class_name(form.sop_class_uid)}, {_CONTEXTS.get(results.get(form.sop_class_uid, 0), 'refused')}"


def context_refusal(forms: Sequence[StoredObject], results: Mapping[str, int], destination: Destination) -> str:
    """A sentence for presentation contexts of which none was accepted (PS3.8 9.3.3.2), naming each form.

    results: of the negotiation, by SOP class UID.
    """
    names = dict.fromkeys(class_name(form.sop_class_uid) for form in forms)
    codes = dict.fromkeys(str(results.get(form.sop_class_uid, 0)) for form in forms)
    advice = "enable storage of this class for our AE title there"
    if len(names) > 1:
        advice = "enable storage of one of these classes for our AE title there"
    if any(results.get(form.sop_class_uid) == _NO_TRANSFER_SYNTAX for form in forms):
        advice = "enable Explicit or Implicit VR Little Endian for it there"
    return (
        f"{destination.key} does not accept {' nor '.join(names)} from {destination.calling_ae_title} "
        f"(result {', '.join(codes)}): {advice}, then release the delivery."
    )

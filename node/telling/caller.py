"""One that calls this node, in words: what came from it, what it did not get, and what to do about that."""

from collections.abc import Iterator

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID

from config import Settings
from ledger.ledger import Ledger
from ledger.peers import OTHERS, Peer, RefusedKind
from node.telling.turned_away import at, said_of_turned_away, when
from scp.callers.habits import ENOUGH_RELEASES, Habits, after_image, after_release
from scp.callers.refused import INVALID
from scp.network.contexts import BIG_ENDIAN, COMMITMENT_PUSH_MODEL, DEFLATED, storage_classes, transfer_syntaxes

_NO_UID = "The caller proposes something that is no UID: a fault of its software."
_NAMELESS = (
    "So many different ones were refused that these were counted without a name: most likely a scanner of ports."
)


def said_of(peer: Peer, ledger: Ledger, settings: Settings) -> Iterator[str]:
    """Lines for a person; an empty one between the parts."""
    associations = _counted(peer.associations, "association", "associations")
    instances = _counted(peer.instances, "instance", "instances")
    yield f"{associations} accepted, {instances} received; first seen {at(peer.first_at)}, last {at(peer.last_at)}"
    yield ""
    yield from said_of_turned_away(ledger.turned_away(peer.calling_ae_title), peer.calling_ae_title, settings)
    yield "When a study from it is complete"
    yield from (f"  {line}" for line in _completeness(peer.calling_ae_title, ledger, settings))
    yield ""
    yield "Refused presentation contexts"
    refused = ledger.refused_of(peer.calling_ae_title)
    if not refused:
        yield "  None: whatever it proposed, it got."
    for kind in refused:
        yield from (f"  {line}" for line in _refused(kind, peer.calling_ae_title, settings))


def _completeness(title: str, ledger: Ledger, settings: Settings) -> Iterator[str]:
    study = settings.study
    habits = Habits(ledger.arrival_gaps().get(title, {}), study.complete_after_max_s)
    yield after_image(study, title, habits).because
    wait = after_release(study, title, habits)
    if wait is not None:
        yield wait.because
    elif not habits.releases_are_known:
        seen = f"{habits.releases} of {ENOUGH_RELEASES}"
        yield f"The release of an association says nothing yet: {seen} that ended a study's images were seen."
    else:
        yield "The release of an association says nothing: too often it sends the rest of a study on another."


def _refused(kind: RefusedKind, title: str, settings: Settings) -> Iterator[str]:
    wanted = ", ".join(uid_name(uid) for uid in kind.transfer_syntaxes)
    what = f"{uid_name(kind.abstract_syntax)} as {wanted}" if wanted else uid_name(kind.abstract_syntax)
    yield f"{what}: {when(kind)}"
    yield f"    {_what_to_do(kind, title, settings)}"


def _what_to_do(kind: RefusedKind, title: str, settings: Settings) -> str:
    if kind.abstract_syntax == OTHERS:
        return _NAMELESS
    if kind.abstract_syntax == INVALID or kind.transfer_syntaxes == (INVALID,):
        return _NO_UID
    if kind.reason == "transfer_syntax":
        return _about_syntaxes(kind.transfer_syntaxes, settings)
    return _about_class(kind.abstract_syntax, title, settings)


def _about_syntaxes(proposed: tuple[str, ...], settings: Settings) -> str:
    taken = set(transfer_syntaxes(settings.receive))
    instead = (
        "in the caller's export settings for this node, choose Explicit VR Little Endian, or a lossless compression"
    )
    if set(proposed) & taken:  # the settings have changed since
        return "This node takes it by now: nothing is to be done."
    for syntaxes, setting in ((DEFLATED, "accept_deflated"), (BIG_ENDIAN, "accept_big_endian")):
        if set(proposed) & set(syntaxes):
            return f"Set receive.{setting} = true; or {instead}."
    return f"No transfer syntax that this node can keep as it came; {instead}."


def _about_class(uid: str, title: str, settings: Settings) -> str:
    allowed = {one.strip() for one in settings.receive.allowed_calling_ae_titles}
    if uid == COMMITMENT_PUSH_MODEL:
        return (
            "It asks us for storage commitment, which is answered only for senders in [[commitment_requestors]]: add "
            "it there if it may delete on our word, or switch the request off at the sender."
        )
    if uid in storage_classes() or uid in settings.receive.private_sop_classes:
        if allowed and title not in allowed:
            return "This AE title may not store here: add it to receive.allowed_calling_ae_titles if it should."
        return "This node takes it by now: nothing is to be done."
    if uid in UID_dictionary:
        return "This node offers no such service; no image is lost by it. Take it out of the caller's settings for us."
    return (
        f'A private SOP class: add "{uid}" to receive.private_sop_classes to take it, or let the sender export a '
        "standard class."
    )


def uid_name(uid: str) -> str:
    """The standard's name of a UID; the UID itself where it has none."""
    return {INVALID: "(no UID)", OTHERS: "(others)"}.get(uid) or (UID(uid).name if uid in UID_dictionary else uid)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"

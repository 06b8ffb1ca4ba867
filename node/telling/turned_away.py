"""Associations that were rejected and instances that were refused, in words, with what to do about each."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

from config import Settings
from config.settings import ReceiveSettings
from ledger.peers import ASSOCIATION, RefusedKind, is_reserved

_BY_NOW: Final = "It would be accepted by now: nothing is to be done."
_THE_LOG: Final = "the log (instance_refused) names each"
_REJECTED: Final = {
    "binding": "The caller did not show the certificate, or did not come from the address, that [[peers]] binds this "
    "AE title to; or his certificate is bound to another title. The audit trail has the addresses. If the sender was "
    "changed, bind its title to what it shows now: `opentriage certs show FILE` prints a certificate's fingerprint and "
    "names. If not, somebody uses a name that is not his.",
    "local_limit": "Too many associations were open at once: raise receive.max_associations or "
    "receive.max_associations_per_ae, or let the sender open fewer and come again.",
    "temporary_congestion": "The disk of the store had failed: look for volume_failed in the log, and at the disk.",
}
_REFUSED: Final = {
    "0xA700": "Out of resources: the disk was nearly full (receive.free_disk_min_bytes), the instance longer than "
    "receive.max_instance_bytes, too much in flight (receive.in_flight_max_bytes), or the store or ledger away; "
    f"{_THE_LOG} with its reason. The sender has to send them again.",
    "0xA900": "The data set is not what its command announced, or lacks a UID: a fault of the sender's software; "
    f"{_THE_LOG}.",
    "0xC000": "The data set is broken, or beyond receive.max_nesting or receive.max_elements. It is in quarantine in "
    "node.state_dir, if there was room: show it to the sender's vendor.",
    "0x0117": f"A UID that is none: a fault of the sender's software; {_THE_LOG}.",
    "0x0122": "The SOP class was not that of the presentation context: a fault of the sender's software.",
    "0x0110": f"A fault of this node; {_THE_LOG}, with where it happened. The sender has to send them again.",
}


def said_of_turned_away(kinds: Iterable[RefusedKind], title: str, settings: Settings) -> Iterator[str]:
    """Lines for a person; nothing where nothing was turned away."""
    found = list(kinds)
    for heading, rejected in (("Rejected associations", True), ("Refused instances", False)):
        part = [kind for kind in found if (kind.abstract_syntax == ASSOCIATION) is rejected]
        if not part:
            continue
        yield heading
        for kind in part:
            yield f"  {kind.reason if not rejected else kind.reason.replace('_', ' ')}: {when(kind)}"
            told = _about_association(kind, title, settings.receive) if rejected else _REFUSED.get(kind.reason, "")
            yield f"      {told or 'The log says why.'}"
        yield ""


def when(kind: RefusedKind) -> str:
    """How often, and from when to when."""
    times = "once" if kind.count == 1 else f"{kind.count} times"
    return f"{times}, first {at(kind.first_at)}, last {at(kind.last_at)}"


def at(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _about_association(kind: RefusedKind, title: str, receive: ReceiveSettings) -> str:
    called, own = " ".join(kind.transfer_syntaxes), receive.ae_title.strip()
    if kind.reason == "called_ae_title":
        if called == own or not receive.require_called_ae_title:
            return _BY_NOW
        asked = f'"{called}"' if called else "something else"
        return f'It called {asked}; this node is "{own}": put that into the sender, or change receive.ae_title.'
    if kind.reason == "calling_ae_title" and is_reserved(title):
        return "Such a name stands for who sends by STOW-RS: give the sender another AE title."
    if kind.reason == "calling_ae_title":
        allowed = {one.strip() for one in receive.allowed_calling_ae_titles}
        if not allowed or title in allowed:
            return _BY_NOW
        return f'If it should send here, add "{title}" to receive.allowed_calling_ae_titles.'
    return _REJECTED.get(kind.reason, "")

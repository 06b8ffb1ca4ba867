"""The node's own calls: a C-ECHO every few seconds proves that it answers, and makes nobody a sender."""

import ipaddress

from config import Settings
from scp.network.engine import AssociationFacts


def own_title(settings: Settings) -> str:
    """By which the node calls itself: one that is let in, and that is not bound to somebody else's certificate."""
    bound = {peer.key for peer in settings.peers}
    allowed = settings.receive.allowed_calling_ae_titles
    free = [title for title in allowed or (settings.receive.ae_title,) if title.strip() not in bound]
    return (free or allowed or (settings.receive.ae_title,))[0]


class OwnCalls:
    """Knows them: by the node's own name, from its own machine. One that brings something is a sender's after all."""

    def __init__(self, settings: Settings) -> None:
        self._title = own_title(settings).strip()
        self._host = settings.receive.host

    def may_be(self, facts: AssociationFacts) -> bool:
        """Whether the association is one of them unless it brings something."""
        return facts.calling_ae_title.strip() == self._title and self._is_here(facts.peer_address)

    def _is_here(self, address: str) -> bool:
        try:
            known = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = getattr(known, "ipv4_mapped", None) or known
        return mapped.is_loopback or address == self._host

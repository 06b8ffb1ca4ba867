"""Who may associate, what is negotiated with them, and why somebody is rejected (PS3.8 9.3.4)."""

import ipaddress
from collections.abc import Callable, Collection, Mapping
from enum import Enum

from config.settings import PeerBinding, ReceiveSettings
from ledger.peers import is_reserved
from scp import metrics
from scp.network.binding import Bindings, is_in, shown_by
from scp.network.contexts import negotiation_table

Reporters = Mapping[str, Collection[str]]  # calling AE title -> the AE titles by which it may call us


class Refusal(Enum):
    """Why an association is rejected. Two reasons of ours may be one of the standard's: see `answer`."""

    CALLING_AE_TITLE = (1, 1, 3)
    BINDING = (1, 1, 3, "the title is another's")
    CALLED_AE_TITLE = (1, 1, 7)
    TEMPORARY_CONGESTION = (2, 3, 1)
    LOCAL_LIMIT = (2, 3, 2)

    @property
    def answer(self) -> tuple[int, int, int]:
        """(result, source, reason) of PS3.8 9.3.4."""
        result, source, reason = self.value[:3]
        return result, source, reason

    @property
    def is_alarming(self) -> bool:
        """Whether somebody was turned away for who he says that he is."""
        return self in (Refusal.CALLING_AE_TITLE, Refusal.BINDING, Refusal.CALLED_AE_TITLE)


for _refusal in Refusal:  # from 0 on (scp.metrics)
    metrics.ASSOCIATIONS_REJECTED.labels(_refusal.name.lower())


class AssociationPolicy:
    """Who may associate and what may be negotiated. Immutable but for the health it asks for.

    reporters: peers that may answer a request for storage commitment on an association of their own, whoever else may
    store here. requestors: AE titles that may ask us to commit, and hear an answer.
    """

    def __init__(
        self,
        settings: ReceiveSettings,
        has_failed: Callable[[], bool],
        reporters: Reporters | None = None,
        requestors: Collection[str] = (),
        peers: Collection[PeerBinding] = (),
    ) -> None:
        self._bindings = Bindings(peers)
        self._has_failed = has_failed
        self._reporters = reporters or {}
        self._requestors = frozenset(requestors)
        self._keeps_lists = settings.keep_stated_lists
        self._called = settings.ae_title.strip() if settings.require_called_ae_title else None
        self._calling = frozenset(title.strip() for title in settings.allowed_calling_ae_titles)
        self._networks = tuple(ipaddress.ip_network(network) for network in settings.allowed_networks)
        self.max_associations = settings.max_associations
        self.max_associations_per_ae = settings.max_associations_per_ae or settings.max_associations
        self.contexts: Mapping[str, tuple[str, ...]] = negotiation_table(settings)

    def admits_peer(self, address: str) -> bool:
        """Whether this IP address may connect at all. Asked before anything is read from it."""
        return not self._networks or is_in(address, self._networks)

    def unproven(self, calling_ae_title: str, connection: object, address: str) -> Refusal | None:
        """Whether this connection may not speak for this AE title. Asked before anything else of the request."""
        if not self._bindings or self._bindings.admit(calling_ae_title, shown_by(connection, address)):
            return None
        return Refusal.BINDING

    def refusal(self, calling_ae_title: str, called_ae_title: str, in_all: int, of_this_ae: int = 0) -> Refusal | None:
        """Why to reject an A-ASSOCIATE-RQ; None accepts. in_all, of_this_ae: established ones, this one not counted."""
        if is_reserved(calling_ae_title):
            return Refusal.CALLING_AE_TITLE
        stranger = self._stranger(calling_ae_title, called_ae_title)
        if stranger is not None and not self.may_report(calling_ae_title, called_ae_title):
            return stranger
        if self._has_failed():
            return Refusal.TEMPORARY_CONGESTION
        if in_all >= self.max_associations or of_this_ae >= self.max_associations_per_ae:
            return Refusal.LOCAL_LIMIT
        return None

    def _stranger(self, calling_ae_title: str, called_ae_title: str) -> Refusal | None:
        if self._called is not None and called_ae_title.strip() != self._called:
            return Refusal.CALLED_AE_TITLE
        if self._calling and calling_ae_title.strip() not in self._calling:
            return Refusal.CALLING_AE_TITLE
        return None

    def may_store(self, calling_ae_title: str, called_ae_title: str) -> bool:
        """Whether storage is negotiated with this peer."""
        return self._stranger(calling_ae_title, called_ae_title) is None

    def may_report(self, calling_ae_title: str, called_ae_title: str) -> bool:
        """Whether this peer, as SCP, may answer requests for storage commitment."""
        return called_ae_title.strip() in self._reporters.get(calling_ae_title.strip(), ())

    def may_request(self, calling_ae_title: str, called_ae_title: str) -> bool:
        """Whether this peer, as SCU, may ask us for storage commitment: who may store, for what it lists is worth
        knowing even where we commit to nothing."""
        asks = self._keeps_lists or calling_ae_title.strip() in self._requestors
        return asks and self.may_store(calling_ae_title, called_ae_title)

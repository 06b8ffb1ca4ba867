"""The seam to the network. An engine speaks PS3.8 and PS3.7; what may happen is decided behind these few types.

An engine is handed an AssociationPolicy, a `begin` and a `report`. For each C-STORE-RQ it calls `begin` once the
command set is known, writes every fragment of the data set as it arrives, and sends what `commit` answers. Sinks never
raise: the first failure is kept, later bytes are dropped, and `commit` says what went wrong, so that an engine always
has an answer for the peer. An N-EVENT-REPORT-RQ of at most EVENT_MAX_BYTES goes to `report` whole. One contract suite
(tests/integration/scp) runs over every engine.
"""

import ipaddress
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from config.settings import ReceiveSettings
from scp.contexts import negotiation_table
from scp.status import Answer

EVENT_MAX_BYTES: Final = 1 << 20  # of an N-EVENT-REPORT's data set: thousands of instances


@dataclass(frozen=True)
class AssociationFacts:
    """Who is at the other end. `association_id` is ours and unique for all time."""

    association_id: str
    calling_ae_title: str
    called_ae_title: str
    peer_address: str  # IP address without port


@dataclass(frozen=True)
class StoreRequest:
    """What the command set of a C-STORE-RQ and its presentation context say. UIDs are as sent: not yet trusted."""

    association: AssociationFacts
    abstract_syntax_uid: str
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    message_priority: int  # (0000,0700): 0 MEDIUM, 1 HIGH, 2 LOW


@dataclass(frozen=True)
class EventReport:
    """An N-EVENT-REPORT-RQ. event_type: (0000,1002). data: its encoded data set. Nothing of it is trusted yet."""

    association: AssociationFacts
    transfer_syntax_uid: str
    sop_class_uid: str
    event_type: int
    data: bytes = field(repr=False)


class InstanceSink(Protocol):
    """Takes the data set of one C-STORE. Used by one thread at a time; ended by exactly one of commit and abort."""

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes of the data set. Never raises for a failed write: commit answers for it."""

    def commit(self) -> Answer:
        """All bytes were written. Returns only when they are durable and in the ledger, or refused. Never raises."""

    def abort(self) -> None:
        """The peer went away: forget the bytes. Safe at any time, and after commit."""


Begin = Callable[[StoreRequest], InstanceSink]
Report = Callable[[EventReport], int]  # the status of the N-EVENT-REPORT-RSP; never raises
Reporters = Mapping[str, Collection[str]]  # calling AE title -> the AE titles by which it may call us


def printable(ae_title: str) -> str:
    """A stranger's AE title for the log: at most 16 characters of printable ASCII, the others as "?"."""
    return "".join(c if " " <= c <= "~" else "?" for c in ae_title[:16]).strip()


class Refusal(Enum):
    """Why an association is rejected: (result, source, reason) of PS3.8 9.3.4."""

    CALLING_AE_TITLE = (1, 1, 3)
    CALLED_AE_TITLE = (1, 1, 7)
    TEMPORARY_CONGESTION = (2, 3, 1)
    LOCAL_LIMIT = (2, 3, 2)


class AssociationPolicy:
    """Who may associate and what may be negotiated. Immutable but for the health it asks for.

    reporters: peers that may answer a request for storage commitment on an association of their own, whoever else may
    store here.
    """

    def __init__(
        self, settings: ReceiveSettings, has_failed: Callable[[], bool], reporters: Reporters | None = None
    ) -> None:
        self._has_failed = has_failed
        self._reporters = reporters or {}
        self._called = settings.ae_title.strip() if settings.require_called_ae_title else None
        self._calling = frozenset(title.strip() for title in settings.allowed_calling_ae_titles)
        self._networks = tuple(ipaddress.ip_network(network) for network in settings.allowed_networks)
        self.max_associations = settings.max_associations
        self.contexts: Mapping[str, tuple[str, ...]] = negotiation_table(settings)

    def admits_peer(self, address: str) -> bool:
        """Whether this IP address may connect at all. Asked before anything is read from it."""
        if not self._networks:
            return True
        peer = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(peer, "ipv4_mapped", None)
        return any((mapped or peer) in network for network in self._networks)

    def refusal(self, calling_ae_title: str, called_ae_title: str, open_associations: int) -> Refusal | None:
        """Why to reject an A-ASSOCIATE-RQ; None accepts. open_associations: established ones, this one not counted."""
        stranger = self._stranger(calling_ae_title, called_ae_title)
        if stranger is not None and not self.may_report(calling_ae_title, called_ae_title):
            return stranger
        if self._has_failed():
            return Refusal.TEMPORARY_CONGESTION
        if open_associations >= self.max_associations:
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
        """Whether this peer may answer requests for storage commitment."""
        return called_ae_title.strip() in self._reporters.get(calling_ae_title.strip(), ())


class Engine(Protocol):
    """A network server for one AE title on one port."""

    def start(self) -> None:
        """Listen and serve in the background. Raises OSError when the address cannot be had."""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; known after start."""

    def stop(self, grace_s: float) -> None:
        """Accept nothing new, let messages in progress be answered, end what is left after `grace_s` seconds."""

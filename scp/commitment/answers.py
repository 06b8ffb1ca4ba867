"""Answers to our requests for storage commitment that come on an association of the destination's own (PS3.4 J.3.3).

Only a destination that the settings ask to commit may answer, only to a transaction that it was asked, and only from
where it is: an AE title is a name that anybody can give, and retention deletes on this word. What it says goes to the
ledger; the deliver role, perhaps on another machine, reads it there. Requests that senders make of us are in
scp/commitment/requests.py.
"""

import ipaddress
from collections.abc import Callable, Iterator
from typing import Final

import structlog

from config.settings import Destination, Settings
from ledger.commitments import CommitmentAnswer, Transaction, answer_of
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from scp.admission.structure import Limits
from scp.commitment.information import read_information
from scp.network.binding import is_in
from scp.network.contexts import COMMITMENT_PUSH_MODEL
from scp.network.engine import NO_SUCH_SOP_CLASS, AssociationFacts, EventReport, printable
from scp.status import PROCESSING_FAILURE, SUCCESS

log = structlog.get_logger()

# PS3.7 10.1.1.1.8
NO_SUCH_EVENT_TYPE: Final = 0x0113
INVALID_ARGUMENT: Final = 0x0115
_EVENT_TYPES: Final = (1, 2)  # all committed; some failed (PS3.4 J.3.3.1)
FROM_ELSEWHERE: Final = "commitment_answer"  # what a caller is turned away for, in the audit trail
_CURE: Final = (
    "if that is where this destination calls from, name the address in its answers_from, or bind its AE title to its "
    "certificate in [[peers]]; else somebody answers in its place"
)


class CommitmentAnswers:
    """Takes N-EVENT-REPORTs. Shared by all associations. turned_away: see scp.network.engine.Handlers."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        turned_away: Callable[[str, str, str], None] = lambda peer, calling, reason: None,
    ) -> None:
        self._ledger = ledger
        self._turned_away = turned_away
        self._limits = Limits(settings.receive.max_nesting, settings.receive.max_elements)
        self._destinations: dict[str, dict[str, Destination]] = {}  # AE title -> key ->
        # Whoever uses such a title has shown its certificate: the policy lets nobody else in.
        self._certified = {peer.key for peer in settings.peers if peer.names_certificates}
        self.reporters: dict[str, set[str]] = {}
        for destination in settings.destinations:
            if "commitment" in destination.proof:
                title = destination.ae_title.strip()
                self._destinations.setdefault(title, {})[destination.key] = destination
                ours = self.reporters.setdefault(title, set())
                ours |= {destination.calling_ae_title.strip(), settings.receive.ae_title.strip()}

    def report(self, report: EventReport) -> int:
        """Keep one answer; the status of the response. Never raises."""
        if report.sop_class_uid != COMMITMENT_PUSH_MODEL:
            return NO_SUCH_SOP_CLASS
        if report.event_type not in _EVENT_TYPES:
            return NO_SUCH_EVENT_TYPE
        who = report.association
        said = log.bind(calling_ae_title=printable(who.calling_ae_title), peer=who.peer_address)
        try:
            answer = self._read(report)
        except Exception:  # noqa: BLE001  whatever a stranger sends; its text could quote it
            said.warning("commitment_answer_malformed")
            return INVALID_ARGUMENT
        try:
            return self._keep(answer, who, said)
        except LedgerUnavailable:
            said.error("commitment_answer_not_kept")
            return PROCESSING_FAILURE

    def _read(self, report: EventReport) -> CommitmentAnswer:
        return read_information(report.data, report.transfer_syntax_uid, self._limits, answer_of)

    def _keep(self, answer: CommitmentAnswer, who: AssociationFacts, said: structlog.stdlib.BoundLogger) -> int:
        """Whoever may not answer hears the same as one who answers what nobody asked."""
        asked = self._ledger.commitment_transaction(answer.transaction_uid)
        theirs = self._destinations.get(who.calling_ae_title.strip(), {})
        destination = theirs.get(asked.destination) if asked is not None else None
        if asked is None or destination is None:
            said.warning("commitment_answer_unknown")
            return INVALID_ARGUMENT
        if not self._is_there(destination, asked, who):
            said.warning("commitment_answer_from_elsewhere", destination=destination.key, cure=_CURE)
            self._turned_away(who.peer_address, who.calling_ae_title, FROM_ELSEWHERE)
            return INVALID_ARGUMENT
        if not asked.is_meant_by(answer):
            said.warning("commitment_answer_names_nothing", destination=destination.key)
            return INVALID_ARGUMENT
        if not self._ledger.commitment_answered(answer, [destination.key]):
            said.warning("commitment_answer_unknown")  # it was forgotten meanwhile
            return INVALID_ARGUMENT
        said.info("commitment_answer_kept", committed=len(answer.committed), failed=len(answer.failed))
        return SUCCESS

    def _is_there(self, destination: Destination, asked: Transaction, who: AssociationFacts) -> bool:
        """Whether the caller has shown the destination's certificate, or calls from where the destination is.

        No name is looked up here, where strangers call and no name server may be asked: who asked the destination
        looked it up, and wrote into the ledger what it found.
        """
        if who.calling_ae_title.strip() in self._certified:
            return True
        places = (*destination.answers_from, destination.host, *asked.addresses)
        return is_in(who.peer_address, _networks(places))


def _networks(places: tuple[str, ...]) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Of those that are addresses or networks; names are not."""
    for place in places:
        try:
            network = ipaddress.ip_network(place.partition("%")[0])
        except ValueError:
            continue
        mapped = getattr(network.network_address, "ipv4_mapped", None)
        yield ipaddress.ip_network(mapped) if mapped else network

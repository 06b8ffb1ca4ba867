"""What is agreed with whom: presentation contexts, roles, user items (PS3.8 9.3.3, PS3.7 D.3.3).

The tables are pynetdicom's, made once; the answers are those that its acceptor would give.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeAlias

from pydicom.uid import UID
from pynetdicom.presentation import SCP_SCU_ROLES, PresentationContext

from config.settings import ReceiveSettings
from scp import metrics
from scp.network import associate
from scp.network.associate import ContextResult, ProposedContext, Role
from scp.network.contexts import COMMITMENT_PUSH_MODEL, EXPLICIT_LITTLE, IMPLICIT_LITTLE, VERIFICATION
from scp.network.engine import AssociationFacts, Handlers, RefusedContext
from scp.network.policy import AssociationPolicy

PROTOCOL_VERSION: Final = 1
PROTOCOL_VERSION_NOT_SUPPORTED: Final = (1, 2, 2)  # (result, source, reason) of PS3.8 9.3.4
_ACCEPTED, _USER_REJECTION, _NO_ABSTRACT_SYNTAX, _NO_TRANSFER_SYNTAX = 0, 1, 3, 4

Kind: TypeAlias = tuple[bool, bool, bool]


@dataclass(frozen=True)
class AcceptedContext:
    abstract_syntax_uid: str
    transfer_syntax_uid: str


@dataclass(frozen=True)
class Agreement:
    """The outcome of a negotiation. items: the variable items of the A-ASSOCIATE-AC."""

    accepted: Mapping[int, AcceptedContext]
    refused: tuple[RefusedContext, ...]
    peer_pdu_max_bytes: int  # 0: no limit
    items: bytes


class ContextTables:
    """What may be negotiated with whom, in pynetdicom's terms. Made once; read only."""

    def __init__(self, policy: AssociationPolicy) -> None:
        self._policy = policy
        self.storage = [_context(uid, syntaxes) for uid, syntaxes in policy.contexts.items()]
        echo = [context for context in self.storage if context.abstract_syntax == VERIFICATION]
        self._tables: dict[Kind, list[PresentationContext]] = {
            (store, report, request): (self.storage if store else echo) + _commitment_context(report, request)
            for store, report, request in product((False, True), repeat=3)
        }

    def kind(self, calling_ae_title: str, called_ae_title: str) -> Kind:
        """What this peer may do: store, answer our requests for storage commitment, make such requests of us."""
        titles = calling_ae_title, called_ae_title
        policy = self._policy
        return policy.may_store(*titles), policy.may_report(*titles), policy.may_request(*titles)

    def of(self, kind: Kind) -> list[PresentationContext]:
        return self._tables[kind]

    def kinds(self) -> Iterable[Kind]:
        return self._tables


@dataclass(frozen=True)
class _Offer:
    """What we support of one abstract syntax. roles: what a requestor may be; (None, None): the default roles."""

    transfer_syntax_uids: tuple[str, ...]
    roles: tuple[bool | None, bool | None]


class Negotiator:
    """Answers proposals. Used by many threads."""

    def __init__(self, settings: ReceiveSettings, policy: AssociationPolicy) -> None:
        self._max_pdu_bytes = settings.max_pdu_bytes
        self._tables = ContextTables(policy)
        self._offers = {kind: _offers(self._tables.of(kind)) for kind in self._tables.kinds()}

    def agree(self, request: associate.AssociateRequest) -> Agreement:
        """Raises ValueError for malformed items."""
        proposal = associate.decode_proposal(request.items)
        offers = self._offers[self._tables.kind(request.calling_ae_title, request.called_ae_title)]
        proposed = {(context.context_id, context.abstract_syntax_uid): context for context in proposal.contexts}
        roles: dict[str, Role] = {}
        results = [_answer(context, offers, proposal.roles, roles) for context in proposed.values()]
        results.sort(key=lambda result: result.context_id)
        asks_window = proposal.async_window != (1, 1)
        return Agreement(
            accepted={
                result.context_id: AcceptedContext(result.abstract_syntax_uid, result.transfer_syntax_uid)
                for result in results
                if result.result == _ACCEPTED
            },
            refused=_refused(proposed, results),
            peer_pdu_max_bytes=proposal.pdu_max_bytes,
            items=associate.encode_items(results, roles, self._max_pdu_bytes, asks_window),
        )


def _answer(
    context: ProposedContext, offers: Mapping[str, _Offer], asked: Mapping[str, Role], granted: dict[str, Role]
) -> ContextResult:
    """granted: gets what is answered about roles."""
    uid = context.abstract_syntax_uid
    offer = offers.get(uid)
    syntax, result = context.transfer_syntax_uids[0], _NO_ABSTRACT_SYNTAX
    if offer is not None:
        common = _first_common(offer.transfer_syntax_uids, context.transfer_syntax_uids)
        syntax, result = (syntax, _NO_TRANSFER_SYNTAX) if common is None else (common, _ACCEPTED)
    if offer is not None and result == _ACCEPTED and None not in offer.roles:
        outcome = SCP_SCU_ROLES[asked.get(uid, (None, None))][offer.roles]
        if not outcome[2] and not outcome[3]:
            result = _USER_REJECTION
        elif uid in asked:
            scu, scp = asked[uid]
            granted[uid] = scu and bool(offer.roles[0]), scp and bool(offer.roles[1])
    return ContextResult(context.context_id, uid, syntax, result)


def _first_common(preferred: Sequence[str], proposed: Sequence[str]) -> str | None:
    """Our preference wins."""
    among = set(proposed)
    return next((uid for uid in preferred if uid in among), None)


def _offers(table: Iterable[PresentationContext]) -> dict[str, _Offer]:
    return {
        str(context.abstract_syntax): _Offer(
            tuple(map(str, context.transfer_syntax)), (context.scu_role, context.scp_role)
        )
        for context in table
    }


def _refused(
    proposed: Mapping[tuple[int, str], ProposedContext], results: Iterable[ContextResult]
) -> tuple[RefusedContext, ...]:
    return tuple(
        refused_context(
            result.abstract_syntax_uid,
            proposed[result.context_id, result.abstract_syntax_uid].transfer_syntax_uids,
            result.result,
        )
        for result in results
        if result.result != _ACCEPTED
    )


def refused_context(abstract_syntax_uid: str, transfer_syntax_uids: Iterable[str], result: int) -> RefusedContext:
    reason = "abstract_syntax" if result == _NO_ABSTRACT_SYNTAX else "transfer_syntax"
    return RefusedContext(abstract_syntax_uid, tuple(map(str, transfer_syntax_uids)), reason)


def negotiated(handlers: Handlers, facts: AssociationFacts, refused: tuple[RefusedContext, ...]) -> None:
    """An association was accepted: count it, say what it did not get."""
    metrics.ASSOCIATIONS_ACCEPTED.inc()
    metrics.ASSOCIATIONS_OPEN.inc()
    for context in refused:
        metrics.CONTEXTS_REFUSED.labels(context.reason).inc()
    handlers.negotiated(facts, refused)


def _commitment_context(may_report: bool, may_request: bool) -> list[PresentationContext]:
    """A peer that reports is SCP here although it requests the association: SCP/SCU role selection (PS3.7 D.3.3.4),
    where it asks for one. pynetdicom's acceptor: (scu_role, scp_role) that the requestor is granted."""
    if not may_report and not may_request:
        return []
    context = _context(COMMITMENT_PUSH_MODEL, (EXPLICIT_LITTLE, IMPLICIT_LITTLE))
    context.scu_role, context.scp_role = may_request, may_report
    return [context]


def _context(abstract_syntax: str, transfer_syntaxes: tuple[str, ...]) -> PresentationContext:
    """pynetdicom's acceptor goes through its own list in order and takes the first that the peer proposed, so this
    order is the preference (presentation.negotiate_as_acceptor)."""
    context = PresentationContext()
    context.abstract_syntax = UID(abstract_syntax)
    for syntax in transfer_syntaxes:
        context.add_transfer_syntax(syntax)
    return context

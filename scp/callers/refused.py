"""Associations that were rejected, and presentation contexts that callers proposed and did not get, counted by name:
there most images are lost that a site misses, and no instance was ever sent that could tell of it."""

import threading
from collections.abc import Sequence
from typing import Final

from ledger.peers import ASSOCIATION, Observed, Refusal, nameless
from scp.network.engine import AssociationFacts, RefusedContext, printable
from scp.network.policy import Refusal as Rejection
from scp.uids import is_valid_uid

INVALID: Final = "invalid"  # in the place of what is no UID: nothing from the wire is kept that is not one
CALLERS_MAX: Final = 200
KINDS_MAX: Final = 2_000  # of all callers together, until they are handed over
SYNTAXES_MAX: Final = 16  # of one context
REASONS: Final = ("abstract_syntax", "transfer_syntax")


class RefusedContexts:
    """Shared by all associations of a receiver; handed over in batches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, Observed] = {}
        self._kinds = 0

    def negotiated(self, facts: AssociationFacts, refused: Sequence[RefusedContext]) -> None:
        """An association was accepted, and these contexts of it were not."""
        caller = printable(facts.calling_ae_title)
        with self._lock:
            if caller not in self._seen and len(self._seen) >= CALLERS_MAX:
                return
            seen = self._seen.setdefault(caller, Observed())
            seen.associations += 1
            for context in refused:
                self._count(seen, _kind(context))

    def rejected(self, calling_ae_title: str, called_ae_title: str, refusal: Rejection) -> None:
        """An association was not accepted."""
        caller, reason = printable(calling_ae_title), refusal.name.lower()
        called = printable(called_ae_title) if refusal is Rejection.CALLED_AE_TITLE else ""
        with self._lock:
            if caller in self._seen or len(self._seen) < CALLERS_MAX:
                self._count(self._seen.setdefault(caller, Observed()), (ASSOCIATION, called, reason))

    def take(self) -> dict[str, Observed]:
        """What was counted since this was last asked."""
        with self._lock:
            seen, self._seen, self._kinds = self._seen, {}, 0
        return seen

    def _count(self, seen: Observed, kind: Refusal) -> None:
        if kind not in seen.refused:
            if self._kinds >= KINDS_MAX:
                kind = nameless(kind)
            else:
                self._kinds += 1
        seen.refused[kind] = seen.refused.get(kind, 0) + 1


def _kind(context: RefusedContext) -> Refusal:
    syntaxes = list(dict.fromkeys(_named(uid) for uid in context.transfer_syntax_uids[:SYNTAXES_MAX]))
    reason = context.reason if context.reason in REASONS else REASONS[0]
    return _named(context.abstract_syntax_uid), " ".join(syntaxes), reason


def _named(uid: str) -> str:
    return uid if is_valid_uid(uid) else INVALID

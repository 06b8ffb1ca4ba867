"""Who was turned away for who he is, or is not: counted, and told to the audit trail a few seconds later. A thousand
refusals of one caller are one record with a number, so that nobody fills the trail by knocking."""

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Final

from ledger.audit import AuditEvent, AuditKind, Outcome
from scp.network.engine import printable

KINDS_MAX: Final = 20  # of all callers together, until they are handed over: 350,000 records a day at the very most
OTHERS: Final = "others"


@dataclass(frozen=True)
class _Kind:
    peer: str
    calling_ae_title: str
    reason: str


class Alerts:
    """Shared by all connections of a receiver. Never raises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: Counter[_Kind] = Counter()

    def turned_away(self, peer: str, calling_ae_title: str, reason: str) -> None:
        """calling_ae_title: empty where it did not come so far."""
        kind = _Kind(peer, printable(calling_ae_title), reason)
        with self._lock:
            if kind not in self._seen and len(self._seen) >= KINDS_MAX:
                kind = _Kind(OTHERS, "", reason)
            self._seen[kind] += 1

    def take(self) -> list[AuditEvent]:
        """What was counted since this was last asked, as records."""
        with self._lock:
            seen, self._seen = self._seen, Counter()
        return [_event(kind, count) for kind, count in seen.items()]


def _event(kind: _Kind, count: int) -> AuditEvent:
    actor = f"ae:{kind.calling_ae_title}" if kind.calling_ae_title else "node:receive"
    detail = {"what": "turned_away", "reason": kind.reason, "count": count}
    return AuditEvent(AuditKind.SECURITY_ALERT, actor, peer=kind.peer, outcome=Outcome.MINOR_FAILURE, detail=detail)

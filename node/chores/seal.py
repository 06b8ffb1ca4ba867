"""Seals the audit trail within a second, and takes the heads of the chain out of the ledger."""

import contextlib
import threading
import time
from pathlib import Path

import structlog

from config import Settings
from ledger.audit import AuditEvent, AuditKind, Outcome
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.sealing import Head
from node import log_events, notices
from node.logging import describe
from node.periodic import Periodically
from node.running.outage import OUTAGE
from node.trail import heads

EVERY_S = 0.5
HEAD_EVERY_S = 10.0  # a head in the file at most so often
LOG_EVERY_S = 60.0  # and in the log
LOOK_AGAIN_S = 10.0  # whether what contradicted the chain was put away
NOTICE = "audit"  # to the other roles, of which none may read the file of heads
LOOK_BACK_S = 600.0  # PostgreSQL: how often records are looked for that were committed long after younger ones
LOOK_BACK = 200_000  # and among how many: all of them would be read for it


def run(settings: Settings, ledger: Ledger, stop: threading.Event) -> None:
    """Until `stop` is set. The file of heads is written by whoever seals: in a node of many machines on that one."""
    sealer = Sealer(ledger, heads.heads_file(settings))
    try:
        sealer.look_at_heads()
        told: dict[str, float] = {}
        while not stop.wait(EVERY_S):
            sealer.once()
            sealer.look_whether_mended()
            if told != (now := sealer.says()):
                notices.publish(settings, NOTICE, **now)
                told = now
    finally:
        sealer.export()


class Sealer:
    """Seals what waits; in memory it keeps only where to look."""

    def __init__(self, ledger: Ledger, heads: Path) -> None:
        self._ledger = ledger
        self._heads = heads
        self._above = 0
        self._recent: list[tuple[float, int]] = []  # (monotonic time, youngest record sealed by then)
        self._last: Head | None = None
        self._exported = 0
        self._exported_at = 0.0  # when the last exported head was sealed, in seconds since 1970
        self.broken = 0  # the exported head that the chain does not have
        self._looked_into = (0, 0)  # the file in which that was found
        self.unexported_since = 0.0  # of time.time(): the file of heads cannot be written
        self._look_again, self._say_why = Periodically(LOOK_AGAIN_S), Periodically(LOG_EVERY_S)
        self._look_back = Periodically(LOOK_BACK_S)
        self._head_due, self._log_due = Periodically(HEAD_EVERY_S), Periodically(LOG_EVERY_S)

    def says(self) -> dict[str, float]:
        """What the other roles are told."""
        known = {"exported": self._exported, "exported_at": self._exported_at}
        return {"broken": self.broken, "unexported_since": self.unexported_since} | known

    def once(self) -> None:
        """Seal all that waits now."""
        try:
            above = self._from()
            while (head := self._ledger.seal_audit(above)) is not None:
                self._last = head
            if self._last is not None and self._last.sequence > self._exported and self._head_due.due():
                self.export()
            OUTAGE.back()
        except LedgerUnavailable as error:
            OUTAGE.away(error)

    def _from(self) -> int:
        """Records below this number are sealed, or will be found when it is looked further back.

        A transaction takes its number when it writes and shows it when it commits: a minute covers all but a stuck one.
        """
        now, youngest = time.monotonic(), self._ledger.highest_sealed()
        if self._ledger.seals_in_order:
            return youngest
        if self._look_back.due():
            return max(0, youngest - LOOK_BACK)
        self._recent.append((now, youngest))
        while len(self._recent) > 1 and self._recent[1][0] < now - 60.0:
            self._recent.pop(0)
        return self._recent[0][1]

    def export(self) -> None:
        """The newest head into the file and, now and then, into the log."""
        log, head = structlog.get_logger(), self._last
        if head is None or head.sequence <= self._exported:
            return
        try:
            heads.append(self._heads, head, self._ledger.installation_uid)
        except OSError as error:  # a full disk, a share that is away: sealing goes on, the next head says as much
            self.unexported_since = self.unexported_since or time.time()
            if self._say_why.due():
                log.error(log_events.AUDIT_HEAD_NOT_EXPORTED, error=describe(error))
            return
        self.unexported_since = 0.0
        self._exported, self._exported_at = head.sequence, head.sealed_at
        if self._log_due.due():
            log.info(log_events.AUDIT_HEAD, sequence=head.sequence, digest=head.digest)

    def look_at_heads(self) -> None:
        """What was exported last must be in the chain still: else its end was cut off, or an older ledger restored."""
        try:
            self._looked_into = heads.which_file(self._heads)
            self.broken = self._contradicted()
            if self.broken:
                self._ledger.audit(broken(self.broken))
                structlog.get_logger().critical(log_events.AUDIT_CHAIN_BROKEN, sequence=self.broken)
        except (LedgerUnavailable, OSError) as error:
            structlog.get_logger().error(log_events.AUDIT_HEADS_UNREAD, error=describe(error))

    def look_whether_mended(self) -> None:
        """An alarm lasts until a person has put the file of heads away, whatever is exported into it meanwhile."""
        if self.broken and self._look_again.due():
            with contextlib.suppress(LedgerUnavailable, OSError):
                if (now := heads.which_file(self._heads)) != self._looked_into:
                    self.broken, self._looked_into = self._contradicted(), now

    def _contradicted(self) -> int:
        """The number of the newest exported head that the chain does not have, else 0."""
        found = heads.newest(self._heads)
        for known in found:  # not the last alone: a restored ledger has exported others since
            if self._ledger.audit_seal(known.sequence) != known.digest:
                return known.sequence
        if found and found[0].sequence > self._exported:  # by an earlier run
            self._exported, self._exported_at = found[0].sequence, found[0].at
        return 0


def broken(sequence: int) -> AuditEvent:
    """The trail says of itself that it was tampered with; what was found stands in the file of heads for good."""
    detail = {"did": "found_chain_broken", "sequence": sequence}
    return AuditEvent(AuditKind.SECURITY_ALERT, "node:keep", outcome=Outcome.MAJOR_FAILURE, detail=detail)

"""Senders hear what we keep of what they sent (Storage Commitment, PS3.4 J.3.3): one thread for each of
[[commitment_requestors]] inside the deliver role, for whatever was not confirmed on the association that asked.

A sender that is away is tried again at growing intervals, for a day; then its request is parked, and tried once more
when the sender has been reached again.
"""

import threading

from config import Settings
from config.settings import CommitmentRequestor
from ledger.commitment_requests import HeldRequest
from ledger.errors import LeaseLost
from ledger.ledger import Ledger
from ledger.promises import Judgement
from node import log_events
from node.roles.outward import POLL_S, Loop
from sr_writer import backoff, commitment_reporting
from sr_writer.association import NotOffered
from sr_writer.errors import Unreachable

DAY_S = 86_400.0
_CONFIRMED = frozenset({0x0000, 0x0107, 0x0116})  # success and the warnings of PS3.7 10.1.1.1.8
UNNAMED = "The settings do not name its sender among [[commitment_requestors]] any more."


class Committer(Loop):
    """The loop of one sender."""

    kind = "requestor"
    unreachable = log_events.REQUESTOR_UNREACHABLE

    def __init__(
        self, ledger: Ledger, settings: Settings, requestor: CommitmentRequestor, stop: threading.Event
    ) -> None:
        super().__init__(ledger, settings.deliver, requestor.key, stop)
        self._requestor = requestor

    def _once(self) -> None:
        held = self._ledger.claim_commitment(self._requestor.ae_title.strip(), self._owner, self._settings.lease_s)
        if held is None:
            self._ledger.wait_for_commitments(POLL_S)
            return
        try:
            self._tell(held)
        except LeaseLost:
            self._log.warning(log_events.JOB_DROPPED, commitment_request=held.request_id)

    def _tell(self, held: HeldRequest) -> None:
        judgement = self._ledger.judge_commitment(held, self._requestor.retention_days * DAY_S)
        assert judgement is not None  # it may take as long as it takes
        if judgement.damaged:
            self._log.error(log_events.COMMITMENT_FILE_DAMAGED, **judgement.alarm())
        try:
            status = commitment_reporting.report(self._requestor, self._settings, judgement.result)
        except (Unreachable, NotOffered) as error:
            delay_s = self._not_there(error)
            self._put_off(held, str(error), 0.0)  # due at once: this thread is what waits
            self._stop.wait(delay_s)
            return
        self._failures = 0
        self._answered(held, judgement, status)

    def _answered(self, held: HeldRequest, judgement: Judgement, status: int) -> None:
        if status in _CONFIRMED:
            self._ledger.commitment_told(held, status)
            result = judgement.result
            self._log.info(log_events.COMMITMENT_TOLD, instances=len(result.judged), failed=result.failed)
            return
        reason = f"{self._key} did not confirm what it was told (0x{status:04X}): look at its log."
        self._put_off(held, reason, backoff.delay_s(held.attempt, self._settings), status)

    def _put_off(self, held: HeldRequest, reason: str, delay_s: float, status: int | None = None) -> None:
        if self._ledger.put_off_commitment(held, reason, delay_s, status):
            self._log.error(log_events.COMMITMENT_PARKED, transaction_uid=held.transaction_uid, reason=reason)


def park_unnamed(ledger: Ledger, settings: Settings) -> int:
    """Give up requests of senders that the settings do not name any more; how many."""
    return ledger.park_unknown_commitments([one.ae_title.strip() for one in settings.commitment_requestors], UNNAMED)

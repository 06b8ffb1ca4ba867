"""The loop of every stage: claim under a lease, work, finish; repeat until told to stop.

An unknown error is retried a few times, then the job is parked for a person. Work that kills its process is parked by
the ledger, which counts attempts at the claim and hands out alone what was tried before.
"""

import errno
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from inference.errors import ModelsGone
from ledger.errors import LeaseLost, LedgerUnavailable, OpenTriageError, PermanentError
from ledger.ledger import Ledger
from ledger.records import Job, Stage
from ledger.store import VolumeFailed
from node import log_events
from node.logging import describe
from node.periodic import Periodically
from node.running.lease import LeaseKeeper
from node.running.outage import OUTAGE

POLL_S = 1.0  # the fallback: a commit wakes us first
EXPIRE_EVERY_S = 2.0
RETRY_DELAY_S = 1.0
SYSTEM_SHORT_S = 5.0
SYSTEM_SHORT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS})


@dataclass
class Worker:
    """One stage's loop in this process. `work` gets every claimed job and finishes each one itself."""

    ledger: Ledger
    stage: Stage
    owner: str
    lease_s: float
    max_attempts: int
    batch_max: int
    work: Callable[[Sequence[Job], LeaseKeeper], None]
    stop: threading.Event
    on_poisoned: Callable[[Job, str], None] | None = None
    tried: bool | None = None  # False: what was claimed before is for another worker
    _expire: Periodically = field(default_factory=lambda: Periodically(EXPIRE_EVERY_S))

    def run(self) -> None:
        """Loop until `stop`. Raises VolumeFailed: nothing may be made durable any more; and ModelsGone."""
        log = structlog.get_logger()
        while not self.stop.is_set():
            try:
                self._once()
                OUTAGE.back()
            except (VolumeFailed, ModelsGone):
                raise
            except LedgerUnavailable as error:
                OUTAGE.away(error)
                self.stop.wait(POLL_S)
            except Exception:
                log.error(log_events.LOOP_FAILED, stage=self.stage.value, exc_info=True)
                self.stop.wait(POLL_S)

    def _once(self) -> None:
        if self._expire.due() and (expired := self.ledger.expire_leases(self.max_attempts)):
            structlog.get_logger().warning(log_events.LEASES_EXPIRED, count=expired)
        jobs = self.ledger.claim(self.stage, self.owner, self.batch_max, self.lease_s, tried=self.tried)
        if not jobs:
            self.ledger.wait(self.stage, POLL_S, tried=self.tried)
            return
        self._work(jobs)

    def _work(self, jobs: Sequence[Job]) -> None:
        with LeaseKeeper(self.ledger, jobs, self.lease_s) as keeper:
            try:
                self.work(jobs, keeper)
            except (VolumeFailed, LedgerUnavailable, ModelsGone):
                raise  # the leases run out and somebody tries again
            except LeaseLost:
                structlog.get_logger().warning(log_events.JOB_DROPPED, stage=self.stage.value)
            except Exception as error:  # noqa: BLE001  loop top: one job's trouble is not another's
                if len(jobs) == 1:
                    self.fail(jobs[0], error)
                    return
                for job in jobs:
                    self._work([job])

    def fail(self, job: Job, error: Exception) -> None:
        """Try `job` again later, or park it when that is useless or has been tried often enough."""
        log = structlog.get_logger().bind(job_id=job.job_id, stage=self.stage.value, attempt=job.attempt)
        reason = str(error) if isinstance(error, OpenTriageError) else f"unexpected error: {describe(error)}"
        try:
            if isinstance(error, OSError) and error.errno in SYSTEM_SHORT:  # the machine's trouble, not the job's
                log.error(log_events.JOB_RETRIED, reason=reason)
                self.ledger.retry(job, reason, SYSTEM_SHORT_S)
            elif isinstance(error, PermanentError) or job.attempt >= self.max_attempts:
                log.error(log_events.JOB_PARKED, reason=reason, exc_info=error)
                self._park(job, reason)
            else:
                log.warning(log_events.JOB_RETRIED, reason=reason, exc_info=error)
                self.ledger.retry(job, reason, RETRY_DELAY_S * 2 ** (job.attempt - 1))
        except LeaseLost:
            log.warning(log_events.JOB_DROPPED)

    def _park(self, job: Job, reason: str) -> None:
        if self.on_poisoned is not None:
            self.on_poisoned(job, reason)
        else:
            self.ledger.park(job, reason)

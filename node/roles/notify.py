"""Telling adapters: one thread for each inside the deliver role, so that none delays a delivery or another adapter.

A receiver that cannot be reached is probed with one report at a time, at growing intervals; one that could not take a
message gets it again while others go on. Only the newest report of a study is told.
"""

import threading
from collections.abc import Sequence

import structlog

from config import Settings
from config.adapters import Adapter, Hl7Adapter, UpsAdapter
from config.settings import DeliverSettings
from ledger.errors import LeaseLost, LedgerUnavailable
from ledger.ledger import Ledger
from ledger.records import Job, NotificationState, Stage
from node import log_events
from node.lease import LeaseKeeper
from node.logging import describe
from node.wiring import owner
from sr_writer import backoff
from sr_writer.adapters.hl7 import Hl7Teller
from sr_writer.adapters.telling import Answer, Message, Teller, TryLater, not_needed
from sr_writer.adapters.ups import UpsTeller
from sr_writer.adapters.webhook import WebhookTeller
from sr_writer.errors import NotNow, NotProven, Unreachable
from sr_writer.guard import Guard

POLL_S = 1.0
_EVENTS = {
    NotificationState.ACCEPTED: log_events.NOTICE_TAKEN,
    NotificationState.REFUSED: log_events.NOTICE_REFUSED,
    NotificationState.NOT_NEEDED: log_events.NOTICE_NOT_NEEDED,
}


def teller_of(adapter: Adapter, times: DeliverSettings) -> Teller:
    if isinstance(adapter, Hl7Adapter):
        return Hl7Teller(adapter, times)
    if isinstance(adapter, UpsAdapter):
        return UpsTeller(adapter, times)
    return WebhookTeller(adapter, times)


class Notifier:
    """The loop of one adapter."""

    def __init__(self, ledger: Ledger, settings: Settings, adapter: Adapter, stop: threading.Event) -> None:
        self._ledger = ledger
        self._times = settings.deliver
        self._key = adapter.key
        self._teller = teller_of(adapter, settings.deliver)
        self._guard = Guard(ledger.store, ledger.evidence, ledger.own_objects)
        self._owner = owner("deliver")
        self._stop = stop
        self._failures = 0
        self._log = structlog.get_logger().bind(adapter=adapter.key)

    def run(self) -> None:
        """Loop until stopped."""
        while not self._stop.is_set():
            try:
                self._once()
            except LedgerUnavailable as error:
                self._log.warning(log_events.LEDGER_UNAVAILABLE, error=describe(error))
                self._stop.wait(POLL_S)
            except Exception:  # noqa: BLE001  loop top: record and go on
                self._log.error(log_events.LOOP_FAILED, exc_info=True)
                self._stop.wait(POLL_S)

    def _once(self) -> None:
        jobs = self._ledger.claim(Stage.NOTIFY, self._owner, 1, self._times.lease_s, self._key)
        if not jobs:
            self._ledger.wait(Stage.NOTIFY, POLL_S, self._key)
            return
        with LeaseKeeper(self._ledger, jobs, self._times.lease_s):
            try:
                self.work(jobs)
            except LeaseLost:
                self._log.warning(log_events.JOB_DROPPED, job_id=jobs[0].job_id)

    def work(self, jobs: Sequence[Job]) -> None:
        [job] = jobs
        try:
            answer = self._tell(job)
        except Unreachable as error:
            self._away(job, error)
        except (TryLater, NotNow) as error:
            self._again(job, str(error))
        except NotProven as error:
            self._stop_here(job, str(error))
        except (LedgerUnavailable, LeaseLost):
            raise
        except Exception as error:  # noqa: BLE001  loop top: this job waits, the next ones go on
            self._log.error(log_events.JOB_FAILED, exc_info=error)
            self._again(job, f"unexpected error: {describe(error)}")
        else:
            self._failures = 0
            self._ledger.finish_notification(job, answer.state, answer.reason)
            self._log.info(_EVENTS[answer.state], report_id=job.report_id, reason=answer.reason)

    def _tell(self, job: Job) -> Answer:
        """Raises Unreachable, TryLater, NotNow and NotProven."""
        notice = self._ledger.notice(job)
        if notice.overtaken:
            return not_needed("A newer report of the study is told instead.")
        self._guard = self._guard.anew()  # every attempt reads the sources again
        header = self._guard.header(notice)
        if self._ledger.hold(notice.study_instance_uid):
            raise NotNow("its study is held")
        return self._teller.tell(Message(notice, self._key, self._ledger.installation_uid, header))

    def _stop_here(self, job: Job, why: str) -> None:
        self._log.error(log_events.WRONG_PATIENT_STOPPED, report_id=job.report_id, reason=why)
        self._ledger.finish_notification(job, NotificationState.REFUSED, why, stopped=True)

    def _away(self, job: Job, error: Unreachable) -> None:
        """Due at once: this thread is what waits, and when it wakes the most urgent report goes first."""
        self._failures += 1
        delay_s = backoff.delay_s(self._failures, self._times)
        self._log.warning(log_events.ADAPTER_UNREACHABLE, reason=str(error), retry_in_s=round(delay_s, 1))
        self._ledger.retry(job, f"{error} (next try in {delay_s:.0f} s)", 0.0)
        self._stop.wait(delay_s)

    def _again(self, job: Job, reason: str) -> None:
        self._log.warning(log_events.JOB_RETRIED, job_id=job.job_id, reason=reason)
        self._ledger.retry(job, reason, backoff.delay_s(job.attempt, self._times))

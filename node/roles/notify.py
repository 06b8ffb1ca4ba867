"""Telling adapters: one thread for each inside the deliver role, so that none delays a delivery or another adapter.

A receiver that cannot be reached is probed with one report at a time, at growing intervals; one that could not take a
message gets it again while others go on. Only the newest report of a study is told.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from config import Settings
from config.adapters import Adapter, Hl7Adapter, UpsAdapter
from config.settings import DeliverSettings
from ledger.ledger import Ledger
from ledger.notifications import NotificationState
from ledger.records import Job, Stage
from node import log_events
from node.roles.outward import Outward
from sr_writer.adapters.telling import Answer, Message, Teller, TryLater, not_needed, stopped
from sr_writer.errors import NotNow, NotProven
from sr_writer.guard import Guard

_EVENTS = {
    NotificationState.ACCEPTED: log_events.NOTICE_TAKEN,
    NotificationState.REFUSED: log_events.NOTICE_REFUSED,
    NotificationState.NOT_NEEDED: log_events.NOTICE_NOT_NEEDED,
}


def teller_of(adapter: Adapter, times: DeliverSettings) -> Teller:
    """Imported only where one is configured: the concepts that they speak in bring highdicom with them, the dearest
    import of all, and most nodes have no adapter."""
    if isinstance(adapter, Hl7Adapter):
        from sr_writer.adapters.hl7 import Hl7Teller

        return Hl7Teller(adapter, times)
    if isinstance(adapter, UpsAdapter):
        from sr_writer.adapters.ups import UpsTeller

        return UpsTeller(adapter, times)
    from sr_writer.adapters.webhook import WebhookTeller

    return WebhookTeller(adapter, times)


class Notifier(Outward["_Round"]):
    """The loop of one adapter."""

    stage = Stage.NOTIFY
    kind = "adapter"
    unreachable = log_events.ADAPTER_UNREACHABLE

    def __init__(self, ledger: Ledger, settings: Settings, adapter: Adapter, stop: threading.Event) -> None:
        super().__init__(ledger, settings.deliver, adapter.key, stop)
        self._teller = teller_of(adapter, settings.deliver)
        self._guard = Guard(ledger.store, ledger.evidence, ledger.own_objects)

    def _begin(self, job: Job) -> "_Round":
        return _Round(self._ledger, job, self._log)

    def _talk(self, rounds: "Sequence[_Round]") -> None:
        [one] = rounds
        try:
            one.answer = self._tell(one.job)
        except (TryLater, NotNow) as error:
            one.later = str(error)
            self._log.warning(log_events.JOB_RETRIED, job_id=one.job.job_id, reason=one.later)
        except NotProven as error:
            one.answer = stopped(str(error))

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


@dataclass
class _Round:
    """One report while its adapter is told."""

    ledger: Ledger
    job: Job
    log: structlog.stdlib.BoundLogger
    answer: Answer | None = None
    later: str = ""

    def end(self, reason: str, delay_s: float) -> None:
        """Keep the answer, or wait for another try."""
        if self.answer is None:
            self.ledger.retry(self.job, self.later or reason, delay_s)
            return
        state, said = self.answer.state, self.answer.reason
        self.ledger.finish_notification(self.job, state, said)
        if state is NotificationState.STOPPED:
            self.log.error(log_events.WRONG_PATIENT_STOPPED, report_id=self.job.report_id, reason=said)
        else:
            self.log.info(_EVENTS[state], report_id=self.job.report_id, reason=said)

"""The role that delivers: one thread per destination, so that a dead one never delays another; beside it one that
asks the destination whether it holds what it accepted (node/roles/prove.py)."""

import threading
from collections.abc import Sequence

import structlog

from config import Settings
from config.settings import Destination
from ledger.errors import LeaseLost, LedgerUnavailable
from ledger.ledger import Ledger
from ledger.records import DeliveryOutcome, DeliveryState, Job, Stage, StoredObject
from node import log_events
from node.lease import LeaseKeeper
from node.logging import describe
from node.periodic import Periodically
from node.process import exit_at_latest, stop_on_signals
from node.roles.notify import Notifier
from node.roles.prove import Prover
from node.stranded import redirect_words, stranded_destinations
from node.wiring import open_ledger, owner
from sr_writer import backoff
from sr_writer.deliver import Sender
from sr_writer.errors import NotNow, Unreachable
from sr_writer.guard import Guard

POLL_S = 1.0
EXPIRE_MAX_ATTEMPTS = 3  # of analyses and reports, which this may meet; deliveries have no limit
EXPIRE_EVERY_S = 5.0
JOBS_PER_ASSOCIATION = 4


def run(settings: Settings) -> int:
    """Deliver until told to stop."""
    stop = stop_on_signals()
    exit_at_latest(stop, settings.node.stop_grace_s)
    ledger = open_ledger(settings)
    threads = [
        threading.Thread(target=Deliverer(ledger, settings, destination, stop).run, name=destination.key, daemon=True)
        for destination in settings.destinations
    ]
    threads += [
        threading.Thread(
            target=Prover(ledger, settings, destination, stop).run, name=f"prove {destination.key}", daemon=True
        )
        for destination in settings.destinations
    ]
    threads += [
        threading.Thread(
            target=Notifier(ledger, settings, adapter, stop).run, name=f"notify {adapter.key}", daemon=True
        )
        for adapter in settings.adapters
    ]
    for thread in threads:
        thread.start()
    for stranded in stranded_destinations(ledger, settings):
        structlog.get_logger().error(
            log_events.DESTINATION_UNKNOWN, destination=stranded, cure=redirect_words(stranded)
        )
    structlog.get_logger().info(log_events.ROLE_STARTED, destinations=[d.key for d in settings.destinations])
    stop.wait()
    for thread in threads:
        thread.join()
    return 0


class Deliverer:
    """The loop of one destination. While it cannot be reached, one job at a time probes it, at growing intervals."""

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        destination: Destination,
        stop: threading.Event,
        guard: Guard | None = None,
    ) -> None:
        self._ledger = ledger
        self._settings = settings.deliver
        self._key = destination.key
        self._guard = guard or Guard(ledger.store, ledger.evidence, ledger.own_objects)
        self._sender = Sender(destination, settings.deliver, self._last_look)
        self._prove_after_s = settings.deliver.prove_after_s if destination.proof else None
        self._put_off: dict[int, str] = {}  # by report id: why something of it did not leave just now
        self._owner = owner("deliver")
        self._stop = stop
        self._failures = 0
        self._expire = Periodically(EXPIRE_EVERY_S)
        self._log = structlog.get_logger().bind(destination=destination.key)

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
        if self._expire.due():
            self._ledger.expire_leases(EXPIRE_MAX_ATTEMPTS)
        limit = 1 if self._failures else JOBS_PER_ASSOCIATION
        jobs = self._ledger.claim(Stage.DELIVER, self._owner, limit, self._settings.lease_s, self._key)
        if not jobs:
            self._ledger.wait(Stage.DELIVER, POLL_S, self._key)
            return
        with LeaseKeeper(self._ledger, jobs, self._settings.lease_s):
            self._deliver(jobs)

    def _deliver(self, jobs: Sequence[Job]) -> None:
        self._guard = self._guard.anew()  # every attempt reads the sources again
        rounds = [_Round(self._ledger, job, self._prove_after_s) for job in jobs]
        owners = {stored.object_id: one for one in rounds for stored in one.objects}
        objects = [stored for one in rounds for stored in one.objects]
        delay_s = backoff.delay_s(max(job.attempt for job in jobs), self._settings)
        try:
            if objects:
                self._sender.send(objects, self._ledger.store, lambda outcome: self._note(owners, outcome))
        except Unreachable as error:
            self._failures += 1
            delay_s = backoff.delay_s(self._failures, self._settings)
            self._log.warning(log_events.DESTINATION_UNREACHABLE, reason=str(error), retry_in_s=round(delay_s, 1))
            # Due at once: this thread is what waits, and when it wakes the most urgent report goes first.
            self._end(rounds, f"{error} (next try in {delay_s:.0f} s)", 0.0)
            self._stop.wait(delay_s)
        except LedgerUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  loop top: these jobs wait, the next ones go on
            self._log.error(log_events.JOB_FAILED, exc_info=error)
            self._end(rounds, f"unexpected error: {describe(error)}", delay_s)
        else:
            if self._failures:  # it is back: nothing has to sit out a delay that was meant for its absence
                self._ledger.hurry(self._key)
            self._failures = 0
            self._end(rounds, "the destination asked to try again later", delay_s)

    def _last_look(self, stored: StoredObject, content: bytes) -> None:
        """Before an object leaves: it is still wanted, nothing holds its study, and it is its patient's."""
        try:
            if not self._ledger.may_leave(stored.object_id, self._key):
                raise NotNow("its study is held, or another report overtook it")
            self._guard.prove(stored, content)
        except NotNow as error:
            self._put_off[stored.report_id] = str(error)
            raise

    def _note(self, owners: "dict[int, _Round]", outcome: DeliveryOutcome) -> None:
        owners[outcome.object_id].note(outcome)
        event = {
            DeliveryState.DELIVERED: log_events.OBJECT_DELIVERED,
            DeliveryState.REFUSED: log_events.OBJECT_REFUSED,
        }.get(outcome.state, log_events.JOB_RETRIED)
        if outcome.stopped:
            self._log.error(log_events.WRONG_PATIENT_STOPPED, object_id=outcome.object_id, reason=outcome.reason)
            return
        self._log.info(event, object_id=outcome.object_id, status=outcome.status, reason=outcome.reason)

    def _end(self, rounds: "Sequence[_Round]", reason: str, delay_s: float) -> None:
        for one in rounds:
            try:
                one.end(self._put_off.pop(one.job.report_id or 0, reason), delay_s)
            except LeaseLost:
                self._log.warning(log_events.JOB_DROPPED, job_id=one.job.job_id)


class _Round:
    """One job during one association: which of its objects are still to go, and what was refused."""

    def __init__(self, ledger: Ledger, job: Job, prove_after_s: float | None) -> None:
        self._ledger = ledger
        self._prove_after_s = prove_after_s
        self.job = job
        self.objects: list[StoredObject] = ledger.undelivered(job)
        self._left = {stored.object_id for stored in self.objects}
        self._refusals: dict[int, str] = {}  # by object id
        self._later = ""

    def note(self, outcome: DeliveryOutcome) -> None:
        """Keep one answer, durably."""
        self._ledger.record_delivery(self.job, outcome)
        if outcome.state is DeliveryState.WAITING:
            self._later = outcome.reason
            return
        self._left.discard(outcome.object_id)
        if outcome.state is DeliveryState.REFUSED:
            self._refusals[outcome.object_id] = outcome.reason
        else:
            self._settle_choice(outcome.object_id)

    def _settle_choice(self, object_id: int) -> None:
        """One form was accepted: nobody waits for the others, nor minds that they were refused."""
        choice = next((stored.choice for stored in self.objects if stored.object_id == object_id), "")
        for stored in self.objects:
            if choice and stored.choice == choice:
                self._left.discard(stored.object_id)
                self._refusals.pop(stored.object_id, None)

    def end(self, reason: str, delay_s: float) -> None:
        """Finish, wait for another try, or park with what the destination said."""
        if self._left:
            self._ledger.retry(self.job, self._later or reason, delay_s)
        elif self._refusals:
            self._ledger.park_delivery(self.job, " ".join(dict.fromkeys(self._refusals.values())), self._prove_after_s)
        else:
            self._ledger.finish_delivery(self.job, self._prove_after_s)

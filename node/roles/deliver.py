"""The role that delivers: one thread per destination, so that a dead one never delays another; beside it one that
asks the destination whether it holds what it accepted (node/roles/prove.py)."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from config import Settings
from config.settings import Destination
from ledger.ledger import Ledger
from ledger.records import NOT_GONE, DeliveryOutcome, DeliveryState, Job, Stage, StoredObject
from node import log_events
from node.periodic import Periodically
from node.process import exit_at_latest, stop_on_signals
from node.roles.notify import Notifier
from node.roles.outward import Outward
from node.roles.prove import Prover
from node.stranded import stranded
from node.wiring import open_ledger
from sr_writer.deliver import Sender
from sr_writer.errors import NotNow
from sr_writer.guard import Guard

EXPIRE_MAX_ATTEMPTS = 3  # of analyses and reports, which this may meet; deliveries have no limit
EXPIRE_EVERY_S = 5.0
JOBS_PER_ASSOCIATION = 4


def run(settings: Settings) -> int:
    """Deliver until told to stop."""
    stop = stop_on_signals()
    exit_at_latest(stop, settings.node.stop_grace_s)
    ledger = open_ledger(settings)
    loops: list[Outward[Any]] = [Deliverer(ledger, settings, one, stop) for one in settings.destinations]
    loops += [Prover(ledger, settings, one, stop) for one in settings.destinations]
    loops += [Notifier(ledger, settings, one, stop) for one in settings.adapters]
    threads = [loop.thread() for loop in loops]
    for thread in threads:
        thread.start()
    say_what_is_stranded(ledger, settings)
    adapters = [adapter.key for adapter in settings.adapters]
    structlog.get_logger().info(
        log_events.ROLE_STARTED, destinations=[d.key for d in settings.destinations], adapters=adapters
    )
    stop.wait()
    for thread in threads:
        thread.join()
    return 0


def say_what_is_stranded(ledger: Ledger, settings: Settings) -> None:
    """To the log, with what to do."""
    log = structlog.get_logger()
    for one in stranded(ledger, settings):
        if one.stage is Stage.NOTIFY:
            log.error(log_events.ADAPTER_UNKNOWN, adapter=one.name, reason=one.sentence, cure=one.cure)
        else:
            log.error(log_events.DESTINATION_UNKNOWN, destination=one.name, reason=one.sentence, cure=one.cure)


class Deliverer(Outward["_Round"]):
    """The loop of one destination."""

    stage = Stage.DELIVER
    at_once = JOBS_PER_ASSOCIATION
    unreachable = log_events.DESTINATION_UNREACHABLE

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        destination: Destination,
        stop: threading.Event,
        guard: Guard | None = None,
    ) -> None:
        super().__init__(ledger, settings.deliver, destination.key, stop)
        self._guard = guard or Guard(ledger.store, ledger.evidence, ledger.own_objects)
        self._sender = Sender(destination, settings.deliver, self._last_look)
        self._prove_after_s = settings.deliver.prove_after_s if destination.proof else None
        self._put_off: dict[int, str] = {}  # by report id: why something of it did not leave just now
        self._expire = Periodically(EXPIRE_EVERY_S)

    def _once(self) -> None:
        if self._expire.due():
            self._ledger.expire_leases(EXPIRE_MAX_ATTEMPTS)
        super()._once()

    def _begin(self, job: Job) -> "_Round":
        return _Round(self._ledger, job, self._prove_after_s, self._put_off)

    def _talk(self, rounds: "Sequence[_Round]") -> None:
        self._guard = self._guard.anew()  # every attempt reads the sources again
        self._put_off.clear()
        owners = {stored.object_id: one for one in rounds for stored in one.objects}
        if objects := [stored for one in rounds for stored in one.objects]:
            self._sender.send(objects, self._ledger.store, lambda outcome: self._note(owners, outcome))

    def _is_back(self) -> None:
        self._ledger.hurry(self._key)  # nothing has to sit out a delay that was meant for its absence

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
        if outcome.state is DeliveryState.STOPPED:
            self._log.error(log_events.WRONG_PATIENT_STOPPED, object_id=outcome.object_id, reason=outcome.reason)
            return
        self._log.info(event, object_id=outcome.object_id, status=outcome.status, reason=outcome.reason)


class _Round:
    """One job during one association: which of its objects are still to go, and what was refused."""

    def __init__(self, ledger: Ledger, job: Job, prove_after_s: float | None, put_off: Mapping[int, str]) -> None:
        self._ledger = ledger
        self._prove_after_s = prove_after_s
        self._put_off = put_off
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
        if outcome.state in NOT_GONE:
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
            put_off = self._put_off.get(self.job.report_id or 0)
            self._ledger.retry(self.job, self._later or put_off or reason, delay_s)
        elif self._refusals:
            self._ledger.park_delivery(self.job, " ".join(dict.fromkeys(self._refusals.values())), self._prove_after_s)
        else:
            self._ledger.finish_delivery(self.job, self._prove_after_s)

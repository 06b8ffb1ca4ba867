"""The role that delivers: one thread per destination, so that a dead one never delays another; beside it one that
asks the destination whether it holds what it accepted (node/roles/prove.py), and whoever else is talked to outside:
adapters (node/roles/notify.py), senders that ask what we keep of theirs (node/roles/commit.py); and one for the node's
own heartbeats, which end there (node/roles/sink.py). It also asks an archive what the report role, which has no
network, wants to know of it (node/roles/count_desk.py)."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog

from config import Settings
from config.settings import Destination
from ledger import deeds
from ledger.delivery_records import NOT_GONE, DeliveryOutcome, DeliveryState
from ledger.ledger import Ledger
from ledger.records import Job, Stage, StoredObject
from node import log_events
from node.logging import describe
from node.periodic import Periodically
from node.roles.commit import UNNAMED, Committer, park_unnamed
from node.roles.count_desk import CountDesk, archive_of
from node.roles.notify import Notifier
from node.roles.outward import Loop, Outward
from node.roles.prove import Prover
from node.roles.sink import Sink
from node.running.process import exit_at_latest, stop_on_signals
from node.watching.promised import observe
from node.watching.stranded import stranded
from node.wiring import open_ledger
from sr_writer.deliver import Sender
from sr_writer.errors import NotNow
from sr_writer.guard import Guard
from sr_writer.statuses import refusals

EXPIRE_MAX_ATTEMPTS = 3  # of analyses and reports, which this may meet; deliveries have no limit
EXPIRE_EVERY_S = 5.0
WARN_EVERY_S = 60.0  # a destination that takes our association and none of our objects
JOBS_PER_ASSOCIATION = 4


def run(settings: Settings) -> int:
    """Deliver until told to stop."""
    stop = stop_on_signals()
    exit_at_latest(stop, settings.node.stop_grace_s)
    ledger = open_ledger(settings)
    loops: list[Loop] = [Deliverer(ledger, settings, one, stop) for one in settings.destinations]
    loops += [Prover(ledger, settings, one, stop) for one in settings.destinations]
    loops += [Notifier(ledger, settings, one, stop) for one in settings.adapters]
    loops += [Committer(ledger, settings, one, stop) for one in settings.commitment_requestors]
    loops.append(Sink(ledger, settings, stop))
    threads = [loop.thread() for loop in loops]
    for thread in threads:
        thread.start()
    say_what_is_stranded(ledger, settings)
    adapters = [adapter.key for adapter in settings.adapters]
    structlog.get_logger().info(
        log_events.ROLE_STARTED, destinations=[d.key for d in settings.destinations], adapters=adapters
    )
    with _counting(settings):
        stop.wait()
    for thread in threads:
        thread.join()
    return 0


@contextmanager
def _counting(settings: Settings) -> Iterator[None]:
    """The report role's questions to `study.count_at` are taken. Without them the node delivers all the same."""
    archive = archive_of(settings)
    desk = CountDesk(settings, archive) if archive else None
    try:
        if desk:
            desk.start()
    except OSError as error:
        structlog.get_logger().error(log_events.COUNT_NOT_KNOWN, reason=describe(error))
        desk = None
    try:
        yield
    finally:
        if desk:
            desk.stop()


def say_what_is_stranded(ledger: Ledger, settings: Settings) -> None:
    """To the log, with what to do."""
    log = structlog.get_logger()
    if unnamed := park_unnamed(ledger, settings):
        log.error(log_events.COMMITMENT_PARKED, requests=unnamed, reason=UNNAMED)
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
        self._sender = Sender(destination, settings.deliver, self._last_look, begin=self._begins)
        self._destination = destination
        self._prove_after_s = settings.deliver.prove_after_s if destination.proof else None
        self._put_off: dict[int, str] = {}  # by report id: why something of it did not leave just now
        self._owners: dict[int, _Round] = {}  # by object id
        self._expire = Periodically(EXPIRE_EVERY_S)
        self._warn = Periodically(WARN_EVERY_S)
        self._put_off_since = 0  # objects, since that was last said

    def _once(self) -> None:
        if self._expire.due():
            self._ledger.expire_leases(EXPIRE_MAX_ATTEMPTS)
        super()._once()

    def _begin(self, job: Job) -> "_Round":
        return _Round(self._ledger, job, self._destination, self._prove_after_s, self._put_off)

    def _talk(self, rounds: "Sequence[_Round]") -> None:
        self._guard = self._guard.anew()  # every attempt reads the sources again
        self._put_off.clear()
        self._owners = {stored.object_id: one for one in rounds for stored in one.objects}
        if objects := [stored for one in rounds for stored in one.objects]:
            self._sender.send(objects, self._ledger.store, self._note)

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

    def _begins(self, objects: Sequence[StoredObject]) -> None:
        """A record for each study, in one transaction."""
        jobs: dict[str, Job] = {}
        classes: dict[str, list[str]] = {}
        for stored in objects:
            job = self._owners[stored.object_id].job
            jobs.setdefault(job.study_instance_uid, job)
            classes.setdefault(job.study_instance_uid, []).append(stored.sop_class_uid)
        self._ledger.audit(*(deeds.begins(job, classes[study]) for study, job in jobs.items()))

    def _note(self, outcome: DeliveryOutcome) -> None:
        self._owners[outcome.object_id].note(outcome)
        event = {
            DeliveryState.DELIVERED: log_events.OBJECT_DELIVERED,
            DeliveryState.REFUSED: log_events.OBJECT_REFUSED,
        }.get(outcome.state, log_events.JOB_RETRIED)
        if outcome.state is DeliveryState.STOPPED:
            self._log.error(log_events.WRONG_PATIENT_STOPPED, object_id=outcome.object_id, reason=outcome.reason)
            return
        self._log.info(event, object_id=outcome.object_id, status=outcome.status, reason=outcome.reason)
        if outcome.state is DeliveryState.WAITING:
            self._warn_of(outcome)

    def _warn_of(self, outcome: DeliveryOutcome) -> None:
        """Once a minute, not once an object: all that waits for it meets the same."""
        self._put_off_since += 1
        if not self._warn.due():
            return
        status = None if outcome.status is None else f"0x{outcome.status:04X}"
        self._log.warning(
            log_events.DESTINATION_PUTS_OFF, status=status, reason=outcome.reason, objects=self._put_off_since
        )
        self._put_off_since = 0


class _Round:
    """One job during one association: which of its objects are still to go, and what was refused."""

    def __init__(
        self,
        ledger: Ledger,
        job: Job,
        destination: Destination,
        prove_after_s: float | None,
        put_off: Mapping[int, str],
    ) -> None:
        self._ledger = ledger
        self._destination = destination
        self._prove_after_s = prove_after_s
        self._put_off = put_off
        self.job = job
        self.objects: list[StoredObject] = ledger.undelivered(job)
        self._left = {stored.object_id for stored in self.objects}
        self._refused: dict[int, DeliveryOutcome] = {}  # by object id
        self._later, self._answered = "", False

    def note(self, outcome: DeliveryOutcome) -> None:
        """Keep one answer, durably."""
        self._ledger.record_delivery(self.job, outcome)
        if outcome.state is DeliveryState.WAITING:
            if not self._answered:  # of one that was sent it says more than of those that were not
                self._later, self._answered = outcome.reason, outcome.was_sent
            return
        self._left.discard(outcome.object_id)
        if outcome.state in NOT_GONE:
            self._refused[outcome.object_id] = outcome
        else:
            self._settle_choice(outcome.object_id)

    def _settle_choice(self, object_id: int) -> None:
        """One form was accepted: nobody waits for the others, nor minds that they were refused."""
        choice = next((stored.choice for stored in self.objects if stored.object_id == object_id), "")
        for stored in self.objects:
            if choice and stored.choice == choice:
                self._left.discard(stored.object_id)
                self._refused.pop(stored.object_id, None)

    def end(self, reason: str, delay_s: float) -> None:
        """Finish, wait for another try, or park with what the destination said."""
        if self._left:
            put_off = self._put_off.get(self.job.report_id or 0)
            self._ledger.retry(self.job, self._later or put_off or reason, delay_s)
        elif self._refused:
            refused = [(one, self._refused[one.object_id]) for one in self.objects if one.object_id in self._refused]
            self._ledger.park_delivery(self.job, refusals(refused, self._destination), self._prove_after_s)
        else:
            self._ledger.finish_delivery(self.job, self._prove_after_s)
            observe(self._ledger, self.job)

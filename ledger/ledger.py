"""The ledger: one object that every stage holds. Each method is one transaction; after it, the next stage is woken."""

import hmac
import secrets
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import Connection, Engine, select

from ledger import (
    audit,
    commitments,
    deliveries,
    leaving,
    notifications,
    outcomes,
    proofs,
    shadow,
    statements,
    work,
)
from ledger.access import Access
from ledger.admissions import Admissions
from ledger.audit import AuditEvent
from ledger.bulk import Arrival
from ledger.codec import instance_ref
from ledger.commitments import Commitment, CommitmentAnswer
from ledger.completion import Completion
from ledger.database import begin_new_log, migrate, open_engine, serialised, tell_of_failed_sync, transaction
from ledger.delivery_records import DeliveryOutcome, DeliveryState, ProofOutcome
from ledger.drift import Drifting
from ledger.forgetting import Forgetting
from ledger.group import Coming
from ledger.growth import Growth
from ledger.heartbeats import Heartbeats
from ledger.intake import Admission
from ledger.notifications import Notice, NotificationState
from ledger.operating import Operating
from ledger.opinions import Opinions
from ledger.pace import Pacing
from ledger.promises import TOPIC, Promises
from ledger.proofs import Evidence
from ledger.reconcile import Reconciliation, is_there, reconcile_store
from ledger.records import (
    ImageResult,
    InstanceRef,
    Job,
    ReceivedInstance,
    ResultObject,
    Stage,
    StoredObject,
    StudyFindings,
)
from ledger.slo import Promised
from ledger.store import Store
from ledger.tables import installation, instances
from ledger.trail import Trail
from ledger.wake import Wake


class Ledger(Heartbeats, Promised, Drifting, Growth, Promises, Access, Opinions, Pacing, Operating, Trail, Forgetting):
    """What has happened, durably. Methods raise LedgerUnavailable when the database cannot do its part."""

    def __init__(self, engine: Engine, store: Store, in_shadow: bool = False, wake: Path | None = None) -> None:
        super().__init__(engine)
        shadow.enter(engine, in_shadow)
        self.store = store
        tell_of_failed_sync(engine, store.fail)
        self._wake = Wake(wake or store.root / "wake")
        self._admissions = Admissions(engine, store)
        self.installation_uid = self._kept("installation_uid", lambda: f"2.25.{uuid.uuid4().int}")  # PS3.5 B.2
        self._patient_key = bytes.fromhex(self._kept("patient_key", lambda: secrets.token_hex(32)))
        self._kept(audit.SINCE, lambda: f"{time.time():.0f}")

    @classmethod
    def open(cls, url: str, store: Store, in_shadow: bool = False, wake: Path | None = None) -> "Ledger":
        """Open, prepare the store's folders and bring the schema up to date. in_shadow: see ledger.shadow. wake: the
        folder of this machine in which its processes wake each other; None: one in the store."""
        store.prepare()
        engine = open_engine(url)
        migrate(engine)
        return cls(engine, store, in_shadow, wake)

    def close(self) -> None:
        self._admissions.close()
        self._engine.dispose()

    # --- receive ---

    def coming(self) -> Coming:
        """A context for who is about to admit: whoever commits for several may wait a moment for it."""
        return self._admissions.coming()

    def admit(
        self,
        received: ReceivedInstance,
        completion: Completion,
        folder: Path | None = None,
        coming: Coming | None = None,
    ) -> Admission:
        """Write a durable instance and its job. Only after this returns may the sender be answered 0x0000.

        folder: where its file was sealed (`PartFile.seal`), to be synced first; None when that is done. Threads that
        call at the same time share the sync and the commit. Raises VolumeFailed, OSError.
        """
        admission = self._admissions.admit(Arrival(received, completion, folder), coming)
        if self._admissions.take_news():
            self._wake.call(Stage.ANALYSE)
        if admission.fulfils:
            self._wake.call(Stage.REPORT)
            self._wake.call(TOPIC)
        return admission

    def find_instance(self, sop_instance_uid: str, sha256: str) -> InstanceRef | None:
        with self._read() as connection:
            row = connection.execute(
                select(instances).where(instances.c.sop_instance_uid == sop_instance_uid, instances.c.sha256 == sha256)
            ).first()
            return instance_ref(row) if row else None

    # --- jobs ---

    def claim(
        self,
        stage: Stage,
        owner: str,
        limit: int,
        lease_s: float,
        destination: str | None = None,
        tried: bool | None = None,
    ) -> list[Job]:
        """Take up to `limit` due jobs, most urgent first, for `lease_s` seconds. `destination`: DELIVER only. tried:
        only those that somebody claimed before, or only the others."""
        with self._write() as connection:
            return work.claim(connection, stage, owner, limit, lease_s, destination, tried)

    def renew(self, job: Job, lease_s: float) -> None:
        with self._write() as connection:
            work.renew(connection, job, lease_s)

    def retry(self, job: Job, reason: str, delay_s: float) -> None:
        """Give a held job back, to be claimed again after `delay_s`."""
        with self._write() as connection:
            work.retry(connection, job, reason, delay_s)

    def park(self, job: Job, reason: str, result: ImageResult | None = None) -> None:
        """Stop trying; `reason` is a sentence a person can act on. For an analysis, `result` says what is known."""
        with self._write() as connection:
            work.park(connection, job, reason, result)
        self._wake.call(Stage.REPORT)

    def hurry(self, destination: str) -> None:
        """What waits for another try at `destination` is due now."""
        with self._write() as connection:
            work.hurry(connection, destination)

    def expire_leases(self, max_attempts: int = 3) -> int:
        """Take back the jobs of workers that stopped renewing."""
        return self._expire(lambda connection: work.expire(connection, max_attempts))

    def abandon(self, owner_prefix: str, max_attempts: int = 3) -> int:
        """Take back at once the jobs of an owner that is known to be dead, and the requests that it was to answer."""
        self.free_commitments(owner_prefix)
        return self._expire(lambda connection: work.expire(connection, max_attempts, owner_prefix))

    def _expire(self, expire: Callable[[Connection], dict[Stage, int]]) -> int:
        with self._write() as connection:
            count = expire(connection)
        for stage in count:
            self._wake.call(stage)
        if count:
            self._wake.call(Stage.REPORT)
        return sum(count.values())

    # --- look, say, deliver ---

    def finish_analysis(self, job: Job, results: Sequence[ImageResult]) -> None:
        """Store what was said of the image and, if the study became HIGH, queue its provisional report."""
        with self._write() as connection:
            outcomes.finish_analysis(connection, job, results)
        self._wake.call(Stage.REPORT)

    def study_findings(self, job: Job) -> StudyFindings | None:
        """What a report job may say; None when there is nothing (new) to say."""
        with self._read() as connection:
            return statements.study_findings(connection, job)

    def finish_report(
        self,
        job: Job,
        findings: StudyFindings | None,
        objects: Sequence[tuple[ResultObject, str]] = (),
        sends: Mapping[str, Sequence[str]] | None = None,
        notify: Sequence[str] = (),
    ) -> None:
        """End the report job; `objects` are stored already, each with its path below the store.

        sends: destination -> SOP Instance UIDs of what it gets; notify: adapters that hear of it.
        """
        with self._write() as connection:
            outcomes.finish_report(connection, job, findings, objects, sends or {}, notify)
        if objects:
            self._wake.call(Stage.DELIVER)
            self._wake.call(Stage.NOTIFY)

    def undelivered(self, job: Job) -> list[StoredObject]:
        with self._read() as connection:
            return deliveries.undelivered(connection, job)

    def evidence(self, report_id: int) -> Evidence:
        """What a report rests on: the instances, and the hashes that the analysis computed of what it decoded."""
        with self._read() as connection:
            return proofs.evidence(connection, report_id)

    def may_leave(self, object_id: int, destination: str) -> bool:
        """Right before a send: whether the object is still wanted there, and nothing holds its study."""
        with self._read() as connection:
            return leaving.may_leave(connection, object_id, destination)

    def own_objects(self, report_id: int) -> frozenset[str]:
        """SOP Instance UIDs of everything that was made for the report's study."""
        with self._read() as connection:
            return leaving.own_objects(connection, report_id)

    def record_delivery(self, job: Job, outcome: DeliveryOutcome) -> None:
        with self._write() as connection:
            stopped = outcome.state is DeliveryState.STOPPED
            is_new = stopped and not leaving.is_stopped(connection, outcome.object_id, job.destination)
            deliveries.record_delivery(connection, job, outcome)
            if is_new:
                leaving.note_stopped(connection, job, outcome.reason)

    def finish_delivery(self, job: Job, prove_after_s: float | None = None) -> None:
        """End a delivery. prove_after_s: ask the destination then whether it holds it; None: it cannot be asked."""
        with self._write() as connection:
            proofs.finish_delivery(connection, job, prove_after_s)
        if prove_after_s is not None:
            self._wake.call(Stage.PROVE)

    def park_delivery(self, job: Job, reason: str, prove_after_s: float | None = None) -> None:
        """Park a delivery of which something was refused; what was accepted is asked for as by `finish_delivery`."""
        with self._write() as connection:
            proofs.park_delivery(connection, job, reason, prove_after_s)
        if prove_after_s is not None:
            self._wake.call(Stage.PROVE)

    # --- prove, notify ---

    def unproven(self, job: Job) -> list[StoredObject]:
        with self._read() as connection:
            return proofs.unproven(connection, job)

    def record_proof(self, job: Job, outcome: ProofOutcome) -> None:
        with self._write() as connection:
            proofs.record_proof(connection, job, outcome)

    def finish_proof(self, job: Job) -> None:
        """End a proof; what was missing is sent again."""
        with self._write() as connection:
            missing = proofs.finish_proof(connection, job)
        if missing:
            self._wake.call(Stage.DELIVER)

    def times_lost(self, job: Job) -> int:
        """How often the job's destination has accepted an object of the report and then did not hold it."""
        with self._read() as connection:
            return proofs.times_lost(connection, job)

    def give_up_proof(self, job: Job, reason: str) -> None:
        """Park a proof whose objects the destination loses again and again: they are sent no more until released."""
        with self._write() as connection:
            proofs.give_up(connection, job, reason)

    def commitment_asked(
        self,
        destination: str,
        transaction_uid: str,
        wanted: Sequence[tuple[Job, Sequence[str]]],
        addresses: Sequence[str] = (),
    ) -> None:
        """Keep a Storage Commitment transaction before it is sent. wanted: proof jobs and their SOP Instance UIDs.
        addresses: of the destination, as its host's name is resolved now."""
        with self._write() as connection:
            commitments.ask(connection, destination, transaction_uid, wanted, addresses)

    def commitment_accepted(self, transaction_uid: str) -> None:
        with self._write() as connection:
            commitments.accept(connection, transaction_uid)

    def commitment_answered(self, answer: CommitmentAnswer, destinations: Collection[str]) -> bool:
        """Keep an N-EVENT-REPORT, from whichever association; False when none of `destinations` was asked that."""
        with self._write() as connection:
            known = commitments.answered(connection, answer, destinations)
        if known:
            self._wake.call(Stage.PROVE)
        return known

    def commitment(self, job: Job) -> Commitment | None:
        """The transaction that a proof job waits for, or whose answer it has not used yet."""
        with self._read() as connection:
            return commitments.newest(connection, job)

    def close_commitment(self, job: Job) -> None:
        """The answer is used up: the next time the job asks anew."""
        with self._write() as connection:
            commitments.close(connection, job)

    def await_commitment(self, job: Job, transaction_uid: str, longest_s: float) -> None:
        """Give the job back until the answer comes, at most `longest_s`."""
        with self._write() as connection:
            commitments.wait(connection, job, transaction_uid, longest_s)

    def notice(self, job: Job) -> Notice:
        with self._read() as connection:
            return notifications.notice(connection, job)

    def stop_report(self, job: Job, reason: str) -> None:
        """Park a report that was not made, because what it rests on could not be shown to be its own patient's."""
        with self._write() as connection:
            work.park(connection, job, reason, None)
            leaving.note_stopped(connection, job, reason)

    def finish_notification(self, job: Job, state: NotificationState, reason: str = "") -> None:
        """Keep what became of it: REFUSED and STOPPED park the job, WAITING leaves it to `retry`, all others end it."""
        with self._write() as connection:
            notifications.finish(connection, job, state, reason)
            if state is NotificationState.STOPPED:
                leaving.note_stopped(connection, job, reason)

    def adapters_told(self, study_uid: str) -> set[str]:
        """Adapters that have heard of the study, or are about to: they are to hear of every change."""
        with self._read() as connection:
            return notifications.adapters_told(connection, study_uid)

    def patient_digest(self, *identity: str) -> str:
        """A keyed hash of who a patient is, equal for equal identities within this installation; "" for nobody."""
        if not any(identity):
            return ""
        packed = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in identity)
        return hmac.digest(self._patient_key, packed, "sha256").hex()

    def audit(self, *events: AuditEvent) -> None:
        """Append to the audit trail what changes nothing else: an access, a start, a caller turned away."""
        with self._write() as connection:
            audit.record(connection, *events)

    # --- waiting ---

    def due_in_s(self, stage: Stage, tried: bool | None = None) -> float | None:
        """Seconds until the next job of `stage` is due, 0 when one is; None when none waits. tried: see `claim`."""
        with self._read() as connection:
            return work.next_due_in_s(connection, stage, None, tried)

    def wait(self, stage: Stage, timeout_s: float, destination: str | None = None, tried: bool | None = None) -> None:
        """Return when a commit queued work for `stage`, when its next job falls due, or after `timeout_s`."""
        self._wake.listen(stage)  # before looking, so that no commit falls between the look and the sleep
        with self._read() as connection:
            due_in_s = work.next_due_in_s(connection, stage, destination, tried)
        self._wake.wait(stage, timeout_s if due_in_s is None else min(timeout_s, due_in_s))

    # --- start ---

    def stopped_and_held(self) -> tuple[int, int]:
        """What stays here now because nobody could show whose it is, and how many studies are held."""
        with self._read() as connection:
            return leaving.stopped_now(connection), leaving.studies_held(connection)

    def store_is_there(self) -> bool:
        """False where the store holds none of the newest images: it is another folder, its volume not mounted."""
        with self._read() as connection:
            return is_there(connection, self.store)

    def reconcile(self, max_attempts: int = 3) -> Reconciliation:
        """Before anything is received: sweep, compare, take back expired leases. One process may do this."""
        begin_new_log(self._engine)
        with self._write() as connection:
            found = reconcile_store(connection, self.store)
        found.jobs_requeued = self.expire_leases(max_attempts)
        return found

    # --- inner ---

    def _write(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=True)

    def _kept(self, key: str, make: Callable[[], str]) -> str:
        """A value that is made at the first start and holds for ever: this installation's own UID, its secret."""
        asked = select(installation.c.value).where(installation.c.key == key)
        with self._write() as connection:
            known = connection.execute(asked).scalar()
            if known is None:
                serialised(connection)  # the roles of several machines may meet an empty database at once
                known = connection.execute(asked).scalar()
            if known is None:
                known = make()
                connection.execute(installation.insert().values(key=key, value=known))
            return str(known)

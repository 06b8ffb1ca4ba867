"""The ledger: one object that every stage holds. Each method is one transaction; after it, the next stage is woken."""

import hashlib
import hmac
import secrets
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager

from sqlalchemy import Connection, Engine, select

from ledger import (
    commitments,
    deliveries,
    intake,
    leaving,
    notifications,
    outcomes,
    proofs,
    revisions,
    statements,
    work,
)
from ledger.codec import instance_ref
from ledger.commitments import Commitment, CommitmentAnswer
from ledger.database import migrate, open_engine, transaction
from ledger.intake import Admission
from ledger.notifications import Notice, NotificationState
from ledger.proofs import Evidence
from ledger.questions import Questions
from ledger.reconcile import Reconciliation, reconcile_store
from ledger.records import (
    DeliveryOutcome,
    DeliveryState,
    ImageResult,
    InstanceRef,
    Job,
    ProofOutcome,
    ReceivedInstance,
    ResultObject,
    Stage,
    StoredObject,
    StudyFindings,
)
from ledger.store import Store
from ledger.tables import installation, instances
from ledger.wake import Wake


class Ledger(Questions):
    """What has happened, durably. Methods raise LedgerUnavailable when the database cannot do its part."""

    def __init__(self, engine: Engine, store: Store) -> None:
        super().__init__(engine)
        self.store = store
        self._wake = Wake(store.root / "wake")
        self.installation_uid = self._kept("installation_uid", lambda: f"2.25.{uuid.uuid4().int}")  # PS3.5 B.2
        self._patient_key = bytes.fromhex(self._kept("patient_key", lambda: secrets.token_hex(32)))

    @classmethod
    def open(cls, url: str, store: Store) -> "Ledger":
        """Open, prepare the store's folders and bring the schema up to date."""
        store.prepare()
        engine = open_engine(url)
        migrate(engine)
        return cls(engine, store)

    def close(self) -> None:
        self._engine.dispose()

    # --- receive ---

    def admit(self, received: ReceivedInstance, complete_after_s: float) -> Admission:
        """Write a durable instance and its job. Only after this returns may the sender be answered 0x0000."""
        with self._write() as connection:
            admission = intake.admit(connection, received, complete_after_s)
        self._wake.call(Stage.ANALYSE)
        return admission

    def find_instance(self, sop_instance_uid: str, sha256: str) -> InstanceRef | None:
        with self._read() as connection:
            row = connection.execute(
                select(instances).where(instances.c.sop_instance_uid == sop_instance_uid, instances.c.sha256 == sha256)
            ).first()
            return instance_ref(row) if row else None

    # --- jobs ---

    def claim(self, stage: Stage, owner: str, limit: int, lease_s: float, destination: str | None = None) -> list[Job]:
        """Take up to `limit` due jobs, most urgent first, for `lease_s` seconds. `destination`: DELIVER only."""
        with self._write() as connection:
            return work.claim(connection, stage, owner, limit, lease_s, destination)

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

    def release(self, job_id: int) -> bool:
        """Let a parked job run again. False when there is no such parked job."""
        with self._write() as connection:
            stage = work.release(connection, job_id)
        if stage is not None:
            self._wake.call(stage)
        return stage is not None

    def hurry(self, destination: str) -> None:
        """What waits for another try at `destination` is due now."""
        with self._write() as connection:
            work.hurry(connection, destination)

    def redirect(self, old: str, new: str) -> int:
        """Send what waits, or was parked, for the destination `old` to `new` instead; how many jobs moved."""
        with self._write() as connection:
            moved = work.redirect(connection, old, new)
        self._wake.call(Stage.DELIVER)
        return moved

    def stop_asking(self, destination: str, why: str) -> int:
        """Leave unproven what waits to be asked of a destination; how many jobs that ended."""
        with self._write() as connection:
            return work.stop_asking(connection, destination, why)

    def stop_telling(self, adapter: str, why: str) -> int:
        """Tell an adapter nothing of what waits, or was parked, for it; how many jobs that ended."""
        with self._write() as connection:
            return notifications.stop_telling(connection, adapter, why)

    def expire_leases(self, max_attempts: int = 3) -> int:
        """Take back the jobs of workers that stopped renewing."""
        return self._expire(lambda connection: work.expire(connection, max_attempts))

    def abandon(self, owner_prefix: str, max_attempts: int = 3) -> int:
        """Take back at once the jobs of an owner that is known to be dead."""
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
        self, destination: str, transaction_uid: str, wanted: Sequence[tuple[Job, Sequence[str]]]
    ) -> None:
        """Keep a Storage Commitment transaction before it is sent. wanted: proof jobs and their SOP Instance UIDs."""
        with self._write() as connection:
            commitments.ask(connection, destination, transaction_uid, wanted)

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

    # --- revise ---

    def recall(self, cause: str, study_uid: str | None = None, model: tuple[str, str | None] | None = None) -> int:
        """Queue a withdrawal for a study, or for every study whose newest report rests on a model (name, version).

        Returns how many were queued. cause: a sentence for a reader.
        """
        with self._write() as connection:
            queued = revisions.recall(connection, cause, study_uid, model)
        self._wake.call(Stage.REPORT)
        return queued

    def look_again(self, study_uid: str, cause: str) -> int:
        """Queue the study's images for analysis and a new report; how many images."""
        with self._write() as connection:
            queued = revisions.look_again(connection, study_uid, cause)
        if queued:
            self._wake.call(Stage.ANALYSE)
        return queued

    def patient_digest(self, *identity: str) -> str:
        """A keyed hash of who a patient is, equal for equal identities within this installation; "" for nobody."""
        if not any(identity):
            return ""
        packed = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in identity)
        return hmac.new(self._patient_key, packed, hashlib.sha256).hexdigest()

    # --- waiting ---

    def wait(self, stage: Stage, timeout_s: float, destination: str | None = None) -> None:
        """Return when a commit queued work for `stage`, when its next job falls due, or after `timeout_s`."""
        self._wake.listen(stage)  # before looking, so that no commit falls between the look and the sleep
        with self._read() as connection:
            due_in_s = work.next_due_in_s(connection, stage, destination)
        self._wake.wait(stage, timeout_s if due_in_s is None else min(timeout_s, due_in_s))

    # --- start ---

    def stopped_and_held(self) -> tuple[int, int]:
        """What stays here now because nobody could show whose it is, and how many studies are held."""
        with self._read() as connection:
            return leaving.stopped_now(connection), leaving.studies_held(connection)

    def reconcile(self, max_attempts: int = 3) -> Reconciliation:
        """Before anything is received: sweep, compare, take back expired leases. One process may do this."""
        with self._write() as connection:
            found = reconcile_store(connection, self.store)
        found.jobs_requeued = self.expire_leases(max_attempts)
        return found

    # --- inner ---

    def _write(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=True)

    def _kept(self, key: str, make: Callable[[], str]) -> str:
        """A value that is made at the first start and holds for ever: this installation's own UID, its secret."""
        with self._write() as connection:
            known = connection.execute(select(installation.c.value).where(installation.c.key == key)).scalar()
            if known is None:
                known = make()
                connection.execute(installation.insert().values(key=key, value=known))
            return str(known)

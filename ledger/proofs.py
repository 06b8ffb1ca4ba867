"""After a destination said yes: what is known of whether it holds the object."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select, update
from sqlalchemy.sql import ColumnElement

from ledger.codec import instance_ref
from ledger.database import db_now
from ledger.delivery_records import STILL_TO_GO, DeliveryState, Proof, ProofOutcome
from ledger.history import note
from ledger.queueing import queue_job
from ledger.records import InstanceRef, Job, ReportKind, SentReference, Stage, StoredObject, TriagePriority
from ledger.states import JobEvent
from ledger.succession import taken_back
from ledger.tables import deliveries, instances, jobs, objects, report_sources, reports
from ledger.work import end, park


@dataclass(frozen=True)
class Evidence:
    """What one report rests on: the instances looked at, as they were then."""

    report_id: int
    instances: tuple[InstanceRef, ...]
    source_sha256: tuple[str, ...]  # of each: the hash that the analysis computed of the bytes it decoded; "" unknown
    takes_back: tuple[SentReference, ...] = ()  # of a withdrawal: our objects of what it takes back


def finish_delivery(connection: Connection, job: Job, prove_after_s: float | None) -> None:
    """End a delivery. prove_after_s: ask the destination then; None: there is no way to ask."""
    end(connection, job, JobEvent.FINISHED)
    _ask_later(connection, job, prove_after_s)


def park_delivery(connection: Connection, job: Job, reason: str, prove_after_s: float | None) -> None:
    """A person must look at what was refused; what was accepted is asked for all the same."""
    park(connection, job, reason, None)
    _ask_later(connection, job, prove_after_s)


def _ask_later(connection: Connection, job: Job, prove_after_s: float | None) -> None:
    waiting = _unasked(job)
    if prove_after_s is None:
        text = "The destination offers no way to ask."
        connection.execute(update(deliveries).where(waiting).values(proof=Proof.UNPROVEN, proof_text=text))
        return
    if connection.execute(select(deliveries.c.object_id).where(waiting).limit(1)).first() is None:
        return
    _queue_after(connection, job, Stage.PROVE, prove_after_s)


def _queue_after(connection: Connection, job: Job, stage: Stage, after_s: float) -> None:
    """The next stage for the same report and destination, as urgent as this job."""
    rank = select(jobs.c.rank).where(jobs.c.id == job.job_id).scalar_subquery()
    queue_job(
        connection,
        stage,
        job.study_instance_uid,
        rank,
        report_id=job.report_id,
        destination=job.destination,
        after_s=after_s,
    )


def of_job(job: Job) -> ColumnElement[bool]:
    """A condition on rows of `deliveries`: of the job's report, to its destination."""
    theirs = select(objects.c.id).where(objects.c.report_id == job.report_id)
    return and_(deliveries.c.object_id.in_(theirs), deliveries.c.destination == job.destination)


def _unasked(job: Job) -> ColumnElement[bool]:
    """Of these, what was accepted, and nobody knows more of."""
    return and_(of_job(job), deliveries.c.state == DeliveryState.DELIVERED, deliveries.c.proof == Proof.WAITING)


def unproven(connection: Connection, job: Job) -> list[StoredObject]:
    """The report's objects that the job's destination accepted and that nobody has asked for yet."""
    return stored_objects(connection, _unasked(job))


def stored_objects(connection: Connection, which: ColumnElement[bool]) -> list[StoredObject]:
    """The objects of some deliveries, in the order they were made. which: a condition on rows of `deliveries`."""
    rows = connection.execute(
        select(objects, reports.c.priority)
        .join(reports, reports.c.id == objects.c.report_id)
        .join(deliveries, deliveries.c.object_id == objects.c.id)
        .where(which)
        .order_by(objects.c.id)
    )
    return [_stored_object(row) for row in rows]


def _stored_object(row: Row[Any]) -> StoredObject:
    """From a row of `objects` joined with its report's priority."""
    return StoredObject(
        object_id=row.id,
        kind=row.kind,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        sha256=row.sha256,
        path=row.path,
        priority=TriagePriority(row.priority),
        choice=row.choice,
        preference=row.preference,
        report_id=row.report_id,
        series_instance_uid=row.series_uid,
    )


def record_proof(connection: Connection, job: Job, outcome: ProofOutcome) -> None:
    """Keep what the destination said of one object. MISSING: it is to be sent again.

    What was overtaken by a newer report there is not sent again: nobody should read it in its place.
    """
    proof, text = outcome.proof, outcome.text
    if proof is Proof.MISSING and _overtaken(connection, job):
        proof, text = Proof.UNPROVEN, f"{text} A newer report has taken its place: it is not sent again."
    values: dict[str, object] = {"proof": proof, "proof_text": text, "proven_at": db_now()}
    if proof is Proof.MISSING:
        values |= {
            "state": DeliveryState.WAITING,
            "reason": f"It was accepted and is not there: {text}",
            "times_missing": deliveries.c.times_missing + 1,
        }
    kept = connection.execute(
        update(deliveries)
        .where(
            deliveries.c.object_id == outcome.object_id,
            deliveries.c.destination == job.destination,
            deliveries.c.state == DeliveryState.DELIVERED,
            deliveries.c.proof == Proof.WAITING,  # a late word does not undo what is known by now
        )
        .values(**values)
    ).rowcount
    if kept:
        kind = connection.execute(select(objects.c.kind).where(objects.c.id == outcome.object_id)).scalar_one()
        said = f"{job.destination}: {kind} {proof}{': ' + text if text else ''}"
        note(connection, job.study_instance_uid, f"proof_{proof}", said, None, job.job_id)


def _overtaken(connection: Connection, job: Job) -> bool:
    """Whether a newer report of the study goes to the same destination."""
    newer = (
        select(deliveries.c.object_id)
        .join(objects, objects.c.id == deliveries.c.object_id)
        .join(reports, reports.c.id == objects.c.report_id)
        .where(
            reports.c.study_uid == job.study_instance_uid,
            reports.c.id > (job.report_id or 0),
            deliveries.c.destination == job.destination,
        )
    )
    return connection.execute(newer.limit(1)).first() is not None


def _lost(job: Job) -> ColumnElement[bool]:
    """Of these, what the destination accepted and does not hold."""
    return and_(of_job(job), deliveries.c.state.in_(STILL_TO_GO), deliveries.c.proof == Proof.MISSING)


def times_lost(connection: Connection, job: Job) -> int:
    """How often the destination has lost the object of this report that it lost most often; 0 when it holds all."""
    return int(connection.execute(select(func.max(deliveries.c.times_missing)).where(_lost(job))).scalar() or 0)


def finish_proof(connection: Connection, job: Job) -> bool:
    """End a proof; True when something was missing and a delivery of it is queued again."""
    end(connection, job, JobEvent.FINISHED)
    if connection.execute(select(deliveries.c.object_id).where(_lost(job)).limit(1)).first() is None:
        return False
    _queue_after(connection, job, Stage.DELIVER, 0.0)
    return True


def give_up(connection: Connection, job: Job, reason: str) -> None:
    """Stop sending what the destination loses again and again. A person who releases the job starts over."""
    connection.execute(
        update(deliveries)
        .where(_lost(job))
        .values(state=DeliveryState.REFUSED, reason=reason, times_missing=0, changed_at=db_now())
    )
    park(connection, job, reason, None)


def evidence(connection: Connection, report_id: int) -> Evidence:
    """What a report rests on, for the check before each send."""
    rows = connection.execute(
        select(instances, report_sources.c.source_sha256)
        .join(report_sources, report_sources.c.instance_id == instances.c.id)
        .where(report_sources.c.report_id == report_id)
        .order_by(instances.c.id)
    ).all()
    refs = tuple(instance_ref(row) for row in rows)
    return Evidence(report_id, refs, tuple(row.source_sha256 for row in rows), _taken_back(connection, report_id))


def _taken_back(connection: Connection, report_id: int) -> tuple[SentReference, ...]:
    this = select(reports.c.kind, reports.c.study_uid).where(reports.c.id == report_id)
    report = connection.execute(this).one_or_none()
    if report is None or report.kind != ReportKind.WITHDRAWN:
        return ()
    return taken_back(connection, report.study_uid, before=report_id)

"""After a destination said yes: what is known of whether it holds the object, and what adapters were told."""

from typing import Any

from sqlalchemy import Connection, Row, and_, func, select, update
from sqlalchemy.sql import ColumnElement

from ledger.codec import instance_ref, load_result, moment
from ledger.database import db_now
from ledger.history import note
from ledger.notifications import newer_for, withdrawals_before
from ledger.records import (
    DeliveryState,
    Evidence,
    ImageResult,
    Job,
    Notice,
    NotificationState,
    Proof,
    ProofOutcome,
    ReportKind,
    ResultStatus,
    SentReference,
    Stage,
    StoredObject,
    TriagePriority,
)
from ledger.states import JobEvent, JobState
from ledger.tables import deliveries, instances, jobs, notifications, objects, report_sources, reports, results
from ledger.work import end, park


def finish_delivery(connection: Connection, job: Job, prove_after_s: float | None) -> None:
    """End a delivery. prove_after_s: ask the destination then; None: there is no way to ask."""
    end(connection, job, JobEvent.FINISHED)
    _ask_later(connection, job, prove_after_s)


def park_delivery(connection: Connection, job: Job, reason: str, prove_after_s: float | None) -> None:
    """A person must look at what was refused; what was accepted is asked for all the same."""
    park(connection, job, reason, None)
    _ask_later(connection, job, prove_after_s)


def _ask_later(connection: Connection, job: Job, prove_after_s: float | None) -> None:
    waiting = _accepted(job, Proof.WAITING)
    if prove_after_s is None:
        text = "The destination offers no way to ask."
        connection.execute(update(deliveries).where(waiting).values(proof=Proof.UNPROVEN, proof_text=text))
        return
    if connection.execute(select(deliveries.c.object_id).where(waiting).limit(1)).first() is None:
        return
    connection.execute(jobs.insert().values(**_follow_up(job, Stage.PROVE, prove_after_s)))


def _follow_up(job: Job, stage: Stage, after_s: float) -> dict[str, object]:
    rank = select(jobs.c.rank).where(jobs.c.id == job.job_id).scalar_subquery()
    return {
        "stage": stage,
        "state": JobState.QUEUED,
        "study_uid": job.study_instance_uid,
        "report_id": job.report_id,
        "destination": job.destination,
        "rank": rank,
        "queued_at": db_now(),
        "due_at": db_now() + after_s,
        "attempts": 0,
        "generation": 0,
        "reason": "",
    }


def _accepted(job: Job, proof: Proof) -> ColumnElement[bool]:
    theirs = select(objects.c.id).where(objects.c.report_id == job.report_id)
    return and_(
        deliveries.c.object_id.in_(theirs),
        deliveries.c.destination == job.destination,
        deliveries.c.state == DeliveryState.DELIVERED,
        deliveries.c.proof == proof,
    )


def unproven(connection: Connection, job: Job) -> list[StoredObject]:
    """The report's objects that the job's destination accepted and that nobody has asked for yet."""
    rows = connection.execute(
        select(objects, reports.c.priority)
        .join(reports, reports.c.id == objects.c.report_id)
        .join(deliveries, deliveries.c.object_id == objects.c.id)
        .where(_accepted(job, Proof.WAITING))
        .order_by(objects.c.id)
    )
    return [stored_object(row) for row in rows]


def stored_object(row: Row[Any]) -> StoredObject:
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
        said = f"{job.destination}: {proof}{': ' + text if text else ''}"
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
    """The report's objects that the destination accepted and does not hold."""
    theirs = select(objects.c.id).where(objects.c.report_id == job.report_id)
    return and_(
        deliveries.c.object_id.in_(theirs),
        deliveries.c.destination == job.destination,
        deliveries.c.state.in_((DeliveryState.WAITING, DeliveryState.REFUSED)),
        deliveries.c.proof == Proof.MISSING,
    )


def times_lost(connection: Connection, job: Job) -> int:
    """How often the destination has lost the object of this report that it lost most often; 0 when it holds all."""
    return int(connection.execute(select(func.max(deliveries.c.times_missing)).where(_lost(job))).scalar() or 0)


def finish_proof(connection: Connection, job: Job) -> bool:
    """End a proof; True when something was missing and a delivery of it is queued again."""
    end(connection, job, JobEvent.FINISHED)
    if connection.execute(select(deliveries.c.object_id).where(_lost(job)).limit(1)).first() is None:
        return False
    connection.execute(jobs.insert().values(**_follow_up(job, Stage.DELIVER, 0.0)))
    return True


def give_up(connection: Connection, job: Job, reason: str) -> None:
    """Stop sending what the destination loses again and again. A person who releases the job starts over."""
    lost = _lost(job)
    connection.execute(
        update(deliveries)
        .where(lost)
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
    return Evidence(report_id, tuple(instance_ref(row) for row in rows), tuple(row.source_sha256 for row in rows))


def notice(connection: Connection, job: Job) -> Notice:
    """What the adapter of a NOTIFY job is to say."""
    report = connection.execute(select(reports).where(reports.c.id == job.report_id)).one()
    made = connection.execute(select(objects).where(objects.c.report_id == job.report_id).order_by(objects.c.id))
    rows = connection.execute(
        select(instances, results.c.body)
        .join(report_sources, report_sources.c.instance_id == instances.c.id)
        .outerjoin(results, results.c.instance_id == instances.c.id)
        .where(report_sources.c.report_id == job.report_id)
        .order_by(instances.c.id, results.c.id)
    ).all()
    said = [(instance_ref(row), load_result(row.body)) for row in rows if row.body]
    worst = min(said, key=lambda pair: _urgency(pair[1]), default=None)
    flags = dict.fromkeys(flag for _, result in said for flag in result.critical_flags)
    alone = [result for _, result in said if not (result.model and result.model.volume_rule)]
    speaks = min(alone, key=_urgency, default=None)
    return Notice(
        report_id=report.id,
        study_instance_uid=report.study_uid,
        report_kind=ReportKind(report.kind),
        priority=TriagePriority(report.priority),
        findings=speaks.findings if speaks else (),
        critical_flags=tuple(flags),
        made_at=moment(report.created_at),
        source=worst[0] if worst else (instance_ref(rows[0]) if rows else None),
        objects=tuple(SentReference(row.kind, row.sop_class_uid, row.sop_instance_uid, row.series_uid) for row in made),
        withdrawals=withdrawals_before(connection, report.study_uid, report.id),
        overtaken=newer_for(connection, report.study_uid, report.id, job.destination or ""),
    )


def _urgency(result: ImageResult) -> tuple[int, int, float]:
    judged = result.status is ResultStatus.ANALYSED
    rank = result.priority.rank if result.priority else 9
    return rank, 0 if judged else 1, -max((finding.probability for finding in result.findings), default=0.0)


def finish_notification(connection: Connection, job: Job, state: NotificationState, reason: str) -> None:
    """Keep an adapter's answer. ACCEPTED and NOT_NEEDED end the job; REFUSED parks it; WAITING only records."""
    connection.execute(
        update(notifications)
        .where(notifications.c.report_id == job.report_id, notifications.c.adapter == job.destination)
        .values(state=state, reason=reason, tries=notifications.c.tries + 1, changed_at=db_now())
    )
    text = f"{job.destination}: {state}{': ' + reason if reason else ''}"
    note(connection, job.study_instance_uid, f"notification_{state}", text, None, job.job_id)
    if state in (NotificationState.ACCEPTED, NotificationState.NOT_NEEDED):
        end(connection, job, JobEvent.FINISHED, reason)
    elif state is NotificationState.REFUSED:
        end(connection, job, JobEvent.FAILED_PERMANENT, reason)

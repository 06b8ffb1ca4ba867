"""Jobs: claim under a lease, renew, retry, park, release. Only the holder of the newest generation may end a job."""

from itertools import takewhile

from sqlalchemy import Connection, and_, exists, func, or_, select, update
from sqlalchemy.sql import ColumnElement

from ledger import audit, deeds, removal, shadow
from ledger.clinical import RANK, SINK
from ledger.codec import dump_result, instance_ref, job_record
from ledger.database import db_now
from ledger.delivery_records import STILL_TO_GO, DeliveryState, Proof
from ledger.errors import LeaseLost
from ledger.history import note
from ledger.queueing import dismiss, report_waits
from ledger.records import ImageResult, Job, ReportKind, ResultStatus, Stage, TriagePriority
from ledger.standing import lock_study, stands
from ledger.states import IDLE, UNFINISHED, JobEvent, JobState, next_state
from ledger.tables import deliveries, instances, jobs, results, studies

OUTWARD = frozenset({Stage.DELIVER, Stage.PROVE, Stage.NOTIFY})  # a peer cannot kill us: tried for ever
RELEASED = "job_released"
SUPERSEDED = "A later image of the study queued a newer final report."


def _waiting(
    connection: Connection, stage: Stage, destination: str | None, tried: bool | None = None
) -> list[ColumnElement[bool]]:
    """The jobs that may be claimed once they are due. tried: only those that were, or were not, claimed before."""
    wanted = [jobs.c.stage == stage, jobs.c.state == JobState.QUEUED]
    if tried is not None:
        wanted.append(jobs.c.attempts > 0 if tried else jobs.c.attempts == 0)
    if destination is not None:
        wanted.append(jobs.c.destination == destination)
    if stage is Stage.REPORT:
        wanted.append(or_(jobs.c.report_kind != ReportKind.FINAL, ~_analysis_pending()))
    if stage in (Stage.REPORT, Stage.DELIVER, Stage.NOTIFY):
        wanted.append(~of_held_study())
    if stage in (Stage.DELIVER, Stage.NOTIFY) and destination != SINK:
        wanted.append(~shadow.held_back(connection))
    return wanted


def of_held_study() -> ColumnElement[bool]:
    """A condition on rows of `jobs`: nothing of its study may leave."""
    return exists().where(studies.c.study_uid == jobs.c.study_uid, studies.c.hold != "")


def claim(
    connection: Connection,
    stage: Stage,
    owner: str,
    limit: int,
    lease_s: float,
    destination: str | None,
    tried: bool | None = None,
) -> list[Job]:
    """Take up to `limit` due jobs, most urgent first. Two claimers never get the same job.

    A job that was tried before comes alone: if it is what killed its worker, it kills nobody else's attempt.
    """
    wanted = (
        select(jobs.c.id, jobs.c.attempts, jobs.c.rank)
        .where(*_waiting(connection, stage, destination, tried), jobs.c.due_at <= db_now())
        .order_by(jobs.c.rank, jobs.c.due_at, jobs.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer anyway
    )
    found = connection.execute(wanted).all()
    found = [row for row in found if row.rank != RANK] or found  # nobody's batch is longer for a heartbeat
    ids = [row.id for row in takewhile(lambda row: row.attempts == 0, found)] or [row.id for row in found[:1]]
    if not ids:
        return []
    connection.execute(
        update(jobs)
        .where(jobs.c.id.in_(ids))
        .values(
            state=next_state(JobState.QUEUED, JobEvent.CLAIMED),
            attempts=jobs.c.attempts + 1,
            generation=jobs.c.generation + 1,
            lease_owner=owner,
            lease_expires_at=db_now() + lease_s,
        )
    )
    return _read_claimed(connection, ids)


def next_due_in_s(
    connection: Connection, stage: Stage, destination: str | None, tried: bool | None = None
) -> float | None:
    """Seconds until the next waiting job is due; 0 when one is; None when none waits."""
    due = select(func.min(jobs.c.due_at)).where(*_waiting(connection, stage, destination, tried))
    value = connection.execute(select(due.scalar_subquery() - db_now())).scalar()
    return None if value is None else max(0.0, float(value))


def _analysis_pending() -> ColumnElement[bool]:
    """A study is not reported for good while an image of it still waits to be looked at."""
    other = jobs.alias("analysis")
    return exists().where(
        other.c.study_uid == jobs.c.study_uid, other.c.stage == Stage.ANALYSE, other.c.state.in_(UNFINISHED)
    )


def _read_claimed(connection: Connection, ids: list[int]) -> list[Job]:
    rows = connection.execute(
        select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.rank, jobs.c.due_at, jobs.c.id)
    ).all()
    wanted = [row.instance_id for row in rows if row.instance_id is not None]
    found = {
        row.id: instance_ref(row) for row in connection.execute(select(instances).where(instances.c.id.in_(wanted)))
    }
    return [job_record(row, found.get(row.instance_id)) for row in rows]


def _held(job: Job) -> ColumnElement[bool]:
    return and_(jobs.c.id == job.job_id, jobs.c.generation == job.generation, jobs.c.state == JobState.RUNNING)


def renew(connection: Connection, job: Job, lease_s: float) -> None:
    """Hold the job longer. Raises LeaseLost when somebody else holds it."""
    done = connection.execute(update(jobs).where(_held(job)).values(lease_expires_at=db_now() + lease_s))
    if done.rowcount != 1:
        raise LeaseLost(f"job {job.job_id} is no longer ours")


def end(connection: Connection, job: Job, event: JobEvent, reason: str = "", delay_s: float = 0.0) -> None:
    """Move a held job on by `event`. Raises LeaseLost, and the transaction with it, when it is not held."""
    state = next_state(JobState.RUNNING, event)
    values: dict[str, object] = {"state": state, "reason": reason, "lease_owner": None, "lease_expires_at": None}
    values |= {"due_at": db_now() + delay_s} if state is JobState.QUEUED else {"finished_at": db_now()}
    if connection.execute(update(jobs).where(_held(job)).values(**values)).rowcount != 1:
        raise LeaseLost(f"job {job.job_id} is no longer ours")


def retry(connection: Connection, job: Job, reason: str, delay_s: float) -> None:
    """Give a held job back. A final report gives way to a newer one that waits already.

    A peer is tried for ever: that it fails as it did is no event. The job keeps its tries and why.
    """
    if _is_superseded(connection, job):
        end(connection, job, JobEvent.FINISHED, SUPERSEDED)
        return
    before = connection.execute(select(jobs.c.reason).where(jobs.c.id == job.job_id)).scalar()
    end(connection, job, JobEvent.FAILED_RETRYABLE, reason, delay_s)
    if job.stage in OUTWARD and before == reason:
        return
    when = f" in {delay_s:.0f} s" if delay_s > 0 else ""
    often = f", after {job.attempt} tries" if job.stage in OUTWARD and job.attempt > 1 else ""
    text = f"{job.stage.capitalize()} will be tried again{when}{often}: {reason}"
    note(connection, job.study_instance_uid, f"{job.stage}_retry", text, _instance_id(job), job.job_id)


def final_report_waits(study_uid: str) -> ColumnElement[bool]:
    """A final report of the study is queued: images may still come. Only one may wait at a time."""
    return exists().where(report_waits(study_uid, ReportKind.FINAL))


def _is_superseded(connection: Connection, job: Job) -> bool:
    """When a newer final report waits, this one has nothing left to say. The study is locked for the answer."""
    if job.report_kind is not ReportKind.FINAL:
        return False
    lock_study(connection, job.study_instance_uid)  # an admission may be about to queue a newer one
    return bool(connection.execute(select(final_report_waits(job.study_instance_uid))).scalar())


def park(connection: Connection, job: Job, reason: str, result: ImageResult | None) -> None:
    """Stop trying. A parked analysis still says that the image was not judged."""
    end(connection, job, JobEvent.FAILED_PERMANENT, reason)
    _after_parking(connection, job, reason, result)


def _after_parking(connection: Connection, job: Job, reason: str, result: ImageResult | None) -> None:
    if not job.is_heartbeat:
        audit.record(connection, deeds.parked(job))
    note(connection, job.study_instance_uid, f"{job.stage}_parked", reason, _instance_id(job), job.job_id)
    if job.stage is Stage.ANALYSE and job.instance is not None:
        failed = result or ImageResult(
            status=ResultStatus.FAILED, reason=reason, reason_code="parked", priority=TriagePriority.NOT_ASSESSED
        )
        record_results(connection, job, (failed,))


def record_results(connection: Connection, job: Job, found: tuple[ImageResult, ...]) -> TriagePriority | None:
    """Store what was said of one instance, in place of an earlier try, and raise the study's priority.

    Returns the study's priority: that of its most urgent image. A refused slice counts as one until the final report:
    what share of its series it is nobody knows before (`ledger.slices`).
    """
    assert job.instance is not None
    study_uid = job.study_instance_uid
    before = connection.execute(
        select(studies.c.priority).where(studies.c.study_uid == study_uid).with_for_update()
    ).scalar_one()
    earlier = results.c.instance_id == job.instance.instance_id
    removal.queue(connection, removal.pictures(connection, earlier))
    connection.execute(results.delete().where(earlier))
    for result in found:
        connection.execute(
            results.insert().values(
                instance_id=job.instance.instance_id,
                study_uid=study_uid,
                status=result.status,
                priority=result.priority,
                body=dump_result(result),
                created_at=db_now(),
            )
        )
    candidates = [TriagePriority(before)] if before else []
    candidates += [result.priority for result in found if result.priority is not None]
    after = min(candidates, key=lambda priority: priority.rank, default=None)
    if after is not None and after != before:
        if not stands(connection, job.instance.instance_id):  # corrected or rejected while it was looked at
            return TriagePriority(before) if before else None
        connection.execute(update(studies).where(studies.c.study_uid == study_uid).values(priority=after))
    return after


def release(connection: Connection, job_id: int, actor: str = deeds.PERSON) -> Stage | None:
    """A person lets a parked job run again, with fresh attempts. Returns its stage, None when it is not parked."""
    row = connection.execute(select(jobs).where(jobs.c.id == job_id, jobs.c.state == JobState.PARKED)).first()
    if row is None:
        return None
    audit.record(connection, deeds.operated(actor, "released", row.study_uid, job=job_id, stage=row.stage))
    if row.report_kind == ReportKind.FINAL:
        lock_study(connection, row.study_uid)
        if connection.execute(select(final_report_waits(row.study_uid))).scalar():
            dismiss(connection, jobs.c.id == job_id, "A newer final report waits.")
            return Stage.REPORT
    connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.state == JobState.PARKED)
        .values(
            state=next_state(JobState.PARKED, JobEvent.RELEASED),
            attempts=0,
            due_at=db_now(),
            reason="",
            finished_at=None,
        )
    )
    note(connection, row.study_uid, RELEASED, f"A person released the parked {row.stage} job.", None, job_id)
    return Stage(row.stage)


def hurry(connection: Connection, destination: str) -> None:
    """A destination that was away is back: what waits for another try there is due now."""
    waiting = and_(jobs.c.stage == Stage.DELIVER, jobs.c.state == JobState.QUEUED, jobs.c.destination == destination)
    connection.execute(update(jobs).where(waiting, jobs.c.due_at > db_now()).values(due_at=db_now()))


def redirect(connection: Connection, old: str, new: str, actor: str = deeds.PERSON) -> int:
    """Send what waits, or was parked, for the destination `old` to `new` instead. Returns how many jobs moved.

    A parked proof is of what `old` accepted and lost again and again: that is sent too.
    """
    there = select(deliveries.c.object_id).where(deliveries.c.destination == new)
    theirs = and_(deliveries.c.destination == old, deliveries.c.state.in_(STILL_TO_GO))  # what was overtaken is not
    connection.execute(deliveries.delete().where(theirs, deliveries.c.object_id.in_(there)))
    connection.execute(update(deliveries).where(theirs).values(destination=new, state=DeliveryState.WAITING, reason=""))
    given_up = and_(jobs.c.stage == Stage.PROVE, jobs.c.state == JobState.PARKED)
    waiting = and_(jobs.c.stage == Stage.DELIVER, jobs.c.state.in_(IDLE))
    movable = and_(jobs.c.destination == old, or_(waiting, given_up))
    moved = connection.execute(select(jobs.c.id, jobs.c.study_uid).where(movable).with_for_update()).all()
    connection.execute(
        update(jobs)
        .where(jobs.c.id.in_([row.id for row in moved]))
        .values(
            stage=Stage.DELIVER,
            destination=new,
            state=JobState.QUEUED,
            attempts=0,
            due_at=db_now(),
            reason="",
            finished_at=None,
        )
    )
    stop_asking(connection, old, "The destination was replaced before it was asked.")
    for row in moved:
        text = f"A person redirected what waited for {old} to {new}."
        note(connection, row.study_uid, "delivery_redirected", text, None, row.id)
        said = deeds.operated(actor, "redirected", row.study_uid, job=row.id, **{"from": old, "to": new})
        audit.record(connection, said)
    return len(moved)


def stop_asking(connection: Connection, old: str, why: str) -> int:
    """Nobody is left to ask whether it holds what it accepted: that is unproven. Returns how many jobs that ended."""
    asked = and_(
        deliveries.c.destination == old,
        deliveries.c.state == DeliveryState.DELIVERED,
        deliveries.c.proof == Proof.WAITING,
    )
    connection.execute(update(deliveries).where(asked).values(proof=Proof.UNPROVEN, proof_text=why))
    idle = and_(jobs.c.stage == Stage.PROVE, jobs.c.destination == old, jobs.c.state.in_(IDLE))
    return dismiss(connection, idle, why)


def expire(connection: Connection, max_attempts: int, owner_prefix: str | None = None) -> dict[Stage, int]:
    """Take back jobs whose lease ran out, or whose owner is known to be dead. Returns how many, by stage.

    A job that has used up its attempts is parked instead: it is likely what killed its workers. Deliveries are
    never parked for this, because a destination cannot kill us.
    """
    gone = jobs.c.lease_expires_at < db_now() if owner_prefix is None else jobs.c.lease_owner.startswith(owner_prefix)
    ids = connection.execute(
        select(jobs.c.id).where(jobs.c.state == JobState.RUNNING, gone).with_for_update(skip_locked=True)
    ).scalars()
    count: dict[Stage, int] = {}
    for job in _read_claimed(connection, list(ids)):
        superseded = _is_superseded(connection, job)
        if job.attempt >= max_attempts and job.stage not in OUTWARD:
            reason = f"Stopped after {job.attempt} attempts: the worker died each time it took this {job.stage} job."
            end(connection, job, JobEvent.ATTEMPTS_EXHAUSTED, reason)
            _after_parking(connection, job, reason, None)
        elif superseded:
            end(connection, job, JobEvent.FINISHED, SUPERSEDED)
        else:
            end(connection, job, JobEvent.LEASE_EXPIRED, "The worker that held this job died.")
            text = f"The worker of the {job.stage} job died; the job is queued again."
            note(connection, job.study_instance_uid, "lease_expired", text, _instance_id(job), job.job_id)
        count[job.stage] = count.get(job.stage, 0) + 1
    return count


def _instance_id(job: Job) -> int | None:
    return job.instance.instance_id if job.instance else None

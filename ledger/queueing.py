"""How a job comes to be, and how one ends that nobody needs any more. What happens to it in between: `ledger.work`."""

from sqlalchemy import ColumnElement, Connection, ScalarSelect, and_, select, update

from ledger.database import db_now
from ledger.records import ReportKind, Stage
from ledger.states import UNFINISHED, JobState
from ledger.tables import jobs

FRESH = {"state": JobState.QUEUED, "queued_at": db_now(), "attempts": 0, "generation": 0, "reason": ""}


def queue_job(
    connection: Connection,
    stage: Stage,
    study_uid: str,
    rank: int | ScalarSelect[int],
    *,
    instance_id: int | None = None,
    report_kind: ReportKind | None = None,
    report_id: int | None = None,
    destination: str | None = None,
    after_s: float = 0.0,
    cause: str = "",
) -> None:
    """Queue one job, due in `after_s` seconds. rank: 0 is most urgent."""
    connection.execute(
        jobs.insert().values(
            **FRESH,
            stage=stage,
            study_uid=study_uid,
            rank=rank,
            instance_id=instance_id,
            report_kind=report_kind,
            report_id=report_id,
            destination=destination,
            due_at=db_now() + after_s,
            cause=cause,
        )
    )


def dismiss(connection: Connection, idle: ColumnElement[bool], reason: str) -> int:
    """End jobs that are not needed any more; how many. idle: a condition on rows of `jobs` that nobody holds."""
    values = {"state": JobState.SUCCEEDED, "finished_at": db_now(), "reason": reason}
    return connection.execute(update(jobs).where(idle).values(**values)).rowcount


def report_waits(study_uid: str | ColumnElement[str], kind: ReportKind) -> ColumnElement[bool]:
    """A condition on rows of `jobs`: a report of this kind is queued. Of final reports only one may be."""
    return and_(_is_report(study_uid, kind), jobs.c.state == JobState.QUEUED)


def report_is_coming(study_uid: str | ColumnElement[str], kind: ReportKind) -> ColumnElement[bool]:
    """A condition on rows of `jobs`: a report of this kind is queued or being made."""
    return and_(_is_report(study_uid, kind), jobs.c.state.in_(UNFINISHED))


def _is_report(study_uid: str | ColumnElement[str], kind: ReportKind) -> ColumnElement[bool]:
    return and_(jobs.c.study_uid == study_uid, jobs.c.stage == Stage.REPORT, jobs.c.report_kind == kind)


def queue_report(connection: Connection, study_uid: str, kind: ReportKind, cause: str) -> bool:
    """Queue one report of the study, due now; False when one of its kind waits already. Study locked.

    One that waits is told the cause, unless it knows one.
    """
    waits = report_waits(study_uid, kind)
    if connection.execute(select(jobs.c.id).where(waits).limit(1)).first() is not None:
        connection.execute(update(jobs).where(waits, jobs.c.cause == "").values(cause=cause))
        return False
    rank = 0 if kind is ReportKind.WITHDRAWN else 2
    queue_job(connection, Stage.REPORT, study_uid, rank, report_kind=kind, cause=cause)
    return True

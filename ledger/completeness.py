"""When a study's final report is due: what shortens the wait, what lengthens it, and what was decisive in the end.

The wait itself begins with each image (`ledger.intake`). Every time is the database's, so that it survives a restart.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, exists, func, select, update

from ledger.assembly import still_missing
from ledger.codec import moment
from ledger.database import db_now
from ledger.history import note
from ledger.queueing import report_waits
from ledger.records import Disposition, Job, ReportKind
from ledger.standing import lock_study
from ledger.states import JobEvent
from ledger.tables import awaited_instances, deliveries, instances, jobs, objects, reports, stated_studies
from ledger.work import SUPERSEDED, end, final_report_waits

COMPLETE = "study_complete"


@dataclass(frozen=True)
class Missing:
    """A sender's list of what it sent (a request for Storage Commitment), of which something has not come."""

    calling_ae_title: str
    listed: int
    missing: int


@dataclass(frozen=True)
class Waiting:
    """A study that may still grow: when its final report is due if nothing more comes, and on what grounds then."""

    due_at: datetime
    because: str
    missing: tuple[Missing, ...]


@dataclass(frozen=True)
class Contents:
    """What is here of a study, counted as an archive would list it: by SOP Instance UID.

    received: instances that others made. images: those of them that are images, by series. own: result objects of
    ours that an archive may hold beside them; own_series: theirs.
    """

    received: int
    images: dict[str, int]
    own: int
    own_series: frozenset[str]


def released(
    connection: Connection, association_id: str, study_uids: Collection[str], after_s: float, because: str
) -> None:
    """The association that brought the newest images of these studies was released: they wait only `after_s` more.

    A study that another association has brought an image of since, or of which a sender's list names missing
    instances, is left as it is.
    """
    for study_uid in sorted(study_uids):
        lock_study(connection, study_uid)
        of_it = (instances.c.study_uid == study_uid, instances.c.disposition == Disposition.ANALYSE)
        newest = select(instances.c.association_id).where(*of_it).order_by(instances.c.id.desc()).limit(1)
        lacking = exists().where(
            stated_studies.c.study_uid == study_uid, awaited_instances.c.statement_id == stated_studies.c.statement_id
        )
        waits = (report_waits(study_uid, ReportKind.FINAL), jobs.c.due_at > db_now() + after_s, ~lacking)
        shorter = update(jobs).where(*waits, newest.scalar_subquery() == association_id)
        connection.execute(shorter.values(due_at=db_now() + after_s, due_because=because))


def put_back(connection: Connection, job: Job, after_s: float, limit_s: float, because: str) -> bool:
    """Give a held final report back for `after_s`, because more is known to come; False when the limit has passed.

    because: what is the ground if nothing more comes. The attempt does not count.
    """
    lock_study(connection, job.study_instance_uid)
    if connection.execute(select(final_report_waits(job.study_instance_uid))).scalar():
        end(connection, job, JobEvent.FINISHED, SUPERSEDED)
        return True
    left = select(jobs.c.queued_at + limit_s - db_now()).where(jobs.c.id == job.job_id)
    left_s = float(connection.execute(left).scalar_one())
    if left_s <= 0:
        return False
    end(connection, job, JobEvent.FAILED_RETRYABLE, because, min(after_s, left_s))
    uncounted = {"attempts": jobs.c.attempts - 1, "due_because": because}
    connection.execute(update(jobs).where(jobs.c.id == job.job_id).values(**uncounted))
    note(connection, job.study_instance_uid, "study_waits", because, None, job.job_id)
    return True


def set_aside(connection: Connection, job: Job, for_s: float) -> None:
    """Give a held final report back for a moment in which something is found out for it. Its grounds stay, the attempt
    does not count, and it gives way to a newer one that waits."""
    lock_study(connection, job.study_instance_uid)
    if connection.execute(select(final_report_waits(job.study_instance_uid))).scalar():
        end(connection, job, JobEvent.FINISHED, SUPERSEDED)
        return
    end(connection, job, JobEvent.FAILED_RETRYABLE, "", for_s)
    connection.execute(update(jobs).where(jobs.c.id == job.job_id).values(attempts=jobs.c.attempts - 1))


def corroborated(connection: Connection, job: Job, text: str) -> None:
    """Add a sentence to the grounds on which a held final report was due."""
    more = jobs.c.due_because + f" {text}"
    connection.execute(update(jobs).where(jobs.c.id == job.job_id).values(due_because=more))


def note_complete(connection: Connection, job: Job) -> None:
    """Keep what was decisive. A report that is made for another reason than a complete study has no such grounds."""
    because = connection.execute(select(jobs.c.due_because).where(jobs.c.id == job.job_id)).scalar_one()
    if because:
        note(connection, job.study_instance_uid, COMPLETE, because, None, job.job_id)


def waiting(connection: Connection, study_uid: str) -> Waiting | None:
    """What a study waits for; None where no final report of it waits on grounds of completeness."""
    query = select(jobs.c.due_at, jobs.c.due_because).where(report_waits(study_uid, ReportKind.FINAL))
    row = connection.execute(query).first()
    if row is None or not row.due_because:
        return None
    lists = connection.execute(still_missing(study_uid)).all()
    missing = tuple(Missing(one.calling_ae_title, one.listed, one.missing) for one in lists)
    return Waiting(moment(row.due_at), row.due_because, missing)


def contents(connection: Connection, study_uid: str) -> Contents:
    """What is known of a study's contents, to be held against what an archive lists."""
    of_it = (instances.c.study_uid == study_uid, instances.c.disposition != Disposition.OWN_RESULT)
    distinct = func.count(func.distinct(instances.c.sop_instance_uid))
    received = connection.execute(select(distinct).where(*of_it)).scalar_one()
    image = instances.c.disposition.in_((Disposition.ANALYSE, Disposition.PRIOR))
    by_series = select(instances.c.series_uid, distinct.label("images")).where(*of_it, image)
    images = {row.series_uid: row.images for row in connection.execute(by_series.group_by(instances.c.series_uid))}
    own = select(objects.c.sop_instance_uid, objects.c.series_uid).join(reports, reports.c.id == objects.c.report_id)
    sent = exists().where(deliveries.c.object_id == objects.c.id, deliveries.c.tries > 0)
    ours = connection.execute(own.where(reports.c.study_uid == study_uid, sent)).all()
    return Contents(int(received), images, len(ours), frozenset(row.series_uid for row in ours))

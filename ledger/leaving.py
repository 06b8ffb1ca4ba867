"""Asked right before an object leaves, and kept when we ourselves stopped it."""

from sqlalchemy import Connection, Integer, Text, and_, case, cast, exists, func, or_, select, update
from sqlalchemy.sql import ColumnElement

from ledger import shadow
from ledger.clinical import SINK, clinical_job
from ledger.delivery_records import STILL_TO_GO, DeliveryState
from ledger.history import note
from ledger.notifications import NotificationState
from ledger.records import Job, Stage
from ledger.states import JobState
from ledger.tables import deliveries, events, installation, jobs, notifications, objects, reports, studies
from ledger.work import RELEASED

STOPPED = "wrong_patient_stopped"


def may_leave(connection: Connection, object_id: int, destination: str) -> bool:
    """Whether the object is still wanted there, and nothing holds its study. A claim may be older than the answer."""
    wanted = (
        select(deliveries.c.object_id)
        .join(objects, objects.c.id == deliveries.c.object_id)
        .join(reports, reports.c.id == objects.c.report_id)
        .join(studies, studies.c.study_uid == reports.c.study_uid)
        .where(
            deliveries.c.object_id == object_id,
            deliveries.c.destination == destination,
            deliveries.c.state.in_(STILL_TO_GO),
            studies.c.hold == "",
            shadow.may_leave_now(connection),
        )
    )
    return connection.execute(wanted).first() is not None


def own_objects(connection: Connection, report_id: int) -> frozenset[str]:
    """SOP Instance UIDs of all that we made for the report's study: what its objects may refer to beside images."""
    study = select(reports.c.study_uid).where(reports.c.id == report_id).scalar_subquery()
    theirs = select(objects.c.sop_instance_uid).join(reports, reports.c.id == objects.c.report_id)
    return frozenset(connection.execute(theirs.where(reports.c.study_uid == study)).scalars())


def note_stopped(connection: Connection, job: Job, reason: str) -> None:
    """Something did not leave, because the proof of whose it is failed: an event of the study, and one more."""
    what = job.destination or "Report not made"
    note(connection, job.study_instance_uid, STOPPED, f"{what}: {reason}", None, job.job_id)
    if job.is_heartbeat:
        return
    one_more = cast(cast(installation.c.value, Integer) + 1, Text)
    mine = update(installation).where(installation.c.key == STOPPED).values(value=one_more)
    if connection.execute(mine).rowcount == 0:
        connection.execute(installation.insert().values(key=STOPPED, value="1"))


def is_stopped(connection: Connection, object_id: int, destination: str | None) -> bool:
    """Whether we have stopped an object on its way there already, or another form of it."""
    one = connection.execute(select(objects.c.report_id, objects.c.choice).where(objects.c.id == object_id)).one()
    forms = and_(objects.c.report_id == one.report_id, objects.c.choice == one.choice, objects.c.choice != "")
    same = select(objects.c.id).where(or_(objects.c.id == object_id, forms))
    stopped = select(deliveries.c.object_id).where(
        deliveries.c.object_id.in_(same),
        deliveries.c.destination == destination,
        deliveries.c.state == DeliveryState.STOPPED,
    )
    return connection.execute(stopped.limit(1)).first() is not None


def stopped_now(connection: Connection) -> int:
    """How many objects, messages and reports stay here now. Forms of one object count once at each destination."""
    form = case((objects.c.choice == "", cast(objects.c.id, Text)), else_=objects.c.choice)
    kept = (
        select(objects.c.report_id, deliveries.c.destination, form.label("form"))
        .join(objects, objects.c.id == deliveries.c.object_id)
        .where(deliveries.c.state == DeliveryState.STOPPED, deliveries.c.destination != SINK)
        .distinct()
    )
    untold = select(notifications.c.report_id).where(notifications.c.state == NotificationState.STOPPED)
    unmade = select(jobs.c.id).where(
        jobs.c.stage == Stage.REPORT, jobs.c.state == JobState.PARKED, clinical_job(), _was_stopped()
    )
    every = [select(func.count()).select_from(rows.subquery()).scalar_subquery() for rows in (kept, untold, unmade)]
    return sum(connection.execute(select(*every)).one())


def _was_stopped() -> ColumnElement[bool]:
    """A condition on rows of `jobs`: stopped, and not released since."""
    released = events.alias("released")
    since = exists().where(
        released.c.study_uid == jobs.c.study_uid,
        released.c.job_id == jobs.c.id,
        released.c.name == RELEASED,
        released.c.id > events.c.id,
    )
    return exists().where(
        events.c.study_uid == jobs.c.study_uid, events.c.job_id == jobs.c.id, events.c.name == STOPPED, ~since
    )


def studies_held(connection: Connection) -> int:
    """How many studies nothing may leave of now."""
    held = select(func.count()).select_from(studies).where(studies.c.hold != "", ~studies.c.is_heartbeat)
    return connection.execute(held).scalar_one()


def stopped_so_far(connection: Connection) -> int:
    """How many objects, messages and reports were stopped since this installation began, released or not."""
    value = connection.execute(select(installation.c.value).where(installation.c.key == STOPPED)).scalar()
    return int(value or 0)

"""Asked right before an object leaves, and kept when we ourselves stopped it."""

from sqlalchemy import Connection, Integer, Text, cast, func, select, update

from ledger.history import note
from ledger.records import STILL_TO_GO, Job
from ledger.tables import deliveries, installation, objects, reports, studies

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
    note(connection, job.study_instance_uid, STOPPED, f"{job.destination}: {reason}", None, job.job_id)
    one_more = cast(cast(installation.c.value, Integer) + 1, Text)
    mine = update(installation).where(installation.c.key == STOPPED).values(value=one_more)
    if connection.execute(mine).rowcount == 0:
        connection.execute(installation.insert().values(key=STOPPED, value="1"))


def studies_held(connection: Connection) -> int:
    """How many studies nothing may leave of now."""
    return connection.execute(select(func.count()).select_from(studies).where(studies.c.hold != "")).scalar_one()


def stopped_so_far(connection: Connection) -> int:
    """How often something was stopped, since this installation began."""
    value = connection.execute(select(installation.c.value).where(installation.c.key == STOPPED)).scalar()
    return int(value or 0)

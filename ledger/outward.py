"""What is still to leave, and what those it is for said last: for health, and for who asks after a study."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, func, select

from ledger.clinical import clinical_job
from ledger.codec import moment
from ledger.delivery_records import DeliveryState
from ledger.records import Stage
from ledger.states import UNFINISHED, JobState
from ledger.tables import deliveries, jobs, objects
from ledger.work import OUTWARD, of_held_study


@dataclass(frozen=True)
class StillToLeave:
    """One job of a study that is to send, ask or tell. tries: since it was queued, or released. reason: of the last."""

    stage: Stage
    destination: str
    tries: int
    due_at: datetime  # the next try; while one runs, when it was due
    reason: str


@dataclass(frozen=True)
class Refusal:
    """What a destination refused for good and nobody has released since. reason: the newest, never a person's words."""

    reports: int
    reason: str


def still_to_leave(connection: Connection, study_uid: str) -> list[StillToLeave]:
    """What was tried and will be again, in the order it was queued."""
    tried = and_(jobs.c.state.in_(UNFINISHED), jobs.c.stage.in_(OUTWARD), jobs.c.reason != "")
    rows = connection.execute(select(jobs).where(jobs.c.study_uid == study_uid, tried).order_by(jobs.c.id))
    return [
        StillToLeave(Stage(row.stage), row.destination or "", row.attempts, moment(row.due_at), row.reason)
        for row in rows
    ]


def newest_answers(connection: Connection) -> dict[str, str]:
    """By destination for which reports wait: why they do, as the newest try that failed has it.

    Newest by when a job is due again: while an answer changes, for at most one interval the one before it.
    """
    tried = and_(jobs.c.stage == Stage.DELIVER, jobs.c.state.in_(UNFINISHED), jobs.c.reason != "", clinical_job())
    last = (
        select(jobs.c.destination, func.max(jobs.c.due_at).label("due_at"))
        .where(tried, ~of_held_study())
        .group_by(jobs.c.destination)
        .subquery()
    )
    newest = and_(jobs.c.destination == last.c.destination, jobs.c.due_at == last.c.due_at)
    rows = connection.execute(select(jobs.c.destination, jobs.c.reason).join(last, newest).where(tried))
    return {row.destination: row.reason for row in rows}


def refusals(connection: Connection) -> dict[str, Refusal]:
    """By destination for which deliveries are parked because it refused something."""
    parked = and_(jobs.c.stage == Stage.DELIVER, jobs.c.state == JobState.PARKED, clinical_job())
    refused = and_(deliveries.c.destination == jobs.c.destination, deliveries.c.state == DeliveryState.REFUSED)
    rows = connection.execute(
        select(jobs.c.destination, deliveries.c.reason)
        .join(objects, objects.c.report_id == jobs.c.report_id)
        .join(deliveries, and_(deliveries.c.object_id == objects.c.id, refused))
        .where(parked)
        .group_by(jobs.c.destination, deliveries.c.reason)
        .order_by(func.max(deliveries.c.changed_at))
    )
    said = {row.destination: row.reason for row in rows}
    counted = connection.execute(select(jobs.c.destination, func.count()).where(parked).group_by(jobs.c.destination))
    return {destination: Refusal(count, said[destination]) for destination, count in counted if destination in said}

"""What adapters were told: which of them heard of a study, and which report comes too late to be told."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, exists, func, or_, select
from sqlalchemy.sql import ColumnElement

from ledger.codec import moment
from ledger.records import NotificationState, ReportKind, Stage, TriagePriority
from ledger.states import JobState
from ledger.tables import jobs, notifications, reports

_OPEN = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True)
class Notification:
    """One report and one adapter. reason: what it answered, or why it waits."""

    adapter: str
    report_kind: ReportKind
    priority: TriagePriority
    state: NotificationState
    reason: str
    changed_at: datetime


def of_study(connection: Connection, study_uid: str) -> list[Notification]:
    rows = connection.execute(
        select(notifications, reports.c.kind, reports.c.priority, jobs.c.reason.label("waits"))
        .join(reports, reports.c.id == notifications.c.report_id)
        .outerjoin(jobs, _job_of())
        .where(reports.c.study_uid == study_uid)
        .order_by(reports.c.id, notifications.c.adapter)
    )
    return [
        Notification(
            adapter=row.adapter,
            report_kind=ReportKind(row.kind),
            priority=TriagePriority(row.priority),
            state=NotificationState(row.state),
            reason=row.reason or (row.waits or "" if row.state == NotificationState.WAITING else ""),
            changed_at=moment(row.changed_at),
        )
        for row in rows
    ]


def adapters_told(connection: Connection, study_uid: str) -> set[str]:
    """Those with a report of the study that they accepted, or that waits for them."""
    query = (
        select(notifications.c.adapter)
        .join(reports, reports.c.id == notifications.c.report_id)
        .where(reports.c.study_uid == study_uid, notifications.c.state != NotificationState.NOT_NEEDED)
    )
    return set(connection.execute(query.distinct()).scalars())


def adapters_reached(connection: Connection, study_uid: str) -> set[str]:
    """Those that accepted a report of the study, or were sent one whose answer is not known."""
    tried = exists().where(_job_of(), jobs.c.attempts > 0, jobs.c.state.in_(_OPEN))
    query = (
        select(notifications.c.adapter)
        .join(reports, reports.c.id == notifications.c.report_id)
        .where(reports.c.study_uid == study_uid, or_(notifications.c.state == NotificationState.ACCEPTED, tried))
    )
    return set(connection.execute(query.distinct()).scalars())


def newer_for(connection: Connection, study_uid: str, report_id: int, adapter: str) -> bool:
    """Whether a later report of the study was made for the adapter: it says how things stand now."""
    later = (
        select(notifications.c.report_id)
        .join(reports, reports.c.id == notifications.c.report_id)
        .where(reports.c.study_uid == study_uid, reports.c.id > report_id, notifications.c.adapter == adapter)
    )
    return connection.execute(later.limit(1)).first() is not None


def withdrawals_before(connection: Connection, study_uid: str, report_id: int) -> int:
    counted = select(func.count()).where(
        reports.c.study_uid == study_uid, reports.c.kind == ReportKind.WITHDRAWN, reports.c.id < report_id
    )
    return int(connection.execute(counted.select_from(reports)).scalar_one())


def _job_of() -> ColumnElement[bool]:
    return and_(
        jobs.c.stage == Stage.NOTIFY,
        jobs.c.report_id == notifications.c.report_id,
        jobs.c.destination == notifications.c.adapter,
    )

"""What adapters were told: which of them heard of a study, and which report comes too late to be told."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, exists, func, or_, select, update
from sqlalchemy.sql import ColumnElement

from ledger.codec import moment
from ledger.database import db_now
from ledger.history import note
from ledger.queueing import dismiss
from ledger.records import NotificationState, ReportKind, Stage, TriagePriority
from ledger.states import IDLE, UNFINISHED
from ledger.tables import jobs, notifications, reports


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


def told_so_far(connection: Connection) -> dict[str, dict[NotificationState, int]]:
    """By adapter: how many reports are in which state."""
    columns = (notifications.c.adapter, notifications.c.state)
    found: dict[str, dict[NotificationState, int]] = {}
    for adapter, state, count in connection.execute(
        select(*columns, func.count()).group_by(*columns).order_by(*columns)
    ):
        found.setdefault(adapter, {})[NotificationState(state)] = count
    return found


def stop_telling(connection: Connection, adapter: str, why: str) -> int:
    """End the jobs that wait, or were parked, for an adapter; how many. Each study's history says why."""
    idle = and_(jobs.c.stage == Stage.NOTIFY, jobs.c.destination == adapter, jobs.c.state.in_(IDLE))
    ended = connection.execute(
        select(jobs.c.id, jobs.c.study_uid, jobs.c.report_id).where(idle).with_for_update()
    ).all()
    for row in ended:
        connection.execute(
            update(notifications)
            .where(notifications.c.report_id == row.report_id, notifications.c.adapter == adapter)
            .values(state=NotificationState.NOT_NEEDED, reason=why, changed_at=db_now())
        )
        note(connection, row.study_uid, "notification_not_needed", f"{adapter}: {why}", None, row.id)
    return dismiss(connection, jobs.c.id.in_([row.id for row in ended]), why)


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
    tried = exists().where(_job_of(), jobs.c.attempts > 0, jobs.c.state.in_(UNFINISHED))
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

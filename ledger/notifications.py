"""What adapters are told of a report and what they answer; which of them heard of a study, and what comes too late."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, and_, exists, func, or_, select, update
from sqlalchemy.sql import ColumnElement

from ledger import audit, deeds, shadow
from ledger.codec import instance_ref, load_result, moment
from ledger.database import db_now
from ledger.history import note
from ledger.queueing import dismiss
from ledger.records import Finding, InstanceRef, Job, ReportKind, SentReference, Stage, TriagePriority
from ledger.slices import Counted, is_slice, slices_marked, slices_refused
from ledger.states import IDLE, UNFINISHED, JobEvent
from ledger.tables import instances, jobs, notifications, objects, report_sources, reports, results
from ledger.work import end


class NotificationState(StrEnum):
    WAITING = "waiting"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    STOPPED = "stopped"  # by us: nobody could show whose it is
    NOT_NEEDED = "not_needed"  # its report was overtaken before the adapter heard of it
    SHADOW = "shadow"  # its report was made in shadow mode: nobody is ever told


STOPPED_OR_REFUSED = (NotificationState.REFUSED, NotificationState.STOPPED)


@dataclass(frozen=True)
class Notice:
    """What an adapter tells the outside of one report. No patient's identity: adapters read it from the source.

    findings: none of a slice model, whose images do not speak by themselves; what they say together, slices_marked and
    slices_refused, goes with a final report. withdrawals: withdrawn reports of the study before this one. overtaken:
    the adapter is to hear of a newer report of the study instead.
    """

    report_id: int
    study_instance_uid: str
    report_kind: ReportKind
    priority: TriagePriority
    findings: tuple[Finding, ...]  # of the most urgent image
    critical_flags: tuple[str, ...]
    made_at: datetime
    source: InstanceRef | None  # whose header says who the patient is and which order it belongs to
    objects: tuple[SentReference, ...]  # of the report
    withdrawals: int = 0
    overtaken: bool = False
    slices_marked: Counted = ()
    slices_refused: Counted = ()


@dataclass(frozen=True)
class Notification:
    """One report and one adapter. reason: what it answered, or why it waits."""

    adapter: str
    report_kind: ReportKind
    priority: TriagePriority
    state: NotificationState
    reason: str
    changed_at: datetime


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
    worst = min(said, key=lambda pair: pair[1].urgency, default=None)
    flags = dict.fromkeys(flag for _, result in said for flag in result.critical_flags)
    alone = [result for _, result in said if not is_slice(result)]
    final = report.kind == ReportKind.FINAL
    together = [(image.series_instance_uid, result) for image, result in said] if final else []
    speaks = min(alone, key=lambda result: result.urgency, default=None)
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
        slices_marked=slices_marked(together),
        slices_refused=slices_refused(together),
    )


def finish(connection: Connection, job: Job, state: NotificationState, reason: str) -> None:
    """Keep what became of telling. ACCEPTED and NOT_NEEDED end the job; REFUSED and STOPPED park it; WAITING only
    records."""
    connection.execute(
        update(notifications)
        .where(notifications.c.report_id == job.report_id, notifications.c.adapter == job.destination)
        .values(state=state, reason=reason, tries=notifications.c.tries + 1, changed_at=db_now())
    )
    text = f"{job.destination}: {state}{': ' + reason if reason else ''}"
    note(connection, job.study_instance_uid, f"notification_{state}", text, None, job.job_id)
    if state in (NotificationState.ACCEPTED, *STOPPED_OR_REFUSED):
        audit.record(connection, deeds.told(job, state, state in STOPPED_OR_REFUSED))
    if state in (NotificationState.ACCEPTED, NotificationState.NOT_NEEDED):
        end(connection, job, JobEvent.FINISHED, reason)
    elif state in STOPPED_OR_REFUSED:
        end(connection, job, JobEvent.FAILED_PERMANENT, reason)


def of_studies(connection: Connection, study_uids: Collection[str]) -> dict[str, list[Notification]]:
    """By study of which any was told: oldest report first, each report's adapters in the order of their names."""
    rows = connection.execute(
        select(notifications, reports.c.study_uid, reports.c.kind, reports.c.priority, jobs.c.reason.label("waits"))
        .join(reports, reports.c.id == notifications.c.report_id)
        .outerjoin(jobs, _job_of())
        .where(reports.c.study_uid.in_(study_uids))
        .order_by(reports.c.id, notifications.c.adapter)
    )
    found: dict[str, list[Notification]] = {}
    for row in rows:
        told = Notification(
            adapter=row.adapter,
            report_kind=ReportKind(row.kind),
            priority=TriagePriority(row.priority),
            state=NotificationState(row.state),
            reason=row.reason or (row.waits or "" if row.state == NotificationState.WAITING else ""),
            changed_at=moment(row.changed_at),
        )
        found.setdefault(row.study_uid, []).append(told)
    return found


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
    """Those with a report of the study that they accepted, or that waits for them; in shadow mode those too that would
    have been told."""
    silent = [NotificationState.NOT_NEEDED] + ([] if shadow.is_on(connection) else [NotificationState.SHADOW])
    query = (
        select(notifications.c.adapter)
        .join(reports, reports.c.id == notifications.c.report_id)
        .where(reports.c.study_uid == study_uid, notifications.c.state.not_in(silent))
    )
    return set(connection.execute(query.distinct()).scalars())


def adapters_reached(connection: Connection, study_uid: str) -> set[str]:
    """Those that accepted a report of the study, or were sent one whose answer is not known."""
    query = (
        select(notifications.c.adapter)
        .join(reports, reports.c.id == notifications.c.report_id)
        .where(reports.c.study_uid == study_uid, was_heard())
    )
    return set(connection.execute(query.distinct()).scalars())


def was_heard() -> ColumnElement[bool]:
    """A condition on rows of `notifications`: accepted, or sent and the answer is not known."""
    tried = exists().where(_job_of(), jobs.c.attempts > 0, jobs.c.state.in_(UNFINISHED))
    return or_(notifications.c.state == NotificationState.ACCEPTED, tried)


def newer_for(connection: Connection, study_uid: str, report_id: int, adapter: str) -> bool:
    """Whether a later report of the study was made for the adapter: it says how things stand now."""
    later = (
        select(notifications.c.report_id)
        .join(reports, reports.c.id == notifications.c.report_id)
        .where(
            reports.c.study_uid == study_uid,
            reports.c.id > report_id,
            notifications.c.adapter == adapter,
            notifications.c.state != NotificationState.SHADOW,
        )
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

"""How one report follows another: which was said last, which was overtaken before it left."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, or_, select, update
from sqlalchemy.sql import ColumnElement

from ledger import shadow
from ledger.database import db_now
from ledger.delivery_records import STILL_TO_GO, DeliveryState, Proof
from ledger.history import note
from ledger.notifications import NotificationState, was_heard
from ledger.queueing import dismiss
from ledger.records import ReportKind, SentReference, Stage
from ledger.standing import standing
from ledger.states import IDLE, JobState
from ledger.tables import deliveries, jobs, notifications, objects, report_sources, reports


def may_be_there() -> ColumnElement[bool]:
    """A condition on rows of `deliveries`: accepted, also where the destination says now that it is not there, or
    sent without an answer, which may have been accepted."""
    unanswered = and_(deliveries.c.tries > 0, deliveries.c.status.is_(None))
    return or_(deliveries.c.state == DeliveryState.DELIVERED, unanswered, deliveries.c.proof == Proof.MISSING)


def _alive() -> ColumnElement[bool]:
    """There, or on its way there."""
    return or_(deliveries.c.state.not_in((DeliveryState.NOT_NEEDED, DeliveryState.SHADOW)), may_be_there())


def last_report(connection: Connection, study_uid: str) -> Row[Any] | None:
    """The newest report that was not overtaken before any of it left; None when there is none.

    A report that no destination wanted was made and counts: it is not made twice. So does, in shadow mode alone, one
    that was made in shadow mode.
    """
    return _newest(connection, study_uid, shadow.was_said(connection))


def last_outside(connection: Connection, study_uid: str) -> Row[Any] | None:
    """The newest report that somebody outside has or is to get; None where the last of them took everything back."""
    last = _newest(connection, study_uid, ~reports.c.is_shadow)
    return None if last is None or last.kind == ReportKind.WITHDRAWN else last


def _newest(connection: Connection, study_uid: str, counts: ColumnElement[bool]) -> Row[Any] | None:
    rows = connection.execute(
        select(reports).where(reports.c.study_uid == study_uid, counts).order_by(reports.c.id.desc())
    )
    return next((row for row in rows.all() if row.is_shadow or not _was_overtaken(connection, row.id)), None)


def kind_of_correction(connection: Connection, study_uid: str) -> ReportKind:
    """How a report is corrected that is no longer true. In shadow mode nothing new is said: what is outside is taken
    back, and no other put in its place."""
    takes_back = shadow.is_on(connection) and last_outside(connection, study_uid) is not None
    return ReportKind.WITHDRAWN if takes_back else ReportKind.FINAL


def _was_overtaken(connection: Connection, report_id: int) -> bool:
    theirs = select(objects.c.id).where(objects.c.report_id == report_id)
    sent = select(deliveries.c.object_id).where(deliveries.c.object_id.in_(theirs))
    if connection.execute(sent.limit(1)).first() is None:
        return False
    if connection.execute(sent.where(_alive()).limit(1)).first() is not None:
        return False
    leaving = select(jobs.c.id).where(
        jobs.c.report_id == report_id, jobs.c.stage == Stage.DELIVER, jobs.c.state == JobState.RUNNING
    )
    return connection.execute(leaving.limit(1)).first() is None


def reports_that_stand(connection: Connection, study_uid: str) -> list[int]:
    """The reports of a study since the last withdrawal, in the order made: nothing has taken them back."""
    made = select(reports.c.id, reports.c.kind).where(reports.c.study_uid == study_uid, ~reports.c.is_shadow)
    rows = connection.execute(made.order_by(reports.c.id)).all()
    withdrawn = [row.id for row in rows if row.kind == ReportKind.WITHDRAWN]
    last = max((report_id for report_id in withdrawn if not _was_overtaken(connection, report_id)), default=0)
    return [row.id for row in rows if row.id > last]


def references(connection: Connection, report_ids: Sequence[int]) -> tuple[SentReference, ...]:
    """What a successor names as its predecessors: the reports' objects that are, or will be, at a destination."""
    sent = (
        select(objects, deliveries.c.destination)
        .join(deliveries, deliveries.c.object_id == objects.c.id)
        .where(objects.c.report_id.in_(report_ids), _alive())
        .order_by(objects.c.id, deliveries.c.destination)
    )
    rows = connection.execute(sent).all()
    held: dict[int, list[str]] = {}
    for row in rows:
        held.setdefault(row.id, []).append(row.destination)
    return tuple(_reference(row, held[row.id]) for row in {row.id: row for row in rows}.values())


def _reference(row: Row[Any], destinations: Sequence[str] = ()) -> SentReference:
    return SentReference(
        row.kind,
        row.sop_class_uid,
        row.sop_instance_uid,
        row.series_uid,
        destinations=tuple(destinations),
        preference=row.preference,
        report_id=row.report_id,
        path=row.path,
        sha256=row.sha256,
    )


def taken_back(connection: Connection, study_uid: str, before: int | None = None) -> tuple[SentReference, ...]:
    """Our own objects that say whose a study is where its images are damaged or gone.

    Those of reports that somebody outside has, or heard of through an adapter; where nobody did, of every report: then
    nothing leaves.

    before: of reports made before this one; None: of every one.
    """
    made = select(reports.c.id).where(reports.c.study_uid == study_uid)
    ids = list(connection.execute(made if before is None else made.where(reports.c.id < before)).scalars())
    mine = objects.c.report_id.in_(ids)
    heard = exists().where(notifications.c.report_id == objects.c.report_id, was_heard())
    sent = exists().where(deliveries.c.object_id == objects.c.id, _alive())
    query = select(objects).order_by(objects.c.id)
    rows = connection.execute(query.where(mine, or_(sent, heard))).all() or connection.execute(query.where(mine)).all()
    return tuple(_reference(row) for row in rows)


def destinations_reached(connection: Connection, study_uid: str) -> set[str]:
    """Where anything of the study's reports is, or may be."""
    query = (
        select(deliveries.c.destination)
        .join(objects, objects.c.id == deliveries.c.object_id)
        .join(reports, reports.c.id == objects.c.report_id)
        .where(reports.c.study_uid == study_uid, may_be_there())
    )
    return set(connection.execute(query.distinct()).scalars())


def overtake(connection: Connection, study_uid: str, why: str, *, everything: bool = False) -> int:
    """What has not left yet of reports that are no longer true stays here. Returns how many deliveries were stopped.

    No longer true: it rests on an instance that counts no more. everything: all reports of the study.
    """
    untrue = _reports_of(connection, study_uid) if everything else _untrue(connection, study_uid)
    if not untrue:
        return 0
    theirs = select(objects.c.id).where(objects.c.report_id.in_(untrue))
    waiting = and_(deliveries.c.object_id.in_(theirs), deliveries.c.state.in_(STILL_TO_GO))
    stopped = connection.execute(
        update(deliveries)
        .where(waiting)
        .values(state=DeliveryState.NOT_NEEDED, reason=f"Overtaken before it left: {why}", changed_at=db_now())
    ).rowcount
    _silence(connection, untrue)
    unsent = and_(jobs.c.stage.in_((Stage.DELIVER, Stage.NOTIFY)), jobs.c.state.in_(IDLE))
    lost = and_(jobs.c.stage == Stage.PROVE, jobs.c.state == JobState.PARKED)
    dismiss(connection, and_(jobs.c.report_id.in_(untrue), or_(unsent, lost)), "overtaken")
    if stopped:
        note(connection, study_uid, "deliveries_overtaken", f"{stopped} deliveries stopped: {why}")
    return stopped


def _reports_of(connection: Connection, study_uid: str) -> list[int]:
    return list(connection.execute(select(reports.c.id).where(reports.c.study_uid == study_uid)).scalars())


def _untrue(connection: Connection, study_uid: str) -> list[int]:
    stand = {row.id for row in standing(connection, study_uid)}
    query = (
        select(report_sources)
        .join(reports, reports.c.id == report_sources.c.report_id)
        .where(reports.c.study_uid == study_uid, reports.c.kind != ReportKind.WITHDRAWN)
    )
    return sorted({row.report_id for row in connection.execute(query) if row.instance_id not in stand})


def _silence(connection: Connection, report_ids: list[int]) -> None:
    """Adapters that have not heard of these reports do not hear of them any more."""
    still_open = (NotificationState.WAITING, NotificationState.REFUSED, NotificationState.STOPPED)
    connection.execute(
        update(notifications)
        .where(notifications.c.report_id.in_(report_ids), notifications.c.state.in_(still_open))
        .values(state=NotificationState.NOT_NEEDED, changed_at=db_now())
    )


def rests_on_what_stands(connection: Connection, report_id: int, study_uid: str) -> bool:
    """Whether every instance that a report rests on still counts."""
    return sources_of(connection, report_id) <= {row.id for row in standing(connection, study_uid)}


def sources_of(connection: Connection, report_id: int) -> set[int]:
    """The instances that a report rests on."""
    rows = connection.execute(select(report_sources.c.instance_id).where(report_sources.c.report_id == report_id))
    return set(rows.scalars())

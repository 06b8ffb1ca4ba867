"""Which instances of a study count now, whether they are one patient's, and what a change of that sets going.

The newest bytes under a SOP Instance UID count, rejected instances (IHE IOCM) do not. A study whose instances name
different patients is held: it is neither reported nor delivered until a correction or a rejection makes them agree.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, or_, select, update

from ledger.database import db_now
from ledger.history import note
from ledger.records import DeliveryState, Disposition, ReportKind, Stage
from ledger.states import JobState
from ledger.tables import (
    deliveries,
    instances,
    jobs,
    objects,
    rejections,
    report_sources,
    reports,
    results,
    studies,
)

CONFLICT = "Images of this study name different patients: nothing leaves until a correction makes them agree."
# Document titles of a rejection note (IHE RAD IOCM): quality, patient safety, incorrect worklist entry. The fourth,
# 113039 (retention expired), takes images from an archive and says nothing against what was seen on them.
WITHDRAWING = frozenset({"113001", "113037", "113038"})
_UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
_OF_A_PATIENT = (Disposition.ANALYSE, Disposition.PRIOR, Disposition.NOT_AN_IMAGE)


def standing(connection: Connection, study_uid: str) -> list[Row[Any]]:
    """Rows of `instances` that count, in order of receipt."""
    newer = instances.alias("newer")
    overtaken = exists().where(
        newer.c.sop_instance_uid == instances.c.sop_instance_uid, newer.c.version > instances.c.version
    )
    rejected = exists().where(
        rejections.c.sop_instance_uid == instances.c.sop_instance_uid, rejections.c.code.in_(WITHDRAWING)
    )
    query = select(instances).where(instances.c.study_uid == study_uid, ~overtaken, ~rejected)
    return list(connection.execute(query.order_by(instances.c.id)).all())


def patients_of(rows: Sequence[Row[Any]]) -> list[str]:
    """The different patients whom instances name, as digests; those that name nobody are silent."""
    named = {row.patient_digest for row in rows if row.disposition in _OF_A_PATIENT and row.patient_digest}
    return sorted(named)


def settle(connection: Connection, study_uid: str) -> None:
    """Hold the study, or let it go, by what its standing instances say. Called when either may have changed."""
    patients = patients_of(standing(connection, study_uid))
    before = connection.execute(
        select(studies.c.hold, studies.c.patient_digest).where(studies.c.study_uid == study_uid)
    )
    was = before.one()
    if len(patients) > 1:
        if not was.hold:
            connection.execute(update(studies).where(studies.c.study_uid == study_uid).values(hold=CONFLICT))
            note(connection, study_uid, "study_held", CONFLICT)
        return
    now = patients[0] if patients else was.patient_digest
    connection.execute(update(studies).where(studies.c.study_uid == study_uid).values(hold="", patient_digest=now))
    if was.hold:
        note(connection, study_uid, "study_let_go", "All images of this study name one patient again.")
    if was.hold or (was.patient_digest and now != was.patient_digest):
        overtake(connection, study_uid, "The patient of this study was corrected.")
        queue_report(connection, study_uid, ReportKind.FINAL, "The patient of this study was corrected.")


def is_rejected(connection: Connection, sop_instance_uid: str) -> bool:
    wanted = select(rejections.c.code).where(rejections.c.sop_instance_uid == sop_instance_uid)
    return connection.execute(wanted).scalar() in WITHDRAWING


def reject(connection: Connection, study_uid: str, code: str, sop_instance_uids: Sequence[str]) -> None:
    """Take a rejection note to heart: its instances count no more, and reports that rest on them are made anew."""
    known = set(
        connection.execute(
            select(rejections.c.sop_instance_uid).where(rejections.c.sop_instance_uid.in_(sop_instance_uids))
        ).scalars()
    )
    fresh = [uid for uid in dict.fromkeys(sop_instance_uids) if uid not in known]
    for uid in fresh:
        connection.execute(
            rejections.insert().values(sop_instance_uid=uid, study_uid=study_uid, code=code, rejected_at=db_now())
        )
    count = "1 instance" if len(fresh) == 1 else f"{len(fresh)} instances"
    note(connection, study_uid, "instances_rejected", f"A rejection note ({code}) names {count}.")
    if code not in WITHDRAWING or not fresh:
        return
    _drop_analyses(connection, study_uid, fresh)
    settle(connection, study_uid)
    if not _rests_on(connection, study_uid, fresh):
        return
    overtake(connection, study_uid, "Images that it rests on were rejected.")
    if _anything_left(connection, study_uid):
        queue_report(connection, study_uid, ReportKind.FINAL, "Images that the earlier report rests on were rejected.")
    else:
        queue_report(connection, study_uid, ReportKind.WITHDRAWN, "The images that it rests on were rejected.")


def _drop_analyses(connection: Connection, study_uid: str, sop_instance_uids: Sequence[str]) -> None:
    theirs = select(instances.c.id).where(instances.c.sop_instance_uid.in_(sop_instance_uids))
    waiting = and_(
        jobs.c.study_uid == study_uid,
        jobs.c.stage == Stage.ANALYSE,
        jobs.c.state == JobState.QUEUED,
        jobs.c.instance_id.in_(theirs),
    )
    connection.execute(
        update(jobs).where(waiting).values(state=JobState.SUCCEEDED, finished_at=db_now(), reason="rejected")
    )


def _rests_on(connection: Connection, study_uid: str, sop_instance_uids: Sequence[str]) -> bool:
    """Whether the newest report, if it is not withdrawn, rests on any of these."""
    last = last_report(connection, study_uid)
    if last is None or last.kind == ReportKind.WITHDRAWN:
        return False
    wanted = (
        select(instances.c.id)
        .join(report_sources, report_sources.c.instance_id == instances.c.id)
        .where(report_sources.c.report_id == last.id, instances.c.sop_instance_uid.in_(sop_instance_uids))
    )
    return connection.execute(wanted.limit(1)).first() is not None


def _anything_left(connection: Connection, study_uid: str) -> bool:
    """Whether a standing instance has something said of it by a model, or waits for it."""
    ids = [row.id for row in standing(connection, study_uid)]
    said = exists().where(results.c.instance_id.in_(ids), results.c.priority.is_not(None))
    coming = exists().where(jobs.c.instance_id.in_(ids), jobs.c.stage == Stage.ANALYSE, jobs.c.state.in_(_UNFINISHED))
    return bool(connection.execute(select(or_(said, coming))).scalar())


def last_report(connection: Connection, study_uid: str) -> Row[Any] | None:
    return connection.execute(
        select(reports).where(reports.c.study_uid == study_uid).order_by(reports.c.id.desc()).limit(1)
    ).first()


def overtake(connection: Connection, study_uid: str, why: str) -> int:
    """What of the study's reports has not left yet stays: it is no longer true. Returns how many deliveries."""
    theirs = (
        select(objects.c.id).join(reports, reports.c.id == objects.c.report_id).where(reports.c.study_uid == study_uid)
    )
    waiting = and_(
        deliveries.c.object_id.in_(theirs), deliveries.c.state.in_((DeliveryState.WAITING, DeliveryState.REFUSED))
    )
    stopped = connection.execute(
        update(deliveries)
        .where(waiting)
        .values(state=DeliveryState.NOT_NEEDED, reason=f"Overtaken before it left: {why}", changed_at=db_now())
    ).rowcount
    idle = and_(
        jobs.c.study_uid == study_uid,
        jobs.c.stage.in_((Stage.DELIVER, Stage.NOTIFY)),
        jobs.c.state.in_((JobState.QUEUED, JobState.PARKED)),
    )
    connection.execute(
        update(jobs).where(idle).values(state=JobState.SUCCEEDED, finished_at=db_now(), reason="overtaken")
    )
    if stopped:
        note(connection, study_uid, "deliveries_overtaken", f"{stopped} deliveries stopped: {why}")
    return stopped


def queue_report(connection: Connection, study_uid: str, kind: ReportKind, cause: str, after_s: float = 0.0) -> None:
    """Queue one report of the study unless one of its kind waits already; nothing where none was ever made."""
    if last_report(connection, study_uid) is None:
        return
    waits = exists().where(
        jobs.c.study_uid == study_uid,
        jobs.c.stage == Stage.REPORT,
        jobs.c.report_kind == kind,
        jobs.c.state == JobState.QUEUED,
    )
    if connection.execute(select(waits)).scalar():
        return
    connection.execute(
        jobs.insert().values(
            stage=Stage.REPORT,
            state=JobState.QUEUED,
            study_uid=study_uid,
            report_kind=kind,
            rank=0 if kind is ReportKind.WITHDRAWN else 2,
            queued_at=db_now(),
            due_at=db_now() + after_s,
            attempts=0,
            generation=0,
            reason="",
            cause=cause,
        )
    )

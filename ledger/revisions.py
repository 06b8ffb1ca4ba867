"""What a person sets going afterwards: reports are withdrawn, studies are looked at again."""

from sqlalchemy import Connection, exists, func, select, update

from ledger import audit, deeds, shadow
from ledger.clinical import clinical
from ledger.history import note
from ledger.outcomes import take_back
from ledger.queueing import queue_job, queue_report, report_is_coming
from ledger.records import Disposition, ReportKind, Stage
from ledger.standing import lock_study, standing
from ledger.states import UNFINISHED
from ledger.succession import last_report, sources_of
from ledger.tables import jobs, report_models, reports, studies


def recall(
    connection: Connection,
    cause: str,
    study_uid: str | None,
    model: tuple[str, str | None] | None,
    actor: str = deeds.PERSON,
) -> int:
    """Queue a withdrawal of the newest report of one study, or of all that rest on a model. Returns how many."""
    return sum(_recall(connection, uid, cause, actor) for uid in to_recall(connection, study_uid, model))


def _recall(connection: Connection, study_uid: str, cause: str, actor: str) -> bool:
    lock_study(connection, study_uid)
    last = last_report(connection, study_uid)
    if last is None or last.kind == ReportKind.WITHDRAWN:
        return False
    queued = queue_report(connection, study_uid, ReportKind.WITHDRAWN, cause)
    take_back(connection, study_uid, sources_of(connection, last.id))  # at once: the withdrawal itself may have to wait
    if queued:
        audit.record(connection, deeds.operated(actor, "recalled", study_uid, report=last.id))
        note(connection, study_uid, "report_recalled", f"A person recalled the report: {cause}")
    return queued


def to_recall(connection: Connection, study_uid: str | None, model: tuple[str, str | None] | None) -> list[str]:
    """Study Instance UIDs of the one study, or of those whose newest report rests on a model (name, version or all).

    A study whose report is withdrawn, or about to be, is not among them.
    """
    newest = select(func.max(reports.c.id)).where(shadow.was_said(connection)).group_by(reports.c.study_uid)
    coming = exists().where(report_is_coming(reports.c.study_uid, ReportKind.WITHDRAWN))
    query = select(reports.c.study_uid).where(reports.c.id.in_(newest), reports.c.kind != ReportKind.WITHDRAWN, ~coming)
    query = query.where(clinical(reports.c.study_uid))
    if study_uid is not None:
        query = query.where(reports.c.study_uid == study_uid)
    if model is not None:
        name, version = model
        used = [report_models.c.report_id == reports.c.id, report_models.c.name == name]
        used += [report_models.c.version == version] if version is not None else []
        query = query.where(exists().where(*used))
    return list(connection.execute(query.order_by(reports.c.study_uid)).scalars())


def look_again(connection: Connection, study_uid: str, cause: str, actor: str = deeds.PERSON) -> int:
    """Queue every standing image of a study that does not wait already, and a final report. Returns how many."""
    study = lock_study(connection, study_uid)
    if study is None or study.is_heartbeat:
        return 0
    coming = set(
        connection.execute(
            select(jobs.c.instance_id).where(
                jobs.c.study_uid == study_uid, jobs.c.stage == Stage.ANALYSE, jobs.c.state.in_(UNFINISHED)
            )
        ).scalars()
    )
    rows = [
        row
        for row in standing(connection, study_uid)
        if row.disposition == Disposition.ANALYSE and row.removed_at is None
    ]
    again = [row.id for row in rows if row.id not in coming]
    for instance_id in again:
        queue_job(connection, Stage.ANALYSE, study_uid, 1, instance_id=instance_id, cause=cause)
    if again:
        audit.record(connection, deeds.operated(actor, "looked_again", study_uid, images=len(again)))
        count = "1 image is" if len(again) == 1 else f"{len(again)} images are"
        note(connection, study_uid, "looked_at_again", f"{count} looked at again: {cause}")
        connection.execute(update(studies).where(studies.c.study_uid == study_uid).values(completed_at=None))
        queue_report(connection, study_uid, ReportKind.FINAL, cause)
    return len(again)

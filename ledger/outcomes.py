"""What a finished analysis or report leaves behind: results, objects, deliveries and the next job, in one go."""

import hashlib
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection, and_, exists, select, update
from sqlalchemy.exc import IntegrityError

from ledger import audit, deeds, shadow
from ledger.clinical import RANK, SINK
from ledger.completeness import note_complete
from ledger.database import db_now
from ledger.deliveries import queue_delivery, queue_notification
from ledger.errors import PermanentError
from ledger.figures import with_sd
from ledger.history import note
from ledger.notifications import adapters_reached
from ledger.queueing import queue_job, report_is_coming
from ledger.records import (
    ImageResult,
    Job,
    ReportKind,
    ResultObject,
    Stage,
    StudyFindings,
    TriagePriority,
)
from ledger.slo import clock_starts
from ledger.standing import lock_study, restate_priority
from ledger.statements import evidence_of, high_is_said, statement_now, why_outdated
from ledger.states import JobEvent
from ledger.succession import destinations_reached, last_outside, last_report, overtake
from ledger.tables import objects, report_models, report_sources, reports, results, studies
from ledger.work import end, final_report_waits, record_results, retry

WITHDRAWN = "Its report was withdrawn."


def finish_analysis(connection: Connection, job: Job, found: Sequence[ImageResult]) -> bool:
    """Store the results; True when a provisional report was queued because the study became HIGH."""
    assert job.instance is not None
    lock_study(connection, job.study_instance_uid)
    end(connection, job, JobEvent.FINISHED)
    priority = record_results(connection, job, tuple(found))
    if not job.is_heartbeat:
        audit.record(connection, deeds.analysed(job, found))
    for result in found:
        name = f"{result.model.name} {result.model.version}" if result.model else "No model"
        text = f"{name}: {result.status}" + (f", {result.reason}" if result.reason else _say(result))
        note(connection, job.study_instance_uid, "image_analysed", text, job.instance.instance_id, job.job_id)
    if priority is not TriagePriority.HIGH or job.is_heartbeat or _high_is_said(connection, job.study_instance_uid):
        return False
    queue_job(connection, Stage.REPORT, job.study_instance_uid, 0, report_kind=ReportKind.PROVISIONAL)
    note(connection, job.study_instance_uid, "priority_raised", "The study became HIGH: a provisional report is made.")
    return True


def _say(result: ImageResult) -> str:
    said = [
        f"{finding.label} {with_sd(finding.probability, finding.probability_sd)}"
        f"{' present' if finding.present else ''}{' in doubt' if finding.in_doubt else ''}"
        for finding in result.findings
    ]
    return f", {result.priority}: {'; '.join(said)}"


def _high_is_said(connection: Connection, study_uid: str) -> bool:
    """The last report says HIGH, or one that will is being made."""
    coming = exists().where(report_is_coming(study_uid, ReportKind.PROVISIONAL))
    return high_is_said(last_report(connection, study_uid)) or bool(connection.execute(select(coming)).scalar())


def finish_report(
    connection: Connection,
    job: Job,
    findings: StudyFindings | None,
    made: Sequence[tuple[ResultObject, str]],
    sends: Mapping[str, Sequence[str]],
    notify: Sequence[str],
) -> None:
    """End the report job and queue what follows from it.

    made: (object, path below the store). sends: destination -> SOP Instance UIDs of the objects that it gets.
    notify: keys of the adapters that hear of it. A withdrawal goes only where something was sent before. A report
    that is no longer true when it is finished is made again.
    """
    lock_study(connection, job.study_instance_uid)
    if findings is not None and made and (why := why_outdated(connection, findings)):
        retry(connection, job, why, 0.0)
        return
    end(connection, job, JobEvent.FINISHED)
    if job.report_kind is ReportKind.FINAL:
        _complete(connection, job)
    if findings is None or not made:
        text = "Nothing (new) to report." if findings is None else "No object was made."
        note(connection, job.study_instance_uid, "report_skipped", text, None, job.job_id)
        if job.is_heartbeat:  # no installed model is meant for it: it goes the rest of the path all the same
            queue_job(connection, Stage.DELIVER, job.study_instance_uid, RANK, destination=SINK)
    else:
        _publish(connection, job, findings, made, sends, notify)
    _restate(connection, job)


def _publish(
    connection: Connection,
    job: Job,
    findings: StudyFindings,
    made: Sequence[tuple[ResultObject, str]],
    sends: Mapping[str, Sequence[str]],
    notify: Sequence[str],
) -> None:
    in_shadow = not job.is_heartbeat and _stays_here(connection, findings)
    if findings.kind is ReportKind.WITHDRAWN:
        reached, heard = _reached(connection, job.study_instance_uid, in_shadow)
        sends = {destination: uids for destination, uids in sends.items() if destination in reached}
        notify = [adapter for adapter in notify if adapter in heard]
        told = [item.instance.instance_id for item in findings.looked_at]
        take_back(connection, job.study_instance_uid, told)
    try:
        report_id = _insert_report(connection, findings, made, in_shadow)
    except IntegrityError:
        raise PermanentError(
            "An object of this report has the UID of one that was made before, which is never made again: "
            "a fault of this program; keep the ledger and report it."
        ) from None
    sends = {destination: uids for destination, uids in sends.items() if uids}
    for destination, uids in sends.items():
        queue_delivery(connection, report_id, findings, destination, uids, in_shadow)
    for adapter in notify:
        queue_notification(connection, report_id, findings, adapter, in_shadow)
    text = f"{findings.kind.capitalize()} report: priority {findings.priority}, {len(made)} objects, "
    text += _where_to(sends, in_shadow) + (f" {job.cause}" if job.cause else "")
    note(connection, job.study_instance_uid, "report_made", text, None, job.job_id)
    if not job.is_heartbeat:
        audit.record(connection, deeds.reported(job, report_id, findings, len(made), [*sends, *notify]))


def _stays_here(connection: Connection, findings: StudyFindings) -> bool:
    """Made in shadow mode; but what takes back a report that is outside leaves all the same."""
    takes_back = findings.kind is ReportKind.WITHDRAWN
    return shadow.is_on(connection) and not (
        takes_back and last_outside(connection, findings.study_instance_uid) is not None
    )


def _reached(connection: Connection, study_uid: str, in_shadow: bool) -> tuple[set[str], set[str]]:
    """Destinations and adapters that a withdrawal goes to, or would go to."""
    if in_shadow:
        return shadow.would_have_reached(connection, study_uid)
    return destinations_reached(connection, study_uid), adapters_reached(connection, study_uid)


def _where_to(sends: Mapping[str, Sequence[str]], in_shadow: bool) -> str:
    if not sends:
        return "nothing of it is sent anywhere."
    places = ", ".join(sends)
    return f"made in shadow mode, never sent; it would have gone to {places}." if in_shadow else f"for {places}."


def take_back(connection: Connection, study_uid: str, instance_ids: Collection[int]) -> None:
    """What was said of these instances is withdrawn, and what has not left yet of the study's reports stays.

    Otherwise the next late image, or a job that a person releases, would bring back what a person recalled.
    """
    overtake(connection, study_uid, WITHDRAWN, everything=True)
    connection.execute(update(results).where(results.c.instance_id.in_(instance_ids)).values(withdrawn=True))


def _restate(connection: Connection, job: Job) -> None:
    """While a study is open its priority only rises; a final statement is what the list shows from then on."""
    study_uid = job.study_instance_uid
    if job.report_kind is ReportKind.PROVISIONAL:
        return
    is_open = connection.execute(select(final_report_waits(study_uid))).scalar()
    if is_open and job.report_kind is ReportKind.FINAL:
        return
    last = last_report(connection, study_uid)
    withdrawn = last is not None and last.kind == ReportKind.WITHDRAWN
    at_least = TriagePriority.NOT_ASSESSED if withdrawn else None
    restate_priority(connection, study_uid, at_least, job.cause or "the study is complete, and was weighed as a whole.")


def _complete(connection: Connection, job: Job) -> None:
    study_uid = job.study_instance_uid
    is_last = and_(studies.c.study_uid == study_uid, ~final_report_waits(study_uid))
    if connection.execute(update(studies).where(is_last).values(completed_at=db_now())).rowcount:
        note_complete(connection, job)


def _insert_report(
    connection: Connection, findings: StudyFindings, made: Sequence[tuple[ResultObject, str]], in_shadow: bool
) -> int:
    report_id = connection.execute(
        reports.insert()
        .values(
            study_uid=findings.study_instance_uid,
            kind=findings.kind,
            priority=findings.priority,
            statement=statement_now(connection, findings.study_instance_uid, findings.looked_at, findings.kind),
            evidence="" if findings.kind is ReportKind.PROVISIONAL else evidence_of(findings.looked_at),
            created_at=db_now(),
            reported_at=findings.reported_at.timestamp(),
            last_byte_at=clock_starts(findings),
            is_shadow=in_shadow,
        )
        .returning(reports.c.id)
    ).scalar_one()
    for made_object, path in made:
        connection.execute(
            objects.insert().values(
                report_id=report_id,
                kind=made_object.kind,
                sop_class_uid=made_object.sop_class_uid,
                sop_instance_uid=made_object.sop_instance_uid,
                series_uid=made_object.series_instance_uid,
                transfer_syntax_uid=made_object.transfer_syntax_uid,
                sha256=hashlib.sha256(made_object.content).hexdigest(),
                path=path,
                choice=made_object.choice,
                preference=made_object.preference,
            )
        )
    _insert_sources(connection, int(report_id), findings)
    return int(report_id)


def _insert_sources(connection: Connection, report_id: int, findings: StudyFindings) -> None:
    """What the report rests on: instances, and the models that looked at them."""
    sources = [
        {
            "report_id": report_id,
            "instance_id": item.instance.instance_id,
            "source_sha256": next((r.source_sha256 for r in item.results if r.source_sha256), ""),
        }
        for item in findings.looked_at
    ]
    models = {
        (result.model.name, result.model.version): result.model.digest
        for item in findings.looked_at
        for result in item.results
        if result.model
    }
    if sources:
        connection.execute(report_sources.insert(), sources)
    for (name, version), digest in sorted(models.items()):
        connection.execute(
            report_models.insert().values(report_id=report_id, name=name, version=version, digest=digest)
        )

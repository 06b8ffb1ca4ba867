"""What a finished job leaves behind: results, reports, objects, deliveries, and the next stage's job, in one go."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, select, update

from ledger.codec import instance_ref, load_result, moment
from ledger.database import db_now
from ledger.history import note
from ledger.records import (
    DeliveryOutcome,
    DeliveryState,
    Finding,
    ImageResult,
    InstanceRef,
    InstanceResults,
    Job,
    ReportKind,
    ResultObject,
    ResultStatus,
    SentReference,
    Stage,
    StoredObject,
    StudyFindings,
    TriagePriority,
    most_urgent,
)
from ledger.states import JobEvent, JobState
from ledger.tables import deliveries, instances, jobs, objects, reports, results, studies
from ledger.work import UNFINISHED, end, final_report_waits, record_results


def finish_analysis(connection: Connection, job: Job, found: Sequence[ImageResult]) -> bool:
    """Store the results; True when a provisional report was queued because the study became HIGH."""
    assert job.instance is not None
    end(connection, job, JobEvent.FINISHED)
    priority = record_results(connection, job, tuple(found))
    for result in found:
        name = f"{result.model.name} {result.model.version}" if result.model else "No model"
        text = f"{name}: {result.status}" + (f", {result.reason}" if result.reason else _say(result))
        note(connection, job.study_instance_uid, "image_analysed", text, job.instance.instance_id, job.job_id)
    if priority is not TriagePriority.HIGH or _high_is_said(connection, job.study_instance_uid):
        return False
    connection.execute(
        jobs.insert().values(
            stage=Stage.REPORT,
            state=JobState.QUEUED,
            study_uid=job.study_instance_uid,
            report_kind=ReportKind.PROVISIONAL,
            rank=0,
            queued_at=db_now(),
            due_at=db_now(),
            attempts=0,
            generation=0,
            reason="",
        )
    )
    note(connection, job.study_instance_uid, "priority_raised", "The study became HIGH: a provisional report leaves.")
    return True


def _say(result: ImageResult) -> str:
    said = [
        f"{finding.label} {finding.probability:.2f} ± {finding.probability_sd:.2f}"
        f"{' present' if finding.present else ''}{' in doubt' if finding.in_doubt else ''}"
        for finding in result.findings
    ]
    return f", {result.priority}: {'; '.join(said)}"


def _high_is_said(connection: Connection, study_uid: str) -> bool:
    """A report that says HIGH exists or is being made."""
    made = exists().where(reports.c.study_uid == study_uid, reports.c.priority == TriagePriority.HIGH)
    coming = exists().where(
        jobs.c.study_uid == study_uid,
        jobs.c.stage == Stage.REPORT,
        jobs.c.report_kind == ReportKind.PROVISIONAL,
        jobs.c.state.in_(UNFINISHED),
    )
    return bool(connection.execute(select(made | coming)).scalar())


def looked_at(connection: Connection, study_uid: str, *, routed_only: bool) -> list[InstanceResults]:
    """The study's instances in order of receipt, each with its results."""
    refs: dict[int, InstanceRef] = {
        row.id: instance_ref(row)
        for row in connection.execute(
            select(instances).where(instances.c.study_uid == study_uid).order_by(instances.c.id)
        )
    }
    said: dict[int, list[ImageResult]] = {instance_id: [] for instance_id in refs}
    for row in connection.execute(select(results).where(results.c.study_uid == study_uid).order_by(results.c.id)):
        result = load_result(row.body)
        if not routed_only or result.status is not ResultStatus.NOT_APPLICABLE:
            said[row.instance_id].append(result)
    return [
        InstanceResults(refs[instance_id], tuple(found))
        for instance_id, found in said.items()
        if found or not routed_only
    ]


def study_findings(connection: Connection, job: Job) -> StudyFindings | None:
    """What this report job may say; None when no model was meant for the study or nothing new is to be said."""
    study_uid = job.study_instance_uid
    looked = looked_at(connection, study_uid, routed_only=True)
    said = [result for item in looked for result in item.results]
    if not said:
        return None
    priority = most_urgent([result.priority for result in said if result.priority is not None])
    last = _last_report(connection, study_uid)
    kind = job.report_kind or ReportKind.FINAL
    if last is not None and last.statement == statement_of(said, priority, kind):
        return None
    high_is_said = last is not None and last.priority == TriagePriority.HIGH
    if kind is ReportKind.PROVISIONAL and (priority is not TriagePriority.HIGH or high_is_said):
        return None
    newest = connection.execute(
        select(results.c.created_at).where(results.c.study_uid == study_uid).order_by(results.c.created_at.desc())
    ).scalars()
    return StudyFindings(
        study_instance_uid=study_uid,
        kind=kind,
        priority=priority,
        looked_at=tuple(looked),
        reported_at=moment(next(iter(newest))),
        predecessors=_references(connection, last.id) if last is not None else (),
    )


def statement_of(said: Sequence[ImageResult], priority: TriagePriority, kind: ReportKind = ReportKind.FINAL) -> str:
    """A hash of what a report says: priority, each finding's presence, and whether anything was not judged.

    Of slices a final report also says how many they are and what they mark: every one that comes later changes the
    volume. A provisional one is silent about them.
    """
    presence: dict[str, str] = {}
    order = ("present", "undetermined", "absent")
    for result in said:
        for finding in result.findings:
            now = _presence(finding)
            presence[finding.label] = min(presence.get(finding.label, now), now, key=order.index)
    unjudged = any(result.status is not ResultStatus.ANALYSED for result in said)
    models = sorted({result.model.digest for result in said if result.model})
    statement: list[object] = [priority, presence, unjudged, models]
    slices = [result for result in said if result.model and result.model.volume_rule]
    if slices and kind is ReportKind.FINAL:
        statement.append([len(slices), *sorted(mask.pixels for result in slices for mask in result.masks)])
    text = json.dumps(statement, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _presence(finding: Finding) -> str:
    """As the reports code it: present stays present however much the passes disagree."""
    if finding.present:
        return "present"
    return "undetermined" if finding.in_doubt else "absent"


def _last_report(connection: Connection, study_uid: str) -> Row[Any] | None:
    return connection.execute(
        select(reports).where(reports.c.study_uid == study_uid).order_by(reports.c.id.desc()).limit(1)
    ).first()


def _references(connection: Connection, report_id: int) -> tuple[SentReference, ...]:
    rows = connection.execute(select(objects).where(objects.c.report_id == report_id).order_by(objects.c.id))
    return tuple(SentReference(row.kind, row.sop_class_uid, row.sop_instance_uid, row.series_uid) for row in rows)


def finish_report(
    connection: Connection,
    job: Job,
    findings: StudyFindings | None,
    made: Sequence[tuple[ResultObject, str]],
    destinations: Sequence[str],
) -> None:
    """End the report job and queue its deliveries. made: (object, path below the store)."""
    end(connection, job, JobEvent.FINISHED)
    if job.report_kind is ReportKind.FINAL:
        _complete(connection, job)
    if findings is None or not made:
        text = "Nothing (new) to report." if findings is None else "No object was made."
        note(connection, job.study_instance_uid, "report_skipped", text, None, job.job_id)
        return
    report_id = _insert_report(connection, findings, made)
    for destination in destinations:
        _queue_delivery(connection, report_id, findings, destination)
    text = f"{findings.kind.capitalize()} report: priority {findings.priority}, {len(made)} objects, "
    text += f"for {', '.join(destinations)}." if destinations else "no destination is configured."
    note(connection, job.study_instance_uid, "report_made", text, None, job.job_id)


def _complete(connection: Connection, job: Job) -> None:
    study_uid = job.study_instance_uid
    connection.execute(
        update(studies)
        .where(studies.c.study_uid == study_uid, ~final_report_waits(study_uid))
        .values(completed_at=db_now())
    )


def _insert_report(connection: Connection, findings: StudyFindings, made: Sequence[tuple[ResultObject, str]]) -> int:
    said = [result for item in findings.looked_at for result in item.results]
    report_id = connection.execute(
        reports.insert()
        .values(
            study_uid=findings.study_instance_uid,
            kind=findings.kind,
            priority=findings.priority,
            statement=statement_of(said, findings.priority, findings.kind),
            created_at=db_now(),
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
            )
        )
    return int(report_id)


def _queue_delivery(connection: Connection, report_id: int, findings: StudyFindings, destination: str) -> None:
    ids = connection.execute(select(objects.c.id).where(objects.c.report_id == report_id)).scalars()
    for object_id in ids.all():
        connection.execute(
            deliveries.insert().values(
                object_id=object_id,
                destination=destination,
                state=DeliveryState.WAITING,
                reason="",
                tries=0,
                changed_at=db_now(),
            )
        )
    connection.execute(
        jobs.insert().values(
            stage=Stage.DELIVER,
            state=JobState.QUEUED,
            study_uid=findings.study_instance_uid,
            report_id=report_id,
            destination=destination,
            rank=findings.priority.rank,
            queued_at=db_now(),
            due_at=db_now(),
            attempts=0,
            generation=0,
            reason="",
        )
    )


def undelivered(connection: Connection, job: Job) -> list[StoredObject]:
    """The report's objects that the job's destination has not yet accepted, in the order they were made.

    After a person released a parked job, objects refused before are among them.
    """
    rows = connection.execute(
        select(objects, reports.c.priority)
        .join(reports, reports.c.id == objects.c.report_id)
        .join(
            deliveries,
            and_(deliveries.c.object_id == objects.c.id, deliveries.c.destination == job.destination),
        )
        .where(objects.c.report_id == job.report_id, deliveries.c.state != DeliveryState.DELIVERED)
        .order_by(objects.c.id)
    )
    return [
        StoredObject(
            object_id=row.id,
            kind=row.kind,
            sop_class_uid=row.sop_class_uid,
            sop_instance_uid=row.sop_instance_uid,
            transfer_syntax_uid=row.transfer_syntax_uid,
            sha256=row.sha256,
            path=row.path,
            priority=TriagePriority(row.priority),
        )
        for row in rows
    ]


def record_delivery(connection: Connection, job: Job, outcome: DeliveryOutcome) -> None:
    """What the destination answered for one object. Kept even if the lease was lost: it is a fact."""
    connection.execute(
        update(deliveries)
        .where(
            deliveries.c.object_id == outcome.object_id,
            deliveries.c.destination == job.destination,
            deliveries.c.state != DeliveryState.DELIVERED,
        )
        .values(
            state=outcome.state,
            status=outcome.status,
            reason=outcome.reason,
            tries=deliveries.c.tries + 1,
            changed_at=db_now(),
        )
    )
    answer = "no answer" if outcome.status is None else f"status 0x{outcome.status:04X}"
    text = f"{job.destination}: {outcome.state}, {answer}{': ' + outcome.reason if outcome.reason else ''}"
    note(connection, job.study_instance_uid, f"delivery_{outcome.state}", text, None, job.job_id)

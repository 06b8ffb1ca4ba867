"""What a finished job leaves behind: results, reports, objects, deliveries, and the next stage's job, in one go."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, select, update

from ledger.codec import instance_ref, load_result, moment
from ledger.database import db_now
from ledger.history import note
from ledger.proofs import stored_object
from ledger.records import (
    DeliveryOutcome,
    DeliveryState,
    Finding,
    ImageResult,
    InstanceRef,
    InstanceResults,
    Job,
    NotificationState,
    Proof,
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
from ledger.standing import last_report, overtake, patients_of, standing
from ledger.states import JobEvent, JobState
from ledger.tables import (
    deliveries,
    instances,
    jobs,
    notifications,
    objects,
    report_models,
    report_sources,
    reports,
    results,
    studies,
)
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
    """The study's instances in order of receipt, each with its results.

    routed_only: those that count now (`ledger.standing`) and that a model was meant for; else everything.
    """
    every = select(instances).where(instances.c.study_uid == study_uid).order_by(instances.c.id)
    rows = standing(connection, study_uid) if routed_only else connection.execute(every).all()
    refs: dict[int, InstanceRef] = {row.id: instance_ref(row) for row in rows}
    said: dict[int, list[ImageResult]] = {instance_id: [] for instance_id in refs}
    for row in connection.execute(select(results).where(results.c.study_uid == study_uid).order_by(results.c.id)):
        result = load_result(row.body)
        if row.instance_id in said and not (routed_only and result.status is ResultStatus.NOT_APPLICABLE):
            said[row.instance_id].append(result)
    return [
        InstanceResults(refs[instance_id], tuple(found))
        for instance_id, found in said.items()
        if found or not routed_only
    ]


def study_findings(connection: Connection, job: Job) -> StudyFindings | None:
    """What this report job may say; None when no model was meant for the study or nothing new is to be said."""
    study_uid = job.study_instance_uid
    kind = job.report_kind or ReportKind.FINAL
    last = last_report(connection, study_uid)
    if kind is ReportKind.WITHDRAWN:
        return _withdrawal(connection, job, last)
    looked = looked_at(connection, study_uid, routed_only=True)
    said = [result for item in looked for result in item.results]
    if not said:
        return None
    priority = most_urgent([result.priority for result in said if result.priority is not None])
    same_evidence = last is not None and last.evidence in ("", evidence_of(looked))
    if last is not None and same_evidence and last.statement == _statement(connection, study_uid, said, priority, kind):
        return None
    high_is_said = last is not None and last.priority == TriagePriority.HIGH
    if kind is ReportKind.PROVISIONAL and (priority is not TriagePriority.HIGH or high_is_said):
        return None
    newest = connection.execute(
        select(results.c.created_at).where(results.c.study_uid == study_uid).order_by(results.c.created_at.desc())
    ).scalars()
    moments = [next(iter(newest)), *([last.created_at] if last is not None else [])]
    return StudyFindings(
        study_instance_uid=study_uid,
        kind=kind,
        priority=priority,
        looked_at=tuple(looked),
        reported_at=moment(max(moments)),
        predecessors=_references(connection, last.id) if last is not None else (),
    )


def _withdrawal(connection: Connection, job: Job, last: Row[Any] | None) -> StudyFindings | None:
    """A report that takes back the last one; None where there is none, or it was taken back before."""
    if last is None or last.kind == ReportKind.WITHDRAWN:
        return None
    sources = select(report_sources.c.instance_id).where(report_sources.c.report_id == last.id)
    ids = set(connection.execute(sources).scalars())
    every = looked_at(connection, job.study_instance_uid, routed_only=False)
    return StudyFindings(
        study_instance_uid=job.study_instance_uid,
        kind=ReportKind.WITHDRAWN,
        priority=TriagePriority.NOT_ASSESSED,
        looked_at=tuple(item for item in every if item.instance.instance_id in ids),
        reported_at=job.queued_at,
        predecessors=_references(connection, last.id),
        withdrawal_reason=job.cause,
    )


def evidence_of(looked: Sequence[InstanceResults]) -> str:
    """A hash of the instances that a report rests on, by their bytes."""
    names = sorted(f"{item.instance.sop_instance_uid} {item.instance.sha256}" for item in looked)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _statement(
    connection: Connection,
    study_uid: str,
    said: Sequence[ImageResult],
    priority: TriagePriority,
    kind: ReportKind,
) -> str:
    if kind is ReportKind.WITHDRAWN:
        return "withdrawn"
    patients = patients_of(standing(connection, study_uid))
    return statement_of(said, priority, kind, patients)


def statement_of(
    said: Sequence[ImageResult],
    priority: TriagePriority,
    kind: ReportKind = ReportKind.FINAL,
    patients: Sequence[str] = (),
) -> str:
    """A hash of what a report says: priority, each finding's presence, whether anything was not judged, by which
    models under which settings, and of whom.

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
    settings = sorted({result.settings_hash for result in said})
    statement: list[object] = [priority, presence, unjudged, models, settings, sorted(patients)]
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


def _references(connection: Connection, report_id: int) -> tuple[SentReference, ...]:
    """The report's objects, and where each of them is or is on its way to."""
    rows = connection.execute(select(objects).where(objects.c.report_id == report_id).order_by(objects.c.id)).all()
    held: dict[int, list[str]] = {row.id: [] for row in rows}
    sent = select(deliveries.c.object_id, deliveries.c.destination).where(
        deliveries.c.object_id.in_(list(held)),
        deliveries.c.state.in_((DeliveryState.WAITING, DeliveryState.DELIVERED)),
    )
    for delivery in connection.execute(sent.order_by(deliveries.c.destination)):
        held[delivery.object_id].append(delivery.destination)
    return tuple(
        SentReference(
            row.kind, row.sop_class_uid, row.sop_instance_uid, row.series_uid, tuple(held[row.id]), row.preference
        )
        for row in rows
    )


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
    notify: keys of the adapters that hear of it. A withdrawal goes only where something was sent before.
    """
    end(connection, job, JobEvent.FINISHED)
    if job.report_kind is ReportKind.FINAL:
        _complete(connection, job)
    if findings is None or not made:
        _confirm(connection, job)
        text = "Nothing (new) to report." if findings is None else "No object was made."
        note(connection, job.study_instance_uid, "report_skipped", text, None, job.job_id)
        return
    if findings.kind is ReportKind.WITHDRAWN:
        overtake(connection, job.study_instance_uid, "Its report was withdrawn.")
        reached = _destinations_reached(connection, job.study_instance_uid)
        sends = {destination: uids for destination, uids in sends.items() if destination in reached}
    report_id = _insert_report(connection, findings, made)
    sends = {destination: uids for destination, uids in sends.items() if uids}
    for destination, uids in sends.items():
        _queue_delivery(connection, report_id, findings, destination, uids)
    for adapter in notify:
        _queue_notification(connection, report_id, findings, adapter)
    if findings.kind is not ReportKind.PROVISIONAL:
        _restate_priority(connection, findings)
    text = f"{findings.kind.capitalize()} report: priority {findings.priority}, {len(made)} objects, "
    text += f"for {', '.join(sends)}." if sends else "nothing of it is sent anywhere."
    text += f" {job.cause}" if job.cause else ""
    note(connection, job.study_instance_uid, "report_made", text, None, job.job_id)


def _confirm(connection: Connection, job: Job) -> None:
    """A final report that said nothing new: the last one now rests on everything that was looked at."""
    last = last_report(connection, job.study_instance_uid)
    if job.report_kind is not ReportKind.FINAL or last is None or last.kind == ReportKind.WITHDRAWN:
        return
    evidence = evidence_of(looked_at(connection, job.study_instance_uid, routed_only=True))
    connection.execute(
        update(reports).where(reports.c.id == last.id, reports.c.evidence == "").values(evidence=evidence)
    )


def _destinations_reached(connection: Connection, study_uid: str) -> set[str]:
    query = (
        select(deliveries.c.destination)
        .join(objects, objects.c.id == deliveries.c.object_id)
        .join(reports, reports.c.id == objects.c.report_id)
        .where(reports.c.study_uid == study_uid, deliveries.c.state == DeliveryState.DELIVERED)
    )
    return set(connection.execute(query.distinct()).scalars())


def _restate_priority(connection: Connection, findings: StudyFindings) -> None:
    """While a study is open its priority only rises; a final statement is what the list shows from then on."""
    study = studies.c.study_uid == findings.study_instance_uid
    before = connection.execute(select(studies.c.priority).where(study)).scalar_one()
    if before == findings.priority:
        return
    connection.execute(update(studies).where(study).values(priority=findings.priority))
    if before and TriagePriority(before).rank < findings.priority.rank:
        text = f"Priority {before} became {findings.priority}: {findings.withdrawal_reason or 'the study changed'}."
        note(connection, findings.study_instance_uid, "priority_lowered", text)


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
            statement=_statement(connection, findings.study_instance_uid, said, findings.priority, findings.kind),
            evidence="" if findings.kind is ReportKind.PROVISIONAL else evidence_of(findings.looked_at),
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


def _queue_delivery(
    connection: Connection, report_id: int, findings: StudyFindings, destination: str, uids: Sequence[str]
) -> None:
    wanted = select(objects.c.id).where(objects.c.report_id == report_id, objects.c.sop_instance_uid.in_(uids))
    for object_id in connection.execute(wanted.order_by(objects.c.id)).scalars().all():
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
    connection.execute(jobs.insert().values(**_outward(Stage.DELIVER, report_id, findings, destination)))


def _queue_notification(connection: Connection, report_id: int, findings: StudyFindings, adapter: str) -> None:
    connection.execute(
        notifications.insert().values(
            report_id=report_id,
            adapter=adapter,
            state=NotificationState.WAITING,
            reason="",
            tries=0,
            changed_at=db_now(),
        )
    )
    connection.execute(jobs.insert().values(**_outward(Stage.NOTIFY, report_id, findings, adapter)))


def _outward(stage: Stage, report_id: int, findings: StudyFindings, destination: str) -> dict[str, object]:
    return {
        "stage": stage,
        "state": JobState.QUEUED,
        "study_uid": findings.study_instance_uid,
        "report_id": report_id,
        "destination": destination,
        "rank": 0 if findings.kind is ReportKind.WITHDRAWN else findings.priority.rank,
        "queued_at": db_now(),
        "due_at": db_now(),
        "attempts": 0,
        "generation": 0,
        "reason": "",
    }


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
        .where(
            objects.c.report_id == job.report_id,
            deliveries.c.state.in_((DeliveryState.WAITING, DeliveryState.REFUSED)),
        )
        .order_by(objects.c.id)
    )
    return [stored_object(row) for row in rows]


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
            context=outcome.context,
            proof=Proof.WAITING if outcome.state is DeliveryState.DELIVERED else Proof.NONE,
        )
    )
    if outcome.state is DeliveryState.DELIVERED:
        _others_of_choice(connection, job, outcome.object_id)
    answer = "no answer" if outcome.status is None else f"status 0x{outcome.status:04X}"
    text = f"{job.destination}: {outcome.state}, {answer}{': ' + outcome.reason if outcome.reason else ''}"
    note(connection, job.study_instance_uid, f"delivery_{outcome.state}", text, None, job.job_id)


def _others_of_choice(connection: Connection, job: Job, object_id: int) -> None:
    """One object of a choice was accepted: its siblings stay here, whatever happens to this process next."""
    one = connection.execute(select(objects.c.report_id, objects.c.choice).where(objects.c.id == object_id)).one()
    if not one.choice:
        return
    siblings = select(objects.c.id).where(
        objects.c.report_id == one.report_id, objects.c.choice == one.choice, objects.c.id != object_id
    )
    connection.execute(
        update(deliveries)
        .where(
            deliveries.c.object_id.in_(siblings),
            deliveries.c.destination == job.destination,
            deliveries.c.state != DeliveryState.DELIVERED,
        )
        .values(state=DeliveryState.NOT_NEEDED, reason="The destination accepted another form of it.")
    )

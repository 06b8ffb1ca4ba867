"""What a report of a study may say now, and whether that is news."""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select

from ledger import removal
from ledger.codec import instance_ref, load_result, moment
from ledger.records import (
    EarlierReport,
    Finding,
    ImageResult,
    InstanceRef,
    InstanceResults,
    Job,
    ReportKind,
    ResultStatus,
    SentReference,
    StudyFindings,
    TriagePriority,
)
from ledger.slices import is_slice, results_of, study_priority
from ledger.standing import patients_of, said_of, standing
from ledger.succession import (
    last_outside,
    last_report,
    references,
    reports_that_stand,
    rests_on_what_stands,
    sources_of,
    taken_back,
)
from ledger.tables import instances, reports, results, studies


def looked_at(connection: Connection, study_uid: str, *, routed_only: bool) -> list[InstanceResults]:
    """The study's instances in order of receipt, each with its results.

    routed_only: those that count now (`ledger.standing`), that a model was meant for and whose results were not
    withdrawn; else everything.
    """
    every = select(instances).where(instances.c.study_uid == study_uid).order_by(instances.c.id)
    rows = standing(connection, study_uid) if routed_only else connection.execute(every).all()
    refs: dict[int, InstanceRef] = {row.id: instance_ref(row) for row in rows}
    said: dict[int, list[ImageResult]] = {instance_id: [] for instance_id in refs}
    for row in connection.execute(select(results).where(results.c.study_uid == study_uid).order_by(results.c.id)):
        result = load_result(row.body)
        silent = row.withdrawn or result.status is ResultStatus.NOT_APPLICABLE
        if row.instance_id in said and not (routed_only and silent):
            said[row.instance_id].append(result)
    return [
        InstanceResults(refs[instance_id], tuple(found))
        for instance_id, found in said.items()
        if found or not routed_only
    ]


def study_findings(connection: Connection, job: Job) -> StudyFindings | None:
    """What this report job may say; None when no model was meant for the study or nothing new is to be said.

    A final report that repeats a provisional one is news: it says that nothing changed, or shows what else is flagged.
    """
    study_uid = job.study_instance_uid
    kind = job.report_kind or ReportKind.FINAL
    last = last_report(connection, study_uid)
    if kind is ReportKind.WITHDRAWN:
        return _withdrawal(connection, job, last)
    looked = looked_at(connection, study_uid, routed_only=True)
    priority = study_priority(results_of(looked))
    if priority is None:
        return None
    said = last is not None and _is_said(connection, last, looked, statement_now(connection, study_uid, looked, kind))
    repeats = last is not None and last.kind == ReportKind.PROVISIONAL and kind is ReportKind.FINAL
    if said and not repeats:
        return None
    if kind is ReportKind.PROVISIONAL and (priority is not TriagePriority.HIGH or high_is_said(last)):
        return None
    return StudyFindings(
        study_instance_uid=study_uid,
        kind=kind,
        priority=priority,
        looked_at=tuple(looked),
        reported_at=_moment_of(connection, job, last),
        predecessors=_followed(connection, study_uid, kind),
        follows=_earlier(last) if last is not None else None,
        cause=job.cause,
        revision=_reports_made(connection, study_uid),
        confirms=said and last is not None and not _flagged_since(connection, last, looked),
    )


def _moment_of(connection: Connection, job: Job, last: Row[Any] | None) -> datetime:
    """The content time of a report, the same however often it is built: when the newest that it says, or why it is
    made, was known; after the report that it follows, which a list sorted by time shows below it."""
    newest = select(func.max(results.c.created_at)).where(results.c.study_uid == job.study_instance_uid)
    moments = [moment(connection.execute(newest).scalar_one()), job.queued_at]
    return max([*moments, *([moment(last.created_at)] if last is not None else [])])


def _earlier(last: Row[Any]) -> EarlierReport:
    at = last.created_at if last.reported_at is None else last.reported_at
    return EarlierReport(ReportKind(last.kind), TriagePriority(last.priority), moment(at))


def _followed(connection: Connection, study_uid: str, kind: ReportKind) -> tuple[SentReference, ...]:
    """What a report follows: the last one, or, to take it back, every one that still stands somewhere."""
    if kind is ReportKind.WITHDRAWN:
        return references(connection, reports_that_stand(connection, study_uid))
    last = last_report(connection, study_uid)
    return references(connection, [last.id]) if last is not None else ()


def high_is_said(last: Row[Any] | None) -> bool:
    """Whether the last report says HIGH already."""
    return last is not None and last.priority == TriagePriority.HIGH


def _is_said(connection: Connection, last: Row[Any], looked: Sequence[InstanceResults], statement: str) -> bool:
    """Whether the last report says the same of the same images.

    A provisional one, whose evidence is empty, may rest on fewer, but not on any that count no more.
    """
    if last.statement != statement:
        return False
    if last.evidence:
        return bool(last.evidence == evidence_of(looked))
    return rests_on_what_stands(connection, last.id, last.study_uid)


def _flagged_since(connection: Connection, last: Row[Any], looked: Sequence[InstanceResults]) -> bool:
    """Whether an image is flagged that the last report does not rest on: it has no picture yet, nor a key image."""
    seen = sources_of(connection, last.id)
    late = [result for item in looked if item.instance.instance_id not in seen for result in item.results]
    return any(result.priority in (TriagePriority.HIGH, TriagePriority.MEDIUM) for result in late)


def _withdrawal(connection: Connection, job: Job, last: Row[Any] | None) -> StudyFindings | None:
    """A report that takes back the last one; None where there is none, or it was taken back before."""
    if last is None or last.kind == ReportKind.WITHDRAWN:
        return None
    outside = last_outside(connection, job.study_instance_uid)
    ids = sources_of(connection, last.id) | (sources_of(connection, outside.id) if outside is not None else set())
    every = looked_at(connection, job.study_instance_uid, routed_only=False)
    return StudyFindings(
        study_instance_uid=job.study_instance_uid,
        kind=ReportKind.WITHDRAWN,
        priority=TriagePriority.NOT_ASSESSED,
        looked_at=tuple(item for item in every if item.instance.instance_id in ids),
        reported_at=job.queued_at,
        predecessors=_followed(connection, job.study_instance_uid, ReportKind.WITHDRAWN),
        follows=_earlier(outside if outside is not None else last),
        cause=job.cause,
        revision=_reports_made(connection, job.study_instance_uid),
        takes_back=taken_back(connection, job.study_instance_uid),
    )


def _reports_made(connection: Connection, study_uid: str) -> int:
    count = select(func.count()).select_from(reports).where(reports.c.study_uid == study_uid)
    return int(connection.execute(count).scalar_one()) + removal.reports_before(connection, study_uid)


def why_outdated(connection: Connection, findings: StudyFindings) -> str:
    """Why a report that was being made must not leave; empty when it still says what is true. Study locked.

    It was written outside of any transaction: meanwhile an image may have been corrected or rejected, the study held,
    or another report made.
    """
    study_uid = findings.study_instance_uid
    if connection.execute(select(studies.c.hold).where(studies.c.study_uid == study_uid)).scalar():
        return "The study was held while its report was made."
    counting = said_of(connection, study_uid)
    told = {item.instance.instance_id for item in findings.looked_at}
    if findings.kind is not ReportKind.WITHDRAWN and not told <= counting:
        return "Images were corrected, rejected or withdrawn while the report was made."
    last = last_report(connection, study_uid)
    if findings.kind is ReportKind.WITHDRAWN:
        last = last_outside(connection, study_uid) or last
    named = {reference.report_id for reference in findings.predecessors}
    now = {reference.report_id for reference in _followed(connection, study_uid, findings.kind)}
    if named != now or (_earlier(last) if last is not None else None) != findings.follows:
        return "Another report of the study was made in the meantime."
    return ""


def evidence_of(looked: Sequence[InstanceResults]) -> str:
    """A hash of the instances that a report rests on, by their bytes."""
    names = sorted(f"{item.instance.sop_instance_uid} {item.instance.sha256}" for item in looked)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def statement_now(connection: Connection, study_uid: str, looked: Sequence[InstanceResults], kind: ReportKind) -> str:
    """`statement_of` for a study as it stands."""
    if kind is ReportKind.WITHDRAWN:
        return "withdrawn"
    said = [result for item in looked for result in item.results]
    return statement_of(said, study_priority(results_of(looked)), kind, patients_of(standing(connection, study_uid)))


def statement_of(
    said: Sequence[ImageResult],
    priority: TriagePriority | None,
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
    slices = [result for result in said if is_slice(result)]
    if slices and kind is ReportKind.FINAL:
        statement.append([len(slices), *sorted(mask.pixels for result in slices for mask in result.masks)])
    text = json.dumps(statement, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _presence(finding: Finding) -> str:
    """As the reports code it: present stays present however much the passes disagree."""
    if finding.present:
        return "present"
    return "undetermined" if finding.in_doubt else "absent"

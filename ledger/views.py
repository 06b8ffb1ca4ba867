"""Questions to the ledger: the triage list, what happened to a study, counts for health and metrics."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select, true

from ledger.codec import load_result, moment, moment_or_none
from ledger.commitments import outstanding
from ledger.database import db_now
from ledger.leaving import stopped_so_far
from ledger.records import (
    DeliveryState,
    Disposition,
    ImageResult,
    Proof,
    ReportKind,
    ResultStatus,
    Stage,
    TriagePriority,
    WorklistEntry,
)
from ledger.standing import counts_now
from ledger.states import UNFINISHED, JobState
from ledger.tables import deliveries, instances, jobs, objects, reports, results, studies
from ledger.work import OUTWARD, of_held_study


@dataclass(frozen=True)
class ParkedJob:
    job_id: int
    stage: Stage
    study_instance_uid: str
    destination: str | None
    reason: str
    parked_at: datetime | None


@dataclass(frozen=True)
class ObjectDelivery:
    """One result object and what became of it at one destination; destination None when there is none."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    report_kind: str
    priority: TriagePriority
    made_at: datetime
    destination: str | None
    state: DeliveryState | None
    status: int | None
    reason: str
    tries: int
    changed_at: datetime | None
    context: str = ""
    proof: Proof = Proof.NONE
    proof_text: str = ""
    proven_at: datetime | None = None


def worklist(connection: Connection, since: datetime | None, include_hidden: bool) -> list[WorklistEntry]:
    """Studies, most urgent first, then longest waiting. Hidden: those that no model is meant for."""
    query = select(studies)
    if since is not None:
        query = query.where(studies.c.last_received_at >= since.timestamp())
    rows = connection.execute(query).all()
    uids = [row.study_uid for row in rows]
    parts = _StudyParts(connection, uids)
    entries = [parts.entry(row) for row in rows]
    if not include_hidden:
        entries = [entry for entry in entries if entry.priority or entry.pending or entry.is_prior or entry.hold]
    return sorted(entries, key=_urgency)


def _urgency(entry: WorklistEntry) -> tuple[int, datetime]:
    rank = entry.priority.rank if entry.priority else len(TriagePriority)
    return rank + (10 if entry.is_prior else 0), entry.first_received_at


class _StudyParts:
    """Everything about some studies, read with one query a table."""

    def __init__(self, connection: Connection, uids: list[str]) -> None:
        self._instances = _grouped(
            connection.execute(
                select(
                    instances.c.study_uid,
                    instances.c.modality,
                    instances.c.disposition,
                    instances.c.sop_instance_uid,
                )
                .where(instances.c.study_uid.in_(uids))
                .order_by(instances.c.id)
            )
        )
        self._results = _grouped(
            connection.execute(
                select(results.c.study_uid, results.c.body)
                .join(instances, instances.c.id == results.c.instance_id)
                .where(results.c.study_uid.in_(uids), ~results.c.withdrawn, counts_now())
                .order_by(results.c.id)
            )
        )
        self._pending = _grouped(
            connection.execute(
                select(jobs.c.study_uid).where(
                    jobs.c.study_uid.in_(uids), jobs.c.stage == Stage.ANALYSE, jobs.c.state.in_(UNFINISHED)
                )
            )
        )
        self._deliveries = _grouped(
            connection.execute(
                select(
                    reports.c.study_uid,
                    reports.c.id.label("report_id"),
                    reports.c.priority,
                    reports.c.kind,
                    deliveries.c.destination,
                    deliveries.c.state,
                    deliveries.c.proof,
                    deliveries.c.changed_at,
                )
                .join(objects, objects.c.report_id == reports.c.id)
                .outerjoin(deliveries, deliveries.c.object_id == objects.c.id)
                .where(reports.c.study_uid.in_(uids))
                .order_by(reports.c.id)
            )
        )

    def entry(self, study: Row[Any]) -> WorklistEntry:
        rows = self._instances.get(study.study_uid, [])
        own = [row for row in rows if row.disposition != Disposition.OWN_RESULT]
        uids = {row.sop_instance_uid for row in own}
        said = [load_result(row.body) for row in self._results.get(study.study_uid, [])]
        worst = _worst([result for result in said if not _is_slice(result)])
        newest = self._newest_report(study.study_uid)
        sent = [row for row in newest if row.destination and row.state != DeliveryState.NOT_NEEDED]
        return WorklistEntry(
            study_instance_uid=study.study_uid,
            priority=TriagePriority(study.priority) if study.priority else None,
            is_prior=study.is_prior,
            is_complete=study.completed_at is not None or study.is_prior,
            modality="/".join(dict.fromkeys(row.modality for row in own)),
            instances=len(uids),
            uid_conflicts=len(own) - len(uids),
            pending=len(self._pending.get(study.study_uid, [])),
            findings=worst.findings if worst else (),
            slices_marked=_slices_marked([result for result in said if _is_slice(result)]),
            critical_flags=tuple(dict.fromkeys(flag for result in said for flag in result.critical_flags)),
            recommendations=worst.recommendations if worst else (),
            not_assessed_reason=next((r.reason for r in said if _unjudged(r)), ""),
            first_received_at=moment(study.first_received_at),
            last_received_at=moment(study.last_received_at),
            delivered_at=_all_delivered_at(sent),
            deliveries=_by_destination(sent),
            report_priority=TriagePriority(newest[0].priority) if newest else None,
            report_kind=ReportKind(newest[0].kind) if newest else None,
            hold=study.hold,
            proofs=_proofs(sent),
        )

    def _newest_report(self, study_uid: str) -> list[Row[Any]]:
        rows = self._deliveries.get(study_uid, [])
        return [row for row in rows if row.report_id == rows[-1].report_id]


def _grouped(rows: Iterable[Row[Any]]) -> dict[str, list[Row[Any]]]:
    groups: dict[str, list[Row[Any]]] = {}
    for row in rows:
        groups.setdefault(row.study_uid, []).append(row)
    return groups


def _unjudged(result: ImageResult) -> bool:
    return result.status in (ResultStatus.NOT_ASSESSED, ResultStatus.FAILED)


def _is_slice(result: ImageResult) -> bool:
    return result.model is not None and result.model.volume_rule is not None


def _slices_marked(said: list[ImageResult]) -> tuple[tuple[str, int, int], ...]:
    """Each label that any slice marks and holds for present: (label, in how many slices, of how many looked at)."""
    judged = [result for result in said if result.status is ResultStatus.ANALYSED]
    marked: dict[str, int] = {}
    for result in judged:
        for label in {f.label for f in result.findings if f.present} & {mask.label for mask in result.masks}:
            marked[label] = marked.get(label, 0) + 1
    return tuple((label, count, len(judged)) for label, count in sorted(marked.items()))


def _worst(said: list[ImageResult]) -> ImageResult | None:
    """The most urgent image that a model judged; the first of equals by its highest probability."""
    judged = [result for result in said if result.status is ResultStatus.ANALYSED and result.priority is not None]
    return min(
        judged,
        key=lambda result: (
            result.priority.rank if result.priority else 9,
            -max((finding.probability for finding in result.findings), default=0.0),
        ),
        default=None,
    )


def _all_delivered_at(rows: list[Row[Any]]) -> datetime | None:
    if not rows or any(row.state != DeliveryState.DELIVERED for row in rows):
        return None
    return moment(max(row.changed_at for row in rows))


def _by_destination(rows: list[Row[Any]]) -> tuple[tuple[str, str], ...]:
    order = [DeliveryState.REFUSED, DeliveryState.WAITING, DeliveryState.DELIVERED]
    found: dict[str, DeliveryState] = {}
    for row in rows:
        state = DeliveryState(row.state)
        found[row.destination] = min(found.get(row.destination, state), state, key=order.index)
    return tuple((destination, str(state)) for destination, state in found.items())


_LEAST_CERTAIN = (Proof.MISSING, Proof.NONE, Proof.WAITING, Proof.UNPROVEN, Proof.FOUND, Proof.COMMITTED)


def _proofs(rows: list[Row[Any]]) -> tuple[tuple[str, str], ...]:
    found: dict[str, Proof] = {}
    for row in rows:
        proof = Proof(row.proof)
        found[row.destination] = min(found.get(row.destination, proof), proof, key=_LEAST_CERTAIN.index)
    return tuple((destination, str(proof)) for destination, proof in found.items())


def hold(connection: Connection, study_uid: str) -> str:
    """Why nothing of a study may leave; empty while it may, and for a study that nobody knows."""
    return connection.execute(select(studies.c.hold).where(studies.c.study_uid == study_uid)).scalar() or ""


def study_objects(connection: Connection, study_uid: str) -> list[ObjectDelivery]:
    """Every result object of a study with its deliveries, in the order they were made."""
    rows = connection.execute(
        select(objects, reports.c.kind.label("report_kind"), reports.c.priority, reports.c.created_at, deliveries)
        .join(reports, reports.c.id == objects.c.report_id)
        .outerjoin(deliveries, deliveries.c.object_id == objects.c.id)
        .where(reports.c.study_uid == study_uid)
        .order_by(objects.c.id, deliveries.c.destination)
    )
    return [
        ObjectDelivery(
            kind=row.kind,
            sop_class_uid=row.sop_class_uid,
            sop_instance_uid=row.sop_instance_uid,
            path=row.path,
            report_kind=row.report_kind,
            priority=TriagePriority(row.priority),
            made_at=moment(row.created_at),
            destination=row.destination,
            state=DeliveryState(row.state) if row.state else None,
            status=row.status,
            reason=row.reason or "",
            tries=row.tries or 0,
            changed_at=moment_or_none(row.changed_at),
            context=row.context or "",
            proof=Proof(row.proof) if row.proof else Proof.NONE,
            proof_text=row.proof_text or "",
            proven_at=moment_or_none(row.proven_at),
        )
        for row in rows
    ]


def counts(connection: Connection) -> dict[str, dict[str, int]]:
    """Totals by kind, for metrics: instances by disposition, jobs by stage:state, results by status, deliveries."""
    pairs = {
        "instances": (instances.c.disposition,),
        "jobs": (jobs.c.stage, jobs.c.state),
        "results": (results.c.status,),
        "studies": (studies.c.priority,),
        "deliveries": (deliveries.c.destination, deliveries.c.state),
        "proofs": (deliveries.c.destination, deliveries.c.proof),
        "holds": (studies.c.hold != "",),
        "looked_again": (jobs.c.state,),
    }
    only = {"looked_again": and_(jobs.c.stage == Stage.ANALYSE, jobs.c.cause != "")}
    counted = {
        name: {
            ":".join(str(part or "none") for part in row[:-1]): row[-1]
            for row in connection.execute(
                select(*columns, func.count()).where(only.get(name, true())).group_by(*columns)
            )
        }
        for name, columns in pairs.items()
    }
    return {
        **counted,
        "stopped": {"wrong_patient": stopped_so_far(connection)},
        "commitments": outstanding(connection),
    }


def oldest_job_age_s(connection: Connection) -> float | None:
    """Seconds for which the oldest due analysis or report has waited or run; None when there is none.

    A held study waits for a person, not for us.
    """
    due = select(func.min(jobs.c.due_at)).where(
        jobs.c.state.in_(UNFINISHED), jobs.c.stage.not_in(OUTWARD), jobs.c.due_at <= db_now(), ~of_held_study()
    )
    age = connection.execute(select(db_now() - due.scalar_subquery())).scalar()
    return None if age is None else max(0.0, float(age))


def oldest_delivery_ages_s(connection: Connection) -> dict[str, float]:
    """Seconds for which each destination's oldest report has waited for it, retries included."""
    rows = connection.execute(
        select(jobs.c.destination, db_now() - func.min(jobs.c.queued_at))
        .where(jobs.c.state.in_(UNFINISHED), jobs.c.stage == Stage.DELIVER, ~of_held_study())
        .group_by(jobs.c.destination)
    )
    return {row[0]: max(0.0, float(row[1])) for row in rows}


def parked(connection: Connection) -> list[ParkedJob]:
    rows = connection.execute(select(jobs).where(jobs.c.state == JobState.PARKED).order_by(jobs.c.id))
    return [
        ParkedJob(row.id, Stage(row.stage), row.study_uid, row.destination, row.reason, moment_or_none(row.finished_at))
        for row in rows
    ]

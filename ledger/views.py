"""Questions to the ledger: what was made of a study and where it is, counts and ages for health and metrics."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select, true

from ledger.codec import moment, moment_or_none
from ledger.commitments import outstanding
from ledger.database import db_now
from ledger.leaving import stopped_so_far, studies_held
from ledger.records import (
    DeliveryState,
    Proof,
    Stage,
    TriagePriority,
)
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
    report_id: int = 0
    choice: str = ""  # objects of one report with the same choice are forms of one


def hold(connection: Connection, study_uid: str) -> str:
    """Why nothing of a study may leave; empty while it may, and for a study that nobody knows."""
    return connection.execute(select(studies.c.hold).where(studies.c.study_uid == study_uid)).scalar() or ""


def objects_of(connection: Connection, study_uids: Collection[str]) -> dict[str, list[ObjectDelivery]]:
    """By study that has any: every result object with its deliveries, in the order they were made."""
    rows = connection.execute(
        select(
            objects,
            reports.c.study_uid,
            reports.c.kind.label("report_kind"),
            reports.c.priority,
            reports.c.created_at,
            deliveries,
        )
        .join(reports, reports.c.id == objects.c.report_id)
        .outerjoin(deliveries, deliveries.c.object_id == objects.c.id)
        .where(reports.c.study_uid.in_(study_uids))
        .order_by(objects.c.id, deliveries.c.destination)
    )
    found: dict[str, list[ObjectDelivery]] = {}
    for row in rows:
        found.setdefault(row.study_uid, []).append(_object_delivery(row))
    return found


def _object_delivery(row: Row[Any]) -> ObjectDelivery:
    return ObjectDelivery(
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
        report_id=row.report_id,
        choice=row.choice,
    )


def counts(connection: Connection) -> dict[str, dict[str, int]]:
    """Totals by kind, for metrics: instances by disposition, jobs by stage:state, results by status, deliveries."""
    pairs = {
        "instances": (instances.c.disposition,),
        "jobs": (jobs.c.stage, jobs.c.state),
        "results": (results.c.status,),
        "studies": (studies.c.priority,),
        "deliveries": (deliveries.c.destination, deliveries.c.state),
        "proofs": (deliveries.c.destination, deliveries.c.proof),
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
        "held": {"studies": studies_held(connection)},
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


def oldest_outward_ages_s(connection: Connection) -> dict[Stage, dict[str, float]]:
    """By stage: seconds for which the oldest job for each destination, or adapter, has waited, retries included."""
    rows = connection.execute(
        select(jobs.c.stage, jobs.c.destination, db_now() - func.min(jobs.c.queued_at))
        .where(jobs.c.state.in_(UNFINISHED), jobs.c.stage.in_(OUTWARD), ~of_held_study())
        .group_by(jobs.c.stage, jobs.c.destination)
        .order_by(jobs.c.stage, jobs.c.destination)
    )
    found: dict[Stage, dict[str, float]] = {stage: {} for stage in OUTWARD}
    for stage, destination, age_s in rows:
        found[Stage(stage)][destination] = max(0.0, float(age_s))
    return found


def parked(connection: Connection) -> list[ParkedJob]:
    rows = connection.execute(select(jobs).where(jobs.c.state == JobState.PARKED).order_by(jobs.c.id))
    return [
        ParkedJob(row.id, Stage(row.stage), row.study_uid, row.destination, row.reason, moment_or_none(row.finished_at))
        for row in rows
    ]

"""Questions to the ledger: what was made of a study and where it is, counts and ages for health and metrics."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, select, true

from ledger import shadow
from ledger.clinical import SINK, clinical, clinical_job
from ledger.codec import moment, moment_or_none
from ledger.commitments import outstanding
from ledger.database import db_now
from ledger.delivery_records import DeliveryState, Proof
from ledger.leaving import stopped_so_far, studies_held
from ledger.records import Stage, TriagePriority
from ledger.removal import removed_so_far
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
    is_shadow: bool = False  # of a report that was made in shadow mode: never sent


def hold(connection: Connection, study_uid: str) -> str:
    """Why nothing of a study may leave; empty while it may, and for a study that nobody knows."""
    return connection.execute(select(studies.c.hold).where(studies.c.study_uid == study_uid)).scalar() or ""


def studies_ending(connection: Connection, end: str, limit: int) -> list[str]:
    """Study Instance UIDs that end so, of patients, at most `limit`."""
    ends = studies.c.study_uid.endswith(end, autoescape=True)
    found = select(studies.c.study_uid).where(ends, ~studies.c.is_heartbeat).order_by(studies.c.study_uid)
    return list(connection.execute(found.limit(limit)).scalars())


def objects_of(connection: Connection, study_uids: Collection[str]) -> dict[str, list[ObjectDelivery]]:
    """By study that has any: every result object with its deliveries, in the order they were made."""
    rows = connection.execute(
        select(
            objects,
            reports.c.study_uid,
            reports.c.kind.label("report_kind"),
            reports.c.priority,
            reports.c.created_at,
            reports.c.is_shadow,
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
        is_shadow=row.is_shadow,
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
    ours = {
        "instances": clinical(instances.c.study_uid),
        "jobs": clinical_job(),
        "results": clinical(results.c.study_uid),
        "studies": ~studies.c.is_heartbeat,
        "deliveries": deliveries.c.destination != SINK,
        "proofs": deliveries.c.destination != SINK,
    }
    only = ours | {"looked_again": and_(jobs.c.stage == Stage.ANALYSE, jobs.c.cause != "", clinical_job())}
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
        "removed": {"instances": removed_so_far(connection)},
        "commitments": outstanding(connection),
    }


def oldest_job_age_s(connection: Connection) -> float | None:
    """Seconds for which the oldest due analysis or report has waited or run; None when there is none.

    A held study waits for a person, not for us.
    """
    due = select(func.min(jobs.c.due_at)).where(
        jobs.c.state.in_(UNFINISHED),
        jobs.c.stage.not_in(OUTWARD),
        jobs.c.due_at <= db_now(),
        ~of_held_study(),
        clinical_job(),
    )
    age = connection.execute(select(db_now() - due.scalar_subquery())).scalar()
    return None if age is None else max(0.0, float(age))


def oldest_outward_ages_s(connection: Connection) -> dict[Stage, dict[str, float]]:
    """By stage: seconds for which the oldest job for each destination, or adapter, has waited, retries included."""
    rows = connection.execute(
        select(jobs.c.stage, jobs.c.destination, db_now() - func.min(jobs.c.queued_at))
        .where(jobs.c.state.in_(UNFINISHED), jobs.c.stage.in_(OUTWARD), ~of_held_study(), ~_held_in_shadow(connection))
        .where(clinical_job())
        .group_by(jobs.c.stage, jobs.c.destination)
        .order_by(jobs.c.stage, jobs.c.destination)
    )
    found: dict[Stage, dict[str, float]] = {stage: {} for stage in OUTWARD}
    for stage, destination, age_s in rows:
        found[Stage(stage)][destination] = max(0.0, float(age_s))
    return found


def _held_in_shadow(connection: Connection) -> ColumnElement[bool]:
    return and_(jobs.c.stage != Stage.PROVE, shadow.held_back(connection))


def parked_counts(connection: Connection) -> dict[tuple[Stage, str | None], int]:
    """How many jobs are parked, by stage and destination (or adapter): for who looks every few seconds."""
    kind = (jobs.c.stage, jobs.c.destination)
    waiting = select(*kind, func.count()).where(jobs.c.state == JobState.PARKED, clinical_job()).group_by(*kind)
    return {(Stage(stage), destination): count for stage, destination, count in connection.execute(waiting)}


def parked(connection: Connection) -> list[ParkedJob]:
    waiting = select(jobs).where(jobs.c.state == JobState.PARKED, clinical_job())
    rows = connection.execute(waiting.order_by(jobs.c.id))
    return [
        ParkedJob(row.id, Stage(row.stage), row.study_uid, row.destination, row.reason, moment_or_none(row.finished_at))
        for row in rows
    ]

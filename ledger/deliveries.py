"""What leaves: a report's objects for each destination, and what the destination answered."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, select, update

from ledger import audit, deeds
from ledger.clinical import RANK, SINK
from ledger.database import db_now
from ledger.delivery_records import NOT_GONE, STILL_TO_GO, DeliveryOutcome, DeliveryState, Proof
from ledger.history import note
from ledger.notifications import NotificationState
from ledger.proofs import of_job, stored_objects
from ledger.queueing import queue_job
from ledger.records import Job, ReportKind, Stage, StoredObject, StudyFindings
from ledger.tables import deliveries, notifications, objects

_UNTRIED = {"reason": "", "tries": 0, "changed_at": db_now()}


def queue_delivery(
    connection: Connection,
    report_id: int,
    findings: StudyFindings,
    destination: str,
    uids: Sequence[str],
    in_shadow: bool = False,
) -> None:
    """Queue some of a report's objects, by SOP Instance UID, for one destination; in shadow only say that they would
    have gone there."""
    state = DeliveryState.SHADOW if in_shadow else DeliveryState.WAITING
    wanted = select(objects.c.id).where(objects.c.report_id == report_id, objects.c.sop_instance_uid.in_(uids))
    for object_id in connection.execute(wanted.order_by(objects.c.id)).scalars().all():
        waiting = {"object_id": object_id, "destination": destination, "state": state}
        connection.execute(deliveries.insert().values(waiting | _UNTRIED))
    if not in_shadow:
        _queue_outward(connection, Stage.DELIVER, report_id, findings, destination)


def queue_notification(
    connection: Connection, report_id: int, findings: StudyFindings, adapter: str, in_shadow: bool = False
) -> None:
    """Queue a report for one adapter to tell of; in shadow only say that it would have been told."""
    state = NotificationState.SHADOW if in_shadow else NotificationState.WAITING
    waiting = {"report_id": report_id, "adapter": adapter, "state": state}
    connection.execute(notifications.insert().values(waiting | _UNTRIED))
    if not in_shadow:
        _queue_outward(connection, Stage.NOTIFY, report_id, findings, adapter)


def _queue_outward(
    connection: Connection, stage: Stage, report_id: int, findings: StudyFindings, destination: str
) -> None:
    rank = 0 if findings.kind is ReportKind.WITHDRAWN else findings.priority.rank
    rank = RANK if destination == SINK else rank
    queue_job(connection, stage, findings.study_instance_uid, rank, report_id=report_id, destination=destination)


def undelivered(connection: Connection, job: Job) -> list[StoredObject]:
    """The report's objects that the job's destination has not yet accepted, in the order they were made.

    After a person released a parked job, objects refused before are among them.
    """
    return stored_objects(connection, and_(of_job(job), deliveries.c.state.in_(STILL_TO_GO)))


def record_delivery(connection: Connection, job: Job, outcome: DeliveryOutcome) -> None:
    """What the destination answered for one object. Kept even if the lease was lost: it is a fact.

    What was overtaken while it was under way is not tried again; that it arrived all the same is kept.
    """
    arrived = outcome.state is DeliveryState.DELIVERED
    this = and_(deliveries.c.object_id == outcome.object_id, deliveries.c.destination == job.destination)
    before = connection.execute(select(deliveries).where(this)).first()
    closed = (DeliveryState.DELIVERED,) if arrived else (DeliveryState.DELIVERED, DeliveryState.NOT_NEEDED)
    connection.execute(
        update(deliveries)
        .where(this, deliveries.c.state.not_in(closed))
        .values(
            state=outcome.state,
            status=outcome.status,
            reason=outcome.reason,
            tries=deliveries.c.tries + int(outcome.was_sent),
            changed_at=db_now(),
            context=outcome.context,
            proof=Proof.WAITING if arrived else Proof.NONE,
        )
    )
    if arrived:
        _others_of_choice(connection, job, outcome.object_id)
    if not _is_the_same(before, outcome):
        _tell(connection, job, outcome, before.tries + int(outcome.was_sent) if before else 0)


def _is_the_same(before: Row[Any] | None, outcome: DeliveryOutcome) -> bool:
    """It waits as it did, for the same reason: how often and until when stands with the delivery, and is no event."""
    if before is None or outcome.state is not DeliveryState.WAITING:
        return False
    return (before.state, before.status, before.reason) == (outcome.state, outcome.status, outcome.reason)


def _tell(connection: Connection, job: Job, outcome: DeliveryOutcome, tries: int) -> None:
    """tries: how often it was sent, this time included."""
    unanswered = "not sent" if outcome.state in NOT_GONE else "no answer"
    answer = unanswered if outcome.status is None else f"status 0x{outcome.status:04X}"
    kind = connection.execute(select(objects.c.kind).where(objects.c.id == outcome.object_id)).scalar_one()
    often = f" after {tries} tries" if tries > 1 else ""
    why = f": {outcome.reason}" if outcome.reason else ""
    text = f"{job.destination}: {kind} {outcome.state}{often}, {answer}{why}"
    note(connection, job.study_instance_uid, f"delivery_{outcome.state}", text, None, job.job_id)
    if outcome.state in deeds.ENDED and not job.is_heartbeat:
        audit.record(connection, deeds.sent(job, outcome, kind))


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

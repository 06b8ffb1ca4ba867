"""Storage Commitment transactions (PS3.4 J): what a destination was asked to commit, and what it answered. What senders
ask us to commit is in ledger/commitment_requests.py.

The answer may come on the association that asked (the deliver role hears it) or on a new one to our own AE (the
receive role hears it, perhaps on another machine). Both write it here, and the prover reads it here. A transaction is
written before it is sent, so that no answer can come to a transaction that nobody knows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, select, update

from ledger.database import db_now
from ledger.delivery_records import DeliveryState, Proof
from ledger.history import note
from ledger.records import Job
from ledger.states import JobEvent, JobState
from ledger.tables import commitment_objects, commitments, deliveries, jobs, objects
from ledger.work import end

COMMITTED = 0  # in place of a Failure Reason (0008,1197)
COMMITTED_TEXT = "It took responsibility for it (Storage Commitment)."


@dataclass(frozen=True)
class CommitmentAnswer:
    """An N-EVENT-REPORT of the Storage Commitment Push Model. failed: (SOP Instance UID, Failure Reason)."""

    transaction_uid: str
    committed: tuple[str, ...]
    failed: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Transaction:
    """Who was asked what. addresses: of the destination, when it was asked."""

    destination: str
    addresses: tuple[str, ...]
    sop_instance_uids: frozenset[str]

    def is_meant_by(self, answer: CommitmentAnswer) -> bool:
        """Whether an answer has a word on any of what was asked."""
        return not self.sop_instance_uids.isdisjoint((*answer.committed, *(uid for uid, _ in answer.failed)))


@dataclass(frozen=True)
class Commitment:
    """The newest transaction that a proof job is part of. reasons: per SOP Instance UID; None: nothing said of it."""

    transaction_uid: str
    accepted: bool  # the destination took the request; its answer comes when it comes
    answered: bool
    age_s: float
    reasons: Mapping[str, int | None]


def answer_of(information: Any) -> CommitmentAnswer:
    """From the Event Information, a data set with the standard's keywords. Raises ValueError for anything else."""
    transaction_uid = str(information.get("TransactionUID") or "")
    if not transaction_uid:
        raise ValueError("no Transaction UID")
    committed = [_instance(item) for item in information.get("ReferencedSOPSequence") or ()]
    failed = [(_instance(item), _reason(item)) for item in information.get("FailedSOPSequence") or ()]
    return CommitmentAnswer(transaction_uid, tuple(committed), tuple(failed))


def _instance(item: Any) -> str:
    uid = item.get("ReferencedSOPInstanceUID")
    if not uid:
        raise ValueError("an item without a SOP Instance UID")
    return str(uid)


def _reason(item: Any) -> int:
    """Its Failure Reason; 0x0110 (processing failure) where it gives none."""
    value = item.get("FailureReason")
    return value if isinstance(value, int) and value != COMMITTED else 0x0110


def ask(
    connection: Connection,
    destination: str,
    transaction_uid: str,
    wanted: Sequence[tuple[Job, Sequence[str]]],
    addresses: Sequence[str] = (),
) -> None:
    """Keep a transaction before it is sent. wanted: each proof job with the SOP Instance UIDs it asks for.

    No sentence names the transaction: whoever reads it could answer in the destination's place.
    """
    row = {"transaction_uid": transaction_uid, "destination": destination, "addresses": " ".join(addresses)}
    connection.execute(commitments.insert().values(**row, asked_at=db_now()))
    for job, uids in wanted:
        for uid in uids:
            connection.execute(
                commitment_objects.insert().values(
                    transaction_uid=transaction_uid, sop_instance_uid=uid, job_id=job.job_id, is_read=False
                )
            )


def accept(connection: Connection, transaction_uid: str) -> None:
    """The destination took the request: only now was it asked, for many do not offer to be."""
    this = commitments.c.transaction_uid == transaction_uid
    connection.execute(update(commitments).where(this).values(accepted_at=db_now()))
    asked = (
        select(commitments.c.destination, jobs.c.study_uid, jobs.c.id, func.count().label("objects"))
        .join(commitment_objects, commitment_objects.c.transaction_uid == commitments.c.transaction_uid)
        .join(jobs, jobs.c.id == commitment_objects.c.job_id)
        .where(this)
        .group_by(commitments.c.destination, jobs.c.study_uid, jobs.c.id)
    )
    for row in connection.execute(asked).all():
        count = "1 object" if row.objects == 1 else f"{row.objects} objects"
        text = f"{row.destination} was asked to commit {count}."
        note(connection, row.study_uid, "commitment_asked", text, None, row.id)


def transaction_of(connection: Connection, transaction_uid: str) -> Transaction | None:
    """Of a transaction that a destination was asked; None for any other."""
    row = connection.execute(select(commitments).where(commitments.c.transaction_uid == transaction_uid)).first()
    if row is None:
        return None
    asked = select(commitment_objects.c.sop_instance_uid).where(commitment_objects.c.transaction_uid == transaction_uid)
    uids = frozenset(connection.execute(asked).scalars())
    return Transaction(row.destination, tuple(row.addresses.split()), uids)


def answered(connection: Connection, answer: CommitmentAnswer, destinations: Collection[str]) -> bool:
    """Keep an answer; False when none of `destinations` was asked that. The same answer may come again.

    Its proof jobs are due now. An answer that comes after other proof was found still makes it a commitment.
    """
    row = connection.execute(
        select(commitments).where(commitments.c.transaction_uid == answer.transaction_uid).with_for_update()
    ).first()
    if row is None or row.destination not in destinations:
        return False
    connection.execute(
        update(commitments)
        .where(commitments.c.transaction_uid == answer.transaction_uid, commitments.c.answered_at.is_(None))
        .values(answered_at=db_now())
    )
    for uid in answer.committed:
        _keep(connection, answer.transaction_uid, uid, COMMITTED)
    for uid, reason in answer.failed:
        _keep(connection, answer.transaction_uid, uid, reason)
    if row.answered_at is None:
        _note_answer(connection, answer.transaction_uid, row.destination)
    _raise_late(connection, answer, row.destination)
    theirs = select(commitment_objects.c.job_id).where(
        commitment_objects.c.transaction_uid == answer.transaction_uid, ~commitment_objects.c.is_read
    )
    waiting = and_(jobs.c.id.in_(theirs), jobs.c.state == JobState.QUEUED, jobs.c.due_at > db_now())
    connection.execute(update(jobs).where(waiting).values(due_at=db_now()))
    return True


def _keep(connection: Connection, transaction_uid: str, sop_instance_uid: str, reason: int) -> None:
    """The first word on an object stands, but that it is committed after all."""
    theirs = [
        commitment_objects.c.transaction_uid == transaction_uid,
        commitment_objects.c.sop_instance_uid == sop_instance_uid,
    ]
    if reason != COMMITTED:
        theirs.append(commitment_objects.c.reason.is_(None))
    connection.execute(update(commitment_objects).where(*theirs).values(reason=reason))


def _note_answer(connection: Connection, transaction_uid: str, destination: str) -> None:
    rows = connection.execute(
        select(jobs.c.study_uid, jobs.c.id, commitment_objects.c.reason)
        .join(jobs, jobs.c.id == commitment_objects.c.job_id)
        .where(commitment_objects.c.transaction_uid == transaction_uid)
    ).all()
    for study_uid, job_id in dict.fromkeys((row.study_uid, row.id) for row in rows):
        reasons = [row.reason for row in rows if row.id == job_id]
        text = f"{destination} answered: {reasons.count(COMMITTED)} of {len(reasons)} objects committed."
        note(connection, study_uid, "commitment_answered", text, None, job_id)


def _raise_late(connection: Connection, answer: CommitmentAnswer, destination: str) -> None:
    """What was found, or could not be proven, while the answer was on its way: now it is committed."""
    asked = select(commitment_objects.c.sop_instance_uid).where(
        commitment_objects.c.transaction_uid == answer.transaction_uid, commitment_objects.c.reason == COMMITTED
    )
    theirs = select(objects.c.id).where(objects.c.sop_instance_uid.in_(asked))
    connection.execute(
        update(deliveries)
        .where(
            deliveries.c.object_id.in_(theirs),
            deliveries.c.destination == destination,
            deliveries.c.state == DeliveryState.DELIVERED,
            deliveries.c.proof.in_((Proof.FOUND, Proof.UNPROVEN)),
        )
        .values(proof=Proof.COMMITTED, proof_text=COMMITTED_TEXT, proven_at=db_now())
    )


def newest(connection: Connection, job: Job) -> Commitment | None:
    """The newest transaction of a proof job whose answer was not yet read; None when there is none."""
    row = connection.execute(
        select(commitments, (db_now() - commitments.c.asked_at).label("age_s"))
        .join(commitment_objects, commitment_objects.c.transaction_uid == commitments.c.transaction_uid)
        .where(commitment_objects.c.job_id == job.job_id, ~commitment_objects.c.is_read)
        .order_by(commitments.c.asked_at.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    said = connection.execute(
        select(commitment_objects.c.sop_instance_uid, commitment_objects.c.reason).where(
            commitment_objects.c.transaction_uid == row.transaction_uid, commitment_objects.c.job_id == job.job_id
        )
    )
    return Commitment(
        transaction_uid=row.transaction_uid,
        accepted=row.accepted_at is not None,
        answered=row.answered_at is not None,
        age_s=max(0.0, float(row.age_s)),
        reasons={one.sop_instance_uid: one.reason for one in said},
    )


def close(connection: Connection, job: Job) -> None:
    """What was answered to a proof job so far is used up: the next time it is asked anew."""
    connection.execute(update(commitment_objects).where(commitment_objects.c.job_id == job.job_id).values(is_read=True))


def wait(connection: Connection, job: Job, transaction_uid: str, longest_s: float) -> None:
    """Give a proof job back until its answer comes, at most `longest_s`; at once when it has come already."""
    row = connection.execute(
        select(commitments.c.answered_at)
        .where(commitments.c.transaction_uid == transaction_uid)
        .with_for_update()  # against an answer that comes at this moment
    ).one()
    delay_s = longest_s if row.answered_at is None else 0.0
    end(connection, job, JobEvent.FAILED_RETRYABLE, "The destination was asked; its answer is awaited.", delay_s)


def outstanding(connection: Connection) -> dict[str, int]:
    """Transactions per destination that were accepted and never answered."""
    rows = connection.execute(
        select(commitments.c.destination, func.count())
        .where(commitments.c.accepted_at.is_not(None), commitments.c.answered_at.is_(None))
        .group_by(commitments.c.destination)
    )
    return {row[0]: int(row[1]) for row in rows}

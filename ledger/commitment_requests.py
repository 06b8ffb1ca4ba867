"""Requests for storage commitment that senders make of us (PS3.4 J), from the N-ACTION until the sender has heard us.
What we ask of destinations is in ledger/commitments.py.

A request is written before it is answered, and stays due until its sender has confirmed our word: on the association
that asked or on any later one, after any number of restarts. Whoever tells it holds it under a lease.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, exists, func, or_, select, update
from sqlalchemy.sql import ColumnElement

from ledger import assembly
from ledger.commitment_results import (
    PROCESSING_FAILURE,
    CommitmentRequest,
    CommitmentResult,
    Holding,
    Listed,
    in_words,
)
from ledger.commitments import COMMITTED
from ledger.completion import LIMIT_S
from ledger.database import db_now
from ledger.errors import LeaseLost
from ledger.history import note
from ledger.tables import commitment_request_items as listed_items
from ledger.tables import commitment_requests as requests
from ledger.tables import instances

SAME_ASSOCIATION_S: Final = 2.0  # the association that asked has the first chance to hear the answer
GIVE_UP_S: Final = 86_400.0  # a sender that cannot be told for a day; it has long asked again, or kept its images
ALARM_FOR_S: Final = 7 * 86_400.0  # how long a request that was given up is shown


class RequestState(StrEnum):
    WAITING = "waiting"  # to be judged and told
    CONFIRMED = "confirmed"  # the sender heard it
    PARKED = "parked"  # it could not be told


@dataclass(frozen=True)
class HeldRequest:
    """A request under our lease. age_s: since it was asked. judged_s: since the files were read, None: not yet."""

    request_id: int
    calling_ae_title: str
    transaction_uid: str
    generation: int
    attempt: int
    age_s: float
    judged_s: float | None
    is_duplicate: bool


def keep(connection: Connection, request: CommitmentRequest, patience_s: float, limit_s: float = LIMIT_S) -> int:
    """Write a request before it is answered; its key.

    The same request again is the same one, to be judged and told anew. Another list under its Transaction UID is kept
    as a duplicate, and every instance of it fails with 0x0131.
    """
    known = connection.execute(
        select(requests.c.id, requests.c.digest).where(
            requests.c.calling_ae_title == request.calling_ae_title,
            requests.c.transaction_uid == request.transaction_uid,
        )
    ).all()
    assembly.stated(connection, request.calling_ae_title, [one.sop_instance_uid for one in request.listed], limit_s)
    again = next((row.id for row in known if row.digest == request.digest), None)
    if again is None:
        return _insert(connection, request, patience_s, is_duplicate=bool(known))
    connection.execute(
        update(requests)
        .where(requests.c.id == again)
        .values(**_asked_now(patience_s), generation=requests.c.generation + 1, judged_at=None)
    )
    return int(again)


def _asked_now(patience_s: float) -> dict[str, Any]:
    return {
        "state": RequestState.WAITING,
        "asked_at": db_now(),
        "patience_until": db_now() + patience_s,
        "due_at": db_now() + SAME_ASSOCIATION_S,
        "attempts": 0,
        "lease_owner": None,
        "lease_expires_at": None,
        "ended_at": None,
        "status": None,
        "reason": "",
    }


def _insert(connection: Connection, request: CommitmentRequest, patience_s: float, is_duplicate: bool) -> int:
    inserted = connection.execute(
        requests.insert()
        .values(
            calling_ae_title=request.calling_ae_title,
            transaction_uid=request.transaction_uid,
            digest=request.digest,
            is_duplicate=is_duplicate,
            generation=0,
            **_asked_now(patience_s),
        )
        .returning(requests.c.id)
    )
    request_id = int(inserted.scalar_one())
    connection.execute(
        listed_items.insert(),
        [
            {
                "request_id": request_id,
                "position": position,
                "sop_class_uid": one.sop_class_uid,
                "sop_instance_uid": one.sop_instance_uid,
            }
            for position, one in enumerate(request.listed)
        ],
    )
    return request_id


def _all_here() -> ColumnElement[bool]:
    """A condition on rows of `requests`: everything that it lists has been received."""
    here = exists().where(instances.c.sop_instance_uid == listed_items.c.sop_instance_uid)
    return ~exists().where(listed_items.c.request_id == requests.c.id, ~here)


def _waiting(calling_ae_title: str) -> list[ColumnElement[bool]]:
    return [
        requests.c.state == RequestState.WAITING,
        requests.c.calling_ae_title == calling_ae_title,
        requests.c.due_at <= db_now(),
        _ready(),
    ]


def _ready() -> ColumnElement[bool]:
    """What is listed is here, or was waited for long enough."""
    return or_(requests.c.patience_until <= db_now(), requests.c.is_duplicate, _all_here())


def claim(connection: Connection, calling_ae_title: str, owner: str, lease_s: float) -> HeldRequest | None:
    """Take the request of a sender that is due first, and ready."""
    return _claim(connection, _waiting(calling_ae_title), owner, lease_s)


def claim_this(connection: Connection, request_id: int, owner: str, lease_s: float) -> HeldRequest | None:
    """Take one request before it is due, for the association that asked; None while it is not ready."""
    this = [requests.c.id == request_id, requests.c.state == RequestState.WAITING, _ready()]
    return _claim(connection, this, owner, lease_s)


def _claim(
    connection: Connection, wanted: Sequence[ColumnElement[bool]], owner: str, lease_s: float
) -> HeldRequest | None:
    free = or_(requests.c.lease_expires_at.is_(None), requests.c.lease_expires_at < db_now())
    found = connection.execute(
        select(requests.c.id)
        .where(*wanted, free)
        .order_by(requests.c.due_at, requests.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).scalar()
    if found is None:
        return None
    connection.execute(
        update(requests)
        .where(requests.c.id == found)
        .values(
            generation=requests.c.generation + 1,
            attempts=requests.c.attempts + 1,
            lease_owner=owner,
            lease_expires_at=db_now() + lease_s,
        )
    )
    row = connection.execute(
        select(
            requests,
            (db_now() - requests.c.asked_at).label("age_s"),
            (db_now() - requests.c.judged_at).label("judged_s"),
        ).where(requests.c.id == found)
    ).one()
    return HeldRequest(
        request_id=row.id,
        calling_ae_title=row.calling_ae_title,
        transaction_uid=row.transaction_uid,
        generation=row.generation,
        attempt=row.attempts,
        age_s=row.age_s,
        judged_s=row.judged_s,
        is_duplicate=row.is_duplicate,
    )


def _held(held: HeldRequest) -> ColumnElement[bool]:
    return and_(
        requests.c.id == held.request_id,
        requests.c.generation == held.generation,
        requests.c.state == RequestState.WAITING,
    )


def _move(connection: Connection, held: HeldRequest, **values: Any) -> None:
    """Raises LeaseLost, and the transaction with it, when it is not held any more."""
    if connection.execute(update(requests).where(_held(held)).values(**values)).rowcount != 1:
        raise LeaseLost(f"commitment request {held.request_id} is no longer ours")


def holdings(connection: Connection, held: HeldRequest) -> list[Holding]:
    """Everything the request lists, in its order, with the newest version that we received under each UID.

    Where other bytes came under a UID that was known, the newest are what its sender has and what a reader would get:
    those are committed to. Older ones are kept beside them all the same. A rejection note (IHE IOCM) says that an
    image must not be used, not that it need not be kept: it changes nothing here.
    """
    newer = instances.alias("newer")
    overtaken = (
        exists()
        .where(newer.c.sop_instance_uid == instances.c.sop_instance_uid, newer.c.version > instances.c.version)
        .correlate(instances)
    )
    newest = and_(instances.c.sop_instance_uid == listed_items.c.sop_instance_uid, ~overtaken)
    rows = connection.execute(
        select(
            listed_items.c.position,
            listed_items.c.sop_class_uid.label("listed_class"),
            listed_items.c.sop_instance_uid.label("listed_uid"),
            instances.c.id,
            instances.c.sop_class_uid,
            instances.c.sha256,
            instances.c.size_bytes,
            instances.c.transfer_syntax_uid,
            instances.c.path,
            instances.c.study_uid,
            instances.c.removed_at,
            (db_now() - instances.c.received_at).label("age_s"),
        )
        .select_from(listed_items.outerjoin(instances, newest))
        .where(listed_items.c.request_id == held.request_id)
        .order_by(listed_items.c.position)
    )
    return [
        Holding(
            position=row.position,
            listed=Listed(row.listed_class, row.listed_uid),
            instance_id=row.id,
            sop_class_uid=row.sop_class_uid,
            sha256=row.sha256 or "",
            size_bytes=row.size_bytes or 0,
            transfer_syntax_uid=row.transfer_syntax_uid or "",
            path=row.path or "",
            age_s=float(row.age_s or 0.0),
            study_uid=row.study_uid or "",
            is_removed=row.removed_at is not None,
        )
        for row in rows
    ]


def judged(connection: Connection, held: HeldRequest, reasons: Mapping[int, int]) -> None:
    """Keep what was found, by position in the list. Raises LeaseLost."""
    _move(connection, held, judged_at=db_now())
    this = and_(listed_items.c.request_id == held.request_id, listed_items.c.position == bindparam("at"))
    found = [{"at": position, "found": reason} for position, reason in reasons.items()]
    connection.execute(update(listed_items).where(this).values(reason=bindparam("found")), found)


def result(connection: Connection, held: HeldRequest) -> CommitmentResult:
    """What was found when it was judged last. What nobody judged is not committed to."""
    rows = connection.execute(
        select(listed_items).where(listed_items.c.request_id == held.request_id).order_by(listed_items.c.position)
    )
    found = (
        (Listed(row.sop_class_uid, row.sop_instance_uid), PROCESSING_FAILURE if row.reason is None else row.reason)
        for row in rows
    )
    return CommitmentResult(held.transaction_uid, tuple(found))


def told(connection: Connection, held: HeldRequest, status: int) -> None:
    """The sender confirmed our word: from now on it may delete what we committed to. Raises LeaseLost.

    There is a way to this sender again, so what was given up for want of one is due once more.
    """
    _move(connection, held, state=RequestState.CONFIRMED, ended_at=db_now(), status=status, lease_expires_at=None)
    _note_told(connection, held)
    lost = and_(
        requests.c.state == RequestState.PARKED,
        requests.c.calling_ae_title == held.calling_ae_title,
        requests.c.status.is_(None),
    )
    connection.execute(update(requests).where(lost).values(state=RequestState.WAITING, due_at=db_now(), ended_at=None))


def _note_told(connection: Connection, held: HeldRequest) -> None:
    """An event of each study of which something is listed. What never came is of none that we know, and told in all."""
    rows = connection.execute(
        select(listed_items.c.position, listed_items.c.reason, instances.c.study_uid)
        .select_from(listed_items.outerjoin(instances, instances.c.sop_instance_uid == listed_items.c.sop_instance_uid))
        .where(listed_items.c.request_id == held.request_id)
        .distinct()
        .order_by(listed_items.c.position)
    ).all()
    of_study: dict[str, Counter[int]] = {}
    never_came: Counter[int] = Counter()
    for row in rows:
        counted = of_study.setdefault(row.study_uid, Counter()) if row.study_uid else never_came
        counted[PROCESSING_FAILURE if row.reason is None else row.reason] += 1
    for study_uid, counted in of_study.items():
        said = _said(counted, never_came, len(of_study))
        text = f"{held.calling_ae_title} {said} (Storage Commitment, transaction {held.transaction_uid})."
        note(connection, study_uid, "commitment_given", text)


def _said(of_study: Counter[int], never_came: Counter[int], studies: int) -> str:
    """What a sender was told of one of so many studies."""
    every = of_study + never_came if studies == 1 else of_study
    text = f"was told that {every[COMMITTED]} of {every.total()} instances are kept here"
    text += ", which it may delete now" if every[COMMITTED] else ""
    refused = [in_words(reason, count) for reason, count in sorted(every.items()) if reason != COMMITTED]
    if every is of_study:
        refused += [f"{in_words(reason, count)}, of this study or another" for reason, count in never_came.items()]
    return text + (f"; not kept, {'; '.join(refused)}" if refused else "")


def put_off(connection: Connection, held: HeldRequest, reason: str, delay_s: float, status: int | None = None) -> bool:
    """The sender did not hear it, or did not confirm: again after `delay_s`, or never again when it has been tried for
    a day. Whether it was given up. Raises LeaseLost."""
    given_up = held.age_s > GIVE_UP_S
    ends: dict[str, Any] = {"due_at": db_now() + delay_s}
    if given_up:
        ends = {"state": RequestState.PARKED, "ended_at": db_now()}
    _move(connection, held, reason=reason, status=status, lease_owner=None, lease_expires_at=None, **ends)
    return given_up


def free(connection: Connection, owner_prefix: str) -> None:
    """What an owner held that is known to be dead."""
    theirs = and_(requests.c.state == RequestState.WAITING, requests.c.lease_owner.startswith(owner_prefix))
    values = {"lease_owner": None, "lease_expires_at": None, "generation": requests.c.generation + 1}
    connection.execute(update(requests).where(theirs).values(**values))


def park_unknown(connection: Connection, known: Sequence[str], reason: str) -> int:
    """Give up what waits for AE titles that the settings do not name any more; how many requests."""
    theirs = and_(requests.c.state == RequestState.WAITING, requests.c.calling_ae_title.not_in(known))
    values = {"state": RequestState.PARKED, "ended_at": db_now(), "reason": reason}
    return connection.execute(update(requests).where(theirs).values(**values)).rowcount


def so_far(connection: Connection) -> dict[str, dict[RequestState, int]]:
    """Requests by AE title and state; of those that were given up, the recent ones."""
    recent = or_(requests.c.state != RequestState.PARKED, requests.c.ended_at > db_now() - ALARM_FOR_S)
    rows = connection.execute(
        select(requests.c.calling_ae_title, requests.c.state, func.count())
        .where(recent)
        .group_by(requests.c.calling_ae_title, requests.c.state)
    )
    found: dict[str, dict[RequestState, int]] = {}
    for title, state, count in rows:
        found.setdefault(title, {})[RequestState(state)] = int(count)
    return found

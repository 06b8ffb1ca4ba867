"""What a sender itself says a study contains: the lists in its requests for Storage Commitment (PS3.4 J.3.2).

When all that a list names is here, the studies it names wait no longer; while something of it is missing they wait for
that, until the last resort. A sender that lists its studies piece by piece says nothing of when one is complete: where
more than one study in a hundred was listed more than once within a day, its lists no longer cut a wait short.

A sender speaks of what it sent itself (PS3.4 J.3.2): its lists weigh on studies of which its own AE title brought an
instance. A list that comes before the first of its images is kept until they come, and of such lists a few, for anybody
could send them.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Row, Select, exists, func, select, update

from ledger.completion import LIMIT_S
from ledger.database import db_now
from ledger.queueing import report_waits
from ledger.records import Disposition, ReportKind
from ledger.standing import lock_study
from ledger.tables import awaited_instances, instances, jobs, stated_contents, stated_studies

KEPT_S: Final = 86_400.0
KEPT_OF_A_SENDER: Final = 200
KEPT_IN_ALL: Final = 2_000
EARLY_OF_A_SENDER: Final = 8  # lists of which nothing of the sender's own has come
EARLY_IN_ALL: Final = 64
EARLY_LISTED: Final = 4_000  # instances of one of them
EARLY_AWAITED: Final = 20_000  # instances of all of them
_UID = re.compile(r"[0-9.]{1,64}")
_AT_ONCE: Final = 500  # values in one query
_Value = TypeVar("_Value")


def stated(
    connection: Connection, calling_ae_title: str, sop_instance_uids: Sequence[str], limit_s: float = LIMIT_S
) -> None:
    """A sender listed these instances as what it sent. The same list again changes nothing.

    Within the transaction that keeps the request; the caller wakes Stage.REPORT after it. What is no UID is ignored.
    limit_s: so long after a study's first image its missing instances are waited for.
    """
    listed = sorted({uid for uid in sop_instance_uids if _UID.fullmatch(uid)})
    digest = sha256("\n".join(listed).encode()).hexdigest()
    if not listed or _is_known(connection, calling_ae_title, digest):
        return
    for study_uid in _brought(connection, calling_ae_title, _here(connection, listed).values()):
        lock_study(connection, study_uid)
    here = _here(connection, listed)  # again: what was on its way when the studies were locked has come
    studies = _brought(connection, calling_ae_title, here.values())
    missing = [uid for uid in listed if uid not in here]
    if not studies and not 0 < len(missing) <= EARLY_LISTED:
        return
    _forget(connection, calling_ae_title, 0 if studies else len(missing))
    of_these = len(missing) + sum(study_uid in studies for study_uid in here.values())
    values = {"calling_ae_title": calling_ae_title, "listed": of_these, "digest": digest, "limit_s": limit_s}
    insert = stated_contents.insert().values(**values, stated_at=db_now()).returning(stated_contents)
    statement = connection.execute(insert).one()
    own = {"statement_id": statement.id}
    if studies:
        connection.execute(stated_studies.insert(), [own | {"study_uid": uid} for uid in studies])
    if missing:
        connection.execute(awaited_instances.insert(), [own | {"sop_instance_uid": uid} for uid in missing])
    for study_uid in studies:
        _weigh(connection, study_uid, statement)


def arrived(connection: Connection, study_uid: str, sop_instance_uid: str) -> bool:
    """An instance came that a list names, or one of a study that a list names instances of. Study locked.

    Whether all of a list is here now: what waited for that is due, and the caller wakes it after the transaction.
    """
    awaited = awaited_instances.c.sop_instance_uid == sop_instance_uid
    ids = list(connection.execute(select(awaited_instances.c.statement_id).where(awaited)).scalars())
    connection.execute(awaited_instances.delete().where(awaited))
    theirs = _of_who_brought(study_uid).where(stated_contents.c.id.in_(ids))
    own = set(connection.execute(theirs).scalars()) if ids else set()
    for statement_id in own:
        _link(connection, statement_id, study_uid)
    of_these = select(stated_contents).where(stated_contents.c.id.in_(ids), ~_lacks_something())
    fulfilled = connection.execute(of_these.order_by(stated_contents.c.id.desc())).all()
    _weigh(connection, study_uid, next((statement for statement in fulfilled if statement.id in own), None))
    for statement in fulfilled:
        for other in _studies_of(connection, statement.id):
            if other != study_uid:
                _weigh(connection, other, statement)
    return bool(fulfilled)


def _of_who_brought(study_uid: str) -> Select[Any]:
    """Numbers of the lists of those who brought anything of a study."""
    who = select(instances.c.calling_ae_title).where(instances.c.study_uid == study_uid)
    return select(stated_contents.c.id).where(stated_contents.c.calling_ae_title.in_(who))


def _link(connection: Connection, statement_id: int, study_uid: str) -> None:
    """From now on the list weighs on the study. Where transactions overlap (PostgreSQL), the first of its instances may
    have come when the list was written, and neither saw the other: it is not missing."""
    row = {"statement_id": statement_id, "study_uid": study_uid}
    known = select(stated_studies).where(*(stated_studies.c[key] == value for key, value in row.items()))
    if connection.execute(known).first() is not None:
        return
    connection.execute(stated_studies.insert().values(**row))
    here = select(instances.c.sop_instance_uid).where(instances.c.study_uid == study_uid)
    theirs = awaited_instances.c.statement_id == statement_id
    connection.execute(awaited_instances.delete().where(theirs, awaited_instances.c.sop_instance_uid.in_(here)))


def still_missing(study_uid: str) -> Select[Any]:
    """Lists that name instances of the study of which something is missing, the newest first: rows of
    `stated_contents` with the column `missing`."""
    query = (
        select(stated_contents, func.count(awaited_instances.c.sop_instance_uid).label("missing"))
        .join(stated_studies, stated_studies.c.statement_id == stated_contents.c.id)
        .join(awaited_instances, awaited_instances.c.statement_id == stated_contents.c.id)
        .where(stated_studies.c.study_uid == study_uid)
    )
    return query.group_by(*stated_contents.c).order_by(stated_contents.c.id.desc())


def _weigh(connection: Connection, study_uid: str, fulfilled: Row[Any] | None) -> None:
    """Set when the study's final report is due, by what lists say of it. fulfilled: a list all of which is here now."""
    waits = report_waits(study_uid, ReportKind.FINAL)
    lacking = connection.execute(still_missing(study_uid).limit(1)).first()
    if lacking is not None:
        because = (
            f"{lacking.calling_ae_title} asked to commit {_instances(lacking.listed)}, {lacking.missing} of which had "
            f"not come {lacking.limit_s:.0f} s after the first image: reported as it is."
        )
        limit_at = jobs.c.queued_at + lacking.limit_s
        connection.execute(update(jobs).where(waits).values(due_at=limit_at, due_because=because))
    elif fulfilled is not None and _vouches(connection, fulfilled):
        because = f"{fulfilled.calling_ae_title} asked to commit {_instances(fulfilled.listed)} and all are here."
        later = jobs.c.due_at > db_now()
        connection.execute(update(jobs).where(waits, later).values(due_at=db_now(), due_because=because))


def _vouches(connection: Connection, statement: Row[Any]) -> bool:
    """Whether a list all of which is here names all that is here, by a sender that lists its studies whole."""
    of_these = instances.c.study_uid.in_(_studies_of(connection, statement.id))
    images = select(func.count(func.distinct(instances.c.sop_instance_uid))).where(
        of_these, instances.c.disposition == Disposition.ANALYSE
    )
    if connection.execute(images).scalar_one() > statement.listed:
        return False
    times = (
        select(func.count().label("times"))
        .select_from(stated_studies.join(stated_contents, stated_contents.c.id == stated_studies.c.statement_id))
        .where(
            stated_contents.c.calling_ae_title == statement.calling_ae_title,
            stated_contents.c.stated_at > db_now() - KEPT_S,
        )
        .group_by(stated_studies.c.study_uid)
    )
    listed = list(connection.execute(times).scalars())
    return sum(often > 1 for often in listed) * 100 <= len(listed)


def _lacks_something() -> Any:
    return exists().where(awaited_instances.c.statement_id == stated_contents.c.id)


def _studies_of(connection: Connection, statement_id: int) -> list[str]:
    query = select(stated_studies.c.study_uid).where(stated_studies.c.statement_id == statement_id)
    return sorted(connection.execute(query).scalars())


def _is_known(connection: Connection, calling_ae_title: str, digest: str) -> bool:
    same = (stated_contents.c.calling_ae_title == calling_ae_title, stated_contents.c.digest == digest)
    return connection.execute(select(stated_contents.c.id).where(*same)).first() is not None


def _here(connection: Connection, sop_instance_uids: Sequence[str]) -> dict[str, str]:
    """Which of them have come, and of which study each is."""
    columns = select(instances.c.sop_instance_uid, instances.c.study_uid)
    return {
        row.sop_instance_uid: row.study_uid
        for some in _parts(sop_instance_uids)
        for row in connection.execute(columns.where(instances.c.sop_instance_uid.in_(some)))
    }


def _brought(connection: Connection, calling_ae_title: str, study_uids: Iterable[str]) -> list[str]:
    """Those of the studies of which this AE title brought an instance."""
    found: set[str] = set()
    for some in _parts(sorted(set(study_uids))):
        theirs = (instances.c.study_uid.in_(some), instances.c.calling_ae_title == calling_ae_title)
        found |= set(connection.execute(select(instances.c.study_uid).where(*theirs).distinct()).scalars())
    return sorted(found)


def _forget(connection: Connection, calling_ae_title: str, early: int) -> None:
    """Drop what is older than a day, or more than anybody needs to say; a hostile sender fills no table.

    early: instances of a list of which nothing of its sender's own has come, and which is about to be written; 0 for
    any other."""
    ids = select(stated_contents.c.id).order_by(stated_contents.c.id.desc())
    of_this = ids.where(stated_contents.c.calling_ae_title == calling_ae_title)
    old = ids.where(stated_contents.c.stated_at < db_now() - KEPT_S)
    excess = (_from(connection, of_this, KEPT_OF_A_SENDER - 1), _from(connection, ids, KEPT_IN_ALL - 1))
    gone = {*connection.execute(old).scalars(), *(one for some in excess for one in some)}
    if early:
        gone |= set(_too_early(connection, calling_ae_title, early))
    for some in _parts(sorted(gone)):
        connection.execute(awaited_instances.delete().where(awaited_instances.c.statement_id.in_(some)))
        connection.execute(stated_studies.delete().where(stated_studies.c.statement_id.in_(some)))
        connection.execute(stated_contents.delete().where(stated_contents.c.id.in_(some)))


def _too_early(connection: Connection, calling_ae_title: str, awaited: int) -> Iterator[int]:
    """Lists that weigh on nothing, beyond the newest few, where another one of this sender is added."""
    weighs = exists().where(stated_studies.c.statement_id == stated_contents.c.id)
    kept, of_sender = 1, 1
    for row in connection.execute(select(stated_contents).where(~weighs).order_by(stated_contents.c.id.desc())).all():
        is_his = row.calling_ae_title == calling_ae_title
        if kept >= EARLY_IN_ALL or (is_his and of_sender >= EARLY_OF_A_SENDER) or awaited + row.listed > EARLY_AWAITED:
            yield row.id
            continue
        kept, of_sender, awaited = kept + 1, of_sender + is_his, awaited + row.listed


def _from(connection: Connection, ids: Select[Any], place: int) -> Iterator[int]:
    yield from connection.execute(ids.limit(KEPT_IN_ALL).offset(place)).scalars()


def _parts(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances"

"""Which instances of a study count now, whose they are, and what the study's priority is by them.

The newest bytes under a SOP Instance UID count, within one study: a UID that two studies use takes nothing from
either. Rejected instances (IHE IOCM) do not count, and of those that do, withdrawn results do not.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, exists, select, update
from sqlalchemy.sql import ColumnElement

from ledger.codec import load_result
from ledger.history import note
from ledger.records import Disposition, TriagePriority, most_urgent
from ledger.slices import study_priority
from ledger.tables import instances, rejections, results, studies

# Document titles of a rejection note (IHE RAD IOCM): quality, patient safety, incorrect worklist entry. The fourth,
# 113039 (retention expired), takes images from an archive and says nothing against what was seen on them.
WITHDRAWING = frozenset({"113001", "113037", "113038"})
PATIENT_HALF = 32  # characters: a patient digest is that of the Patient ID, then that of name and birth date
UNKNOWN_HALF = "-" * PATIENT_HALF  # that half is not in the header
_OF_A_PATIENT = (Disposition.ANALYSE, Disposition.PRIOR, Disposition.NOT_AN_IMAGE)
_newer = instances.alias("newer")


def lock_study(connection: Connection, study_uid: str) -> Row[Any] | None:
    """The study's row, held until the transaction ends: what changes a study stands in a line (PostgreSQL; SQLite has
    one writer anyway). To be taken before any row of its jobs."""
    return connection.execute(select(studies).where(studies.c.study_uid == study_uid).with_for_update()).first()


def counts_now() -> ColumnElement[bool]:
    """A condition on rows of `instances`."""
    overtaken = exists().where(
        _newer.c.sop_instance_uid == instances.c.sop_instance_uid,
        _newer.c.study_uid == instances.c.study_uid,
        _newer.c.version > instances.c.version,
    )
    rejected = exists().where(
        rejections.c.study_uid == instances.c.study_uid,
        rejections.c.sop_instance_uid == instances.c.sop_instance_uid,
        rejections.c.code.in_(WITHDRAWING),
    )
    return and_(~overtaken, ~rejected)


def standing(connection: Connection, study_uid: str) -> list[Row[Any]]:
    """Rows of `instances` that count, in order of receipt."""
    query = select(instances).where(instances.c.study_uid == study_uid, counts_now())
    return list(connection.execute(query.order_by(instances.c.id)).all())


def stands(connection: Connection, instance_id: int) -> bool:
    """Whether one instance counts."""
    query = select(instances.c.id).where(instances.c.id == instance_id, counts_now())
    return connection.execute(query).first() is not None


def patients_of(rows: Sequence[Row[Any]]) -> list[str]:
    """The different patients whom instances name, each by half a digest; one at most unless they disagree.

    A Patient ID decides. An instance without one is of the same patient when name and birth date are those of an
    instance that has one, or where those have no name.
    """
    digests = _digests(rows)
    ids = {digest[:PATIENT_HALF] for digest in digests} - {UNKNOWN_HALF}
    known = {digest[PATIENT_HALF:] for digest in digests if not digest.startswith(UNKNOWN_HALF)} - {UNKNOWN_HALF}
    strangers = {digest[PATIENT_HALF:] for digest in digests if digest.startswith(UNKNOWN_HALF)} - known
    return sorted(ids | strangers if known or not ids else ids)


def patient_digest_of(rows: Sequence[Row[Any]]) -> str:
    """The digest that says most of whose the instances are; empty where none says anything."""
    return min(_digests(rows), key=lambda digest: digest.startswith(UNKNOWN_HALF), default="")


def _digests(rows: Sequence[Row[Any]]) -> list[str]:
    return [row.patient_digest for row in rows if row.disposition in _OF_A_PATIENT and row.patient_digest]


def same_patient(one: str, other: str) -> bool:
    """Whether two digests can be of one patient; an empty one can be anybody's."""
    for half in (slice(0, PATIENT_HALF), slice(PATIENT_HALF, None)):
        if UNKNOWN_HALF not in (one[half], other[half]):
            return not one or not other or one[half] == other[half]
    return True


def said_of(connection: Connection, study_uid: str) -> set[int]:
    """Ids of the instances that count and of which a model that was meant for them has said something."""
    return set(connection.execute(_said(study_uid, instances.c.id)).scalars())


def _said(study_uid: str, *what: ColumnElement[Any]) -> Select[Any]:
    """Columns of those instances, or of what was said of them."""
    return (
        select(*what)
        .select_from(instances.join(results, results.c.instance_id == instances.c.id))
        .where(instances.c.study_uid == study_uid, results.c.priority.is_not(None), ~results.c.withdrawn, counts_now())
    )


def restate_priority(connection: Connection, study_uid: str, at_least: TriagePriority | None, why: str) -> None:
    """Give the study the priority of what counts now, or `at_least`; lowering it leaves an event. Study locked."""
    found = [one for one in (_priority_now(connection, study_uid), at_least) if one is not None]
    after = most_urgent(found) if found else None
    study = studies.c.study_uid == study_uid
    before = connection.execute(select(studies.c.priority).where(study)).scalar_one()
    if before == after:
        return
    connection.execute(update(studies).where(study).values(priority=after))
    if before and (after is None or TriagePriority(before).rank < after.rank):
        note(connection, study_uid, "priority_lowered", f"Priority {before} became {after or 'none'}: {why}")


def _priority_now(connection: Connection, study_uid: str) -> TriagePriority | None:
    """By what counts now. The results themselves are read only where a refused slice may be the most urgent."""
    said = connection.execute(_said(study_uid, results.c.priority).distinct()).scalars()
    found = [TriagePriority(value) for value in said]
    if not found or most_urgent(found) is not TriagePriority.NOT_ASSESSED:
        return most_urgent(found) if found else None
    rows = connection.execute(_said(study_uid, instances.c.series_uid, results.c.body)).all()
    return study_priority([(row.series_uid, load_result(row.body)) for row in rows])

"""What may go with time: images some days after it is proven that what was said of them is where it belongs, results
later. Never of a study of which anything is still to be done, nor what a sender was promised.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, Select, and_, exists, func, or_, select, update
from sqlalchemy.sql import ColumnElement

from ledger import audit, removal
from ledger.audit import AuditEvent, AuditKind
from ledger.clinical import clinical
from ledger.commitment_requests import RequestState
from ledger.commitments import COMMITTED
from ledger.database import db_now, transaction
from ledger.delivery_records import STILL_TO_GO, DeliveryState, Proof
from ledger.history import note
from ledger.standing import lock_study
from ledger.states import JobState
from ledger.store import Store
from ledger.tables import (
    commitment_request_items,
    commitment_requests,
    deliveries,
    instances,
    jobs,
    notifications,
    objects,
    reports,
    studies,
)

AT_ONCE: Final = 50  # studies that are looked at in one question
DAY_S: Final = 86_400.0
ACTOR: Final = "node:retention"
_PROVEN = (Proof.COMMITTED, Proof.FOUND)


@dataclass(frozen=True)
class Rules:
    """images_s, results_s: 0 keeps them for ever. without_proof: what a destination accepted that cannot be asked
    counts as proven when it was accepted. promised_s: by AE title, for how long we told its owner that we keep things.
    """

    images_s: float = 0.0
    results_s: float = 0.0
    without_proof: bool = False
    promised_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Removed:
    """What one pass did. files: of images and of what was made of them."""

    studies: int = 0
    instances: int = 0
    size_bytes: int = 0

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(
            self.studies + other.studies, self.instances + other.instances, self.size_bytes + other.size_bytes
        )


@dataclass(frozen=True)
class Kept:
    """Received files that are here: how many, their bytes, the age of the oldest; None where there is none."""

    files: int
    size_bytes: int
    oldest_s: float | None


def settled(older_than_s: float, without_proof: bool) -> list[ColumnElement[bool]]:
    """Conditions on rows of `studies`: nothing is still to be done, and what was done last is older."""
    before = db_now() - older_than_s
    newest = select(func.max(jobs.c.finished_at)).where(jobs.c.study_uid == studies.c.study_uid).scalar_subquery()
    return [
        ~studies.c.is_heartbeat,
        studies.c.hold == "",
        studies.c.last_received_at < before,
        func.coalesce(newest, 0.0) < before,
        ~exists().where(jobs.c.study_uid == studies.c.study_uid, jobs.c.state != JobState.SUCCEEDED),
        ~_outside(or_(deliveries.c.changed_at >= before, deliveries.c.proven_at >= before)),
        ~_outside(deliveries.c.state.in_(STILL_TO_GO)),
        ~_outside(and_(deliveries.c.state == DeliveryState.DELIVERED, _not_proven(without_proof))),
        ~_told(notifications.c.changed_at >= before),
    ]


def _outside(which: ColumnElement[bool]) -> ColumnElement[bool]:
    """Some delivery of the study is so."""
    joined = deliveries.join(objects, objects.c.id == deliveries.c.object_id).join(
        reports, reports.c.id == objects.c.report_id
    )
    found = select(deliveries.c.object_id).select_from(joined).where(reports.c.study_uid == studies.c.study_uid, which)
    return found.correlate(studies).exists()


def _told(which: ColumnElement[bool]) -> ColumnElement[bool]:
    joined = notifications.join(reports, reports.c.id == notifications.c.report_id)
    found = select(notifications.c.report_id).select_from(joined)
    return found.where(reports.c.study_uid == studies.c.study_uid, which).correlate(studies).exists()


def _not_proven(without_proof: bool) -> ColumnElement[bool]:
    """Of what was accepted. A newer report that is proven to be there proves that what it followed was taken."""
    if without_proof:
        return deliveries.c.proof.not_in((*_PROVEN, Proof.UNPROVEN))
    later, there, newer = deliveries.alias("later"), objects.alias("later_object"), reports.alias("later_report")
    joined = later.join(there, there.c.id == later.c.object_id).join(newer, newer.c.id == there.c.report_id)
    followed = (
        select(later.c.object_id)
        .select_from(joined)
        .where(
            newer.c.study_uid == reports.c.study_uid,
            newer.c.id > reports.c.id,
            later.c.destination == deliveries.c.destination,
            later.c.state == DeliveryState.DELIVERED,
            later.c.proof.in_(_PROVEN),
        )
        .correlate(reports, deliveries)
        .exists()
    )
    return and_(deliveries.c.proof.not_in(_PROVEN), ~and_(deliveries.c.proof == Proof.UNPROVEN, followed))


def _has_images() -> ColumnElement[bool]:
    return exists().where(instances.c.study_uid == studies.c.study_uid, instances.c.removed_at.is_(None))


def _has_rows() -> ColumnElement[bool]:
    return exists().where(instances.c.study_uid == studies.c.study_uid)


def promised(connection: Connection, study_uid: str, promised_s: Mapping[str, float]) -> str:
    """Who was promised that an image of the study is kept, or may be at any moment; "" where nobody.

    A promise to an AE title that the settings no longer name has no end that we know.
    """
    kept = and_(instances.c.study_uid == study_uid, instances.c.removed_at.is_(None))
    age = (db_now() - func.max(instances.c.received_at)).label("age")
    sent = select(instances.c.calling_ae_title, age).where(kept).group_by(instances.c.calling_ae_title)
    for row in connection.execute(sent):
        if row.age <= promised_s.get(row.calling_ae_title.strip(), 0.0):
            return str(row.calling_ae_title)
    asked = (
        select(commitment_requests.c.calling_ae_title, age)
        .select_from(
            commitment_requests.join(
                commitment_request_items, commitment_request_items.c.request_id == commitment_requests.c.id
            ).join(instances, instances.c.sop_instance_uid == commitment_request_items.c.sop_instance_uid)
        )
        .where(
            kept,
            or_(commitment_requests.c.state == RequestState.WAITING, commitment_request_items.c.reason == COMMITTED),
        )
        .group_by(commitment_requests.c.calling_ae_title)
    )
    for row in connection.execute(asked):
        longest = promised_s.get(row.calling_ae_title.strip())
        if longest is None or row.age <= longest:
            return str(row.calling_ae_title)
    return ""


def due(rules: Rules, of_images: bool) -> Select[Any]:
    """Studies whose images, or whose results, may go but for what was promised; the longest untouched first."""
    conditions = settled(rules.images_s if of_images else rules.results_s, rules.without_proof)
    which = _has_images() if of_images else and_(_has_rows(), ~_has_images())
    return select(studies).where(*conditions, which).order_by(studies.c.last_received_at, studies.c.study_uid)


def take(connection: Connection, study_uid: str, rules: Rules, of_images: bool) -> Removed | None:
    """Let them go, in this transaction; None where that may not be any more."""
    if lock_study(connection, study_uid) is None:
        return None
    study = connection.execute(due(rules, of_images).where(studies.c.study_uid == study_uid)).first()
    if study is None or promised(connection, study_uid, rules.promised_s):
        return None
    if of_images:
        return _take_images(connection, study, rules)
    return _take_results(connection, study, rules)


def _take_images(connection: Connection, study: Row[Any], rules: Rules) -> Removed:
    count, size_bytes = removal.take_images(connection, study.study_uid)
    text = f"{count} files were removed, {rules.images_s / DAY_S:g} days after all that was said of them was proven."
    note(connection, study.study_uid, "images_removed", text)
    detail = {"what": "images", "instances": count, "bytes": size_bytes, "after_days": rules.images_s / DAY_S}
    _audit(connection, study, detail)
    return Removed(1, count, size_bytes)


def _take_results(connection: Connection, study: Row[Any], rules: Rules) -> Removed:
    taken = removal.take_all(connection, study.study_uid, study_too=False)
    values = {"results_removed_at": db_now(), "priority": None}
    connection.execute(update(studies).where(studies.c.study_uid == study.study_uid).values(**values))
    text = f"What was said of it was removed, {rules.results_s / DAY_S:g} days after it was proven."
    note(connection, study.study_uid, "results_removed", text)
    _audit(connection, study, {"what": "results", "rows": taken, "after_days": rules.results_s / DAY_S})
    return Removed(1, taken.get("instances", 0))


def _audit(connection: Connection, study: Row[Any], detail: Mapping[str, Any]) -> None:
    event = AuditEvent(
        AuditKind.STUDY_DELETED,
        ACTOR,
        study_uid=study.study_uid,
        patient_digest=study.patient_digest,
        detail=detail,
    )
    audit.record(connection, event)


class Retention:
    """Of `ledger.ledger.Ledger`; what a method changes is one transaction for each study."""

    _engine: Engine
    store: Store

    def remove_old(self, rules: Rules, of_images: bool, limit: int = AT_ONCE) -> Removed:
        """Let go what may go of up to `limit` studies, and delete the files; nothing when nothing is left to do."""
        removed, passed = Removed(), None
        while removed.studies < limit:
            found = self._some(rules, of_images, passed)
            if not found:
                break
            for row in found[: limit - removed.studies]:
                passed = row
                with transaction(self._engine, write=True) as connection:
                    removed += take(connection, row.study_uid, rules, of_images) or Removed()
        self.finish_removals()
        return removed

    def _some(self, rules: Rules, of_images: bool, passed: Row[Any] | None) -> Sequence[Row[Any]]:
        query = due(rules, of_images).limit(AT_ONCE)
        if passed is not None:  # what was promised stays, and is not asked for again in this pass
            same = and_(studies.c.last_received_at == passed.last_received_at, studies.c.study_uid > passed.study_uid)
            query = query.where(or_(studies.c.last_received_at > passed.last_received_at, same))
        with transaction(self._engine, write=False) as connection:
            return connection.execute(query).all()

    def finish_removals(self) -> int:
        """Delete the files of what was removed; how many."""
        return removal.finish_all(self._engine, self.store)

    def kept(self) -> Kept:
        """Received files."""
        query = select(
            func.count(),
            func.coalesce(func.sum(instances.c.size_bytes), 0),
            db_now() - func.min(instances.c.received_at),
        ).where(instances.c.removed_at.is_(None), clinical(instances.c.study_uid))
        with transaction(self._engine, write=False) as connection:
            files, size_bytes, oldest = connection.execute(query).one()
        return Kept(int(files), int(size_bytes), None if oldest is None else max(0.0, float(oldest)))

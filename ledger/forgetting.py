"""Erasure of one study: every row and every file that names it, in all tables and folders, and the traces of them in
the ledger's own file. A keyed hash of it stays in the audit trail, which says that it was erased, when and by whom.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select
from sqlalchemy.exc import SQLAlchemyError

from ledger import audit, removal
from ledger.audit import AuditEvent, AuditKind
from ledger.codec import moment
from ledger.database import refused, transaction
from ledger.delivery_records import STILL_TO_GO
from ledger.errors import PermanentError
from ledger.retention import Retention, promised
from ledger.review import Review
from ledger.standing import lock_study
from ledger.states import IDLE, JobState
from ledger.tables import (
    deliveries,
    events,
    instances,
    jobs,
    objects,
    opinions,
    reports,
    results,
    studies,
)


class NotForgotten(PermanentError):
    """Nothing was erased; the text says what stands against it."""


@dataclass(frozen=True)
class Known:
    """What is here of a study. against: sentences, each a reason to wait. others: studies of the same patient, by the
    keyed hash of who it is. uids: SOP Instance UIDs. files: relative to the store."""

    study_uid: str
    instances: int
    size_bytes: int
    results: int
    objects: int
    opinions: int
    events: int
    first_received_at: str
    against: tuple[str, ...]
    others: tuple[str, ...]
    uids: tuple[str, ...]
    files: tuple[str, ...]


def known(connection: Connection, study_uid: str, promised_s: Mapping[str, float]) -> Known | None:
    """None where the ledger has no such study, or where it is a heartbeat of our own."""
    row = connection.execute(select(studies).where(studies.c.study_uid == study_uid, ~studies.c.is_heartbeat)).first()
    if row is None:
        return None
    kept = instances.c.study_uid == study_uid
    made = objects.join(reports, reports.c.id == objects.c.report_id)
    size = func.coalesce(func.sum(instances.c.size_bytes), 0)
    return Known(
        study_uid=study_uid,
        instances=_count(connection, select(func.count()).select_from(instances).where(kept)),
        size_bytes=_count(connection, select(size).where(kept, instances.c.removed_at.is_(None))),
        results=_count(connection, select(func.count()).select_from(results).where(results.c.study_uid == study_uid)),
        objects=_count(connection, select(func.count()).select_from(made).where(reports.c.study_uid == study_uid)),
        opinions=_count(
            connection, select(func.count()).select_from(opinions).where(opinions.c.study_uid == study_uid)
        ),
        events=_count(connection, select(func.count()).select_from(events).where(events.c.study_uid == study_uid)),
        first_received_at=f"{moment(row.first_received_at).astimezone():%Y-%m-%d %H:%M}",
        against=tuple(_against(connection, row, promised_s)),
        others=_others(connection, row),
        uids=tuple(connection.execute(select(instances.c.sop_instance_uid).where(kept).distinct()).scalars()),
        files=tuple(removal.files_of(connection, study_uid)),
    )


def _count(connection: Connection, query: Any) -> int:
    return int(connection.execute(query).scalar_one())


def _against(connection: Connection, study: Row[Any], promised_s: Mapping[str, float]) -> Iterator[str]:
    if study.hold:
        yield f"It is held: {study.hold}"
    waiting = select(jobs.c.stage, func.count()).where(jobs.c.study_uid == study.study_uid, jobs.c.state.in_(IDLE))
    for stage, count in connection.execute(waiting.group_by(jobs.c.stage).order_by(jobs.c.stage)):
        yield f"{count} {stage} {'job waits or is' if count == 1 else 'jobs wait or are'} parked."
    joined = deliveries.join(objects, objects.c.id == deliveries.c.object_id).join(
        reports, reports.c.id == objects.c.report_id
    )
    unsent = select(deliveries.c.destination, func.count()).select_from(joined)
    unsent = unsent.where(reports.c.study_uid == study.study_uid, deliveries.c.state.in_(STILL_TO_GO))
    for destination, count in connection.execute(unsent.group_by(deliveries.c.destination)):
        yield f"{destination} has not accepted {count} {'object' if count == 1 else 'objects'} of its reports."
    if title := promised(connection, study.study_uid, promised_s):
        yield f"{title} was promised that its images are kept, or is about to be: it may have deleted its own."


def _others(connection: Connection, study: Row[Any]) -> tuple[str, ...]:
    if not study.patient_digest:
        return ()
    same = studies.c.patient_digest == study.patient_digest
    query = select(studies.c.study_uid).where(same, studies.c.study_uid != study.study_uid)
    return tuple(connection.execute(query.order_by(studies.c.study_uid)).scalars())


class Forgetting(Retention, Review):
    """Of `ledger.ledger.Ledger`."""

    def known(self, study_uid: str, promised_s: Mapping[str, float]) -> Known | None:
        """What `forget` would erase. promised_s: as `ledger.retention.Rules`."""
        with transaction(self._engine, write=False) as connection:
            return known(connection, study_uid, promised_s)

    def forget(
        self, study_uid: str, actor: str, promised_s: Mapping[str, float], despite: bool = False, set_aside: int = 0
    ) -> None:
        """Erase the study's rows and files, and say in the audit trail that it was done. Raises NotForgotten.

        despite: although something stands against it. set_aside: broken files that the caller deletes. Nobody's
        words go into the trail: they could name the patient, and would stay there.
        """
        with transaction(self._engine, write=True) as connection:
            study = lock_study(connection, study_uid)
            if study is None:
                raise NotForgotten("this node does not know that study")
            against = _check(connection, study, promised_s, despite)
            taken = removal.take_all(connection, study_uid, study_too=True)
            detail = {"what": "study", "rows": taken, "set_aside": set_aside, "despite": against}
            audit.record(
                connection,
                AuditEvent(
                    AuditKind.STUDY_DELETED,
                    actor,
                    study_uid=study_uid,
                    patient_digest=study.patient_digest,
                    detail=detail,
                ),
            )
        removal.finish_all(self._engine, self.store)

    def rewrite(self) -> None:
        """Write the ledger's file anew, so that nothing of what was deleted is left in it, nor in its log.

        PostgreSQL: only what a plain VACUUM does. Raises LedgerUnavailable when there is no room, or others are in it.
        """
        try:
            with self._engine.connect() as connection:  # VACUUM runs in no transaction, so no `begin` is to be said
                driver = connection.connection.driver_connection
                assert driver is not None
                is_sqlite = self._engine.dialect.name == "sqlite"
                if not is_sqlite:
                    driver.autocommit = True
                cursor = driver.cursor()
                cursor.execute("VACUUM")
                if is_sqlite:
                    cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                cursor.close()
                connection.invalidate()
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise refused(error) from error


def _check(connection: Connection, study: Row[Any], promised_s: Mapping[str, float], despite: bool) -> int:
    """How many things stand against it. Raises NotForgotten."""
    now = select(jobs.c.stage).where(jobs.c.study_uid == study.study_uid, jobs.c.state == JobState.RUNNING)
    if stage := connection.execute(now.limit(1)).scalar():
        raise NotForgotten(f"a {stage} job of it runs just now: try again in a moment")
    against = list(_against(connection, study, promised_s))
    if against and not despite:
        raise NotForgotten(" ".join(against))
    return len(against)

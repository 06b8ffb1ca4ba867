"""What is asked of the audit trail, and how it is sealed and told to a repository. Each method is one transaction."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Select, func, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.sql import ColumnElement

from ledger import changes, sealing, verifying
from ledger.audit import AuditKind, Outcome, key_of, study_key
from ledger.codec import moment
from ledger.database import db_now, transaction
from ledger.questions import Questions
from ledger.sealing import Head
from ledger.tables import audit_cursors, audit_records, audit_seals
from ledger.verifying import Heads, Verdict

PAGE: Final = 100
PAGE_MAX: Final = 1_000


@dataclass(frozen=True)
class Asked:
    """Which records are wanted; what is not given does not matter. since inclusive, until exclusive.

    study_uid is hashed to be looked up; study_key: that hash itself, as a record shows it.
    """

    study_uid: str = ""
    study_key: str = ""
    patient_key: str = ""
    kind: AuditKind | None = None
    actor: str = ""
    since: datetime | None = None
    until: datetime | None = None
    failures_only: bool = False


@dataclass(frozen=True)
class AuditLine:
    """One record of the trail, as people and repositories see it. sequence, digest: of its seal; None before it."""

    record_id: int
    at: datetime
    kind: AuditKind
    outcome: Outcome
    actor: str
    peer: str
    study_key: str
    patient_key: str
    detail: dict[str, Any] = field(default_factory=dict)
    sequence: int | None = None
    digest: str | None = None


class Trail(Questions):
    """Of `ledger.ledger.Ledger`."""

    def audit_log(self, asked: Asked = Asked(), before: int | None = None, limit: int = PAGE) -> list[AuditLine]:
        """Records, newest first. before: the record_id of the last line of the page before; limit: at most PAGE_MAX."""
        with self._read() as connection:
            query = _lines().where(*_wanted(connection, asked)).order_by(audit_records.c.id.desc())
            if before is not None:
                query = query.where(audit_records.c.id < before)
            return [_line(row) for row in connection.execute(query.limit(max(1, min(limit, PAGE_MAX))))]

    def audit_count(self, asked: Asked = Asked()) -> int:
        """How many records there are of what is asked for."""
        with self._read() as connection:
            query = select(func.count()).select_from(audit_records).where(*_wanted(connection, asked))
            return int(connection.execute(query).scalar_one())

    def audit_changed(self, what: str, kind: AuditKind, now: Mapping[str, str], more: Mapping[str, Any]) -> bool:
        """Keep, under the name `what`, how things are; a record of it when they are others than the last time.

        now: key -> value. Of the values the ledger keeps keyed hashes, and the record says which keys were touched.
        """
        with transaction(self._engine, write=True) as connection:
            return changes.note(connection, what, kind, now, more)

    def seal_audit(self, above: int = 0) -> Head | None:
        """Seal what waits, up to sealing.AT_ONCE records whose numbers are above `above`; None: there is nothing."""
        with self._read() as connection:
            if not sealing.has_unsealed(connection, above):
                return None
        with transaction(self._engine, write=True) as connection:
            return sealing.seal(connection, above)

    def audit_head(self) -> Head | None:
        with self._read() as connection:
            return sealing.head(connection)

    def audit_seal(self, sequence: int) -> str | None:
        """The digest of one seal; None when there is none."""
        with self._read() as connection:
            wanted = select(audit_seals.c.digest).where(audit_seals.c.sequence == sequence)
            return connection.execute(wanted).scalar()

    def highest_sealed(self) -> int:
        with self._read() as connection:
            return sealing.highest_sealed(connection)

    @property
    def seals_in_order(self) -> bool:
        """Whether records become visible in the order of their numbers: SQLite has one writer at a time."""
        return self._engine.dialect.name == "sqlite"

    def verify_audit(self, heads: Heads, progress: Callable[[int, int], None] = lambda done, total: None) -> Verdict:
        """Walk the chain. heads: as they were exported; read them before this is called, or young ones seem cut off."""
        with self._read() as connection:
            return verifying.verify(connection, heads, progress)

    # --- told to an audit record repository ---

    def take_telling(self, repository: str, holder: str, lease_s: float) -> bool:
        """Whether `holder` may tell the repository for `lease_s`: one at a time, or it hears everything twice."""
        make = sqlite_insert if self.seals_in_order else postgresql_insert
        free = (audit_cursors.c.holder == holder) | (audit_cursors.c.held_until < db_now())
        mine = {"holder": holder, "held_until": db_now() + lease_s}
        fresh = make(audit_cursors).values(repository=repository, sequence=0, changed_at=db_now(), **mine)
        with transaction(self._engine, write=True) as connection:
            take = fresh.on_conflict_do_update(index_elements=["repository"], set_=mine, where=free)
            return connection.execute(take.returning(audit_cursors.c.sequence)).first() is not None

    def untold(self, repository: str, after: int | None = None, limit: int = PAGE) -> list[AuditLine]:
        """Sealed records to tell the repository next, in order. after: a sequence; None: how far it was told."""
        with self._read() as connection:
            if after is None:
                after = _told(connection, repository)
            query = _lines().where(audit_seals.c.sequence > after).order_by(audit_seals.c.sequence)
            return [_line(row) for row in connection.execute(query.limit(limit))]

    def told_audit(self, repository: str, holder: str, sequence: int) -> bool:
        """The repository has everything up to `sequence`. False when somebody else tells it by now."""
        mine = (audit_cursors.c.repository == repository) & (audit_cursors.c.holder == holder)
        moved = update(audit_cursors).where(mine, audit_cursors.c.sequence < sequence)
        with transaction(self._engine, write=True) as connection:
            return bool(connection.execute(moved.values(sequence=sequence, changed_at=db_now())).rowcount)

    def audit_backlog(self, repository: str) -> tuple[int, float]:
        """How many sealed records the repository was not told, and for how many seconds the oldest has waited."""
        with self._read() as connection:
            waits = audit_seals.c.sequence > _told(connection, repository)
            query = select(func.count(), db_now() - func.min(audit_seals.c.sealed_at)).where(waits)
            count, age_s = connection.execute(query).one()
            return int(count), max(0.0, float(age_s or 0.0))

    def audit_unexported_s(self, exported: int) -> float:
        """For how many seconds the oldest seal after the head `exported` has waited for one; 0 when there is none."""
        with self._read() as connection:
            oldest = select(db_now() - func.min(audit_seals.c.sealed_at)).where(audit_seals.c.sequence > exported)
            return max(0.0, float(connection.execute(oldest).scalar() or 0.0))

    def audit_unsealed_s(self) -> float:
        """For how many seconds the oldest record without a seal has waited; 0 when all are sealed."""
        with self._read() as connection:
            above = sealing.highest_sealed(connection)
            oldest = select(db_now() - func.min(audit_records.c.at)).where(audit_records.c.id > above)
            return max(0.0, float(connection.execute(oldest).scalar() or 0.0))


def _told(connection: Connection, repository: str) -> int:
    wanted = select(audit_cursors.c.sequence).where(audit_cursors.c.repository == repository)
    return int(connection.execute(wanted).scalar() or 0)


def _lines() -> Select[Any]:
    query = select(audit_records, audit_seals.c.sequence, audit_seals.c.digest)
    return query.select_from(audit_records.outerjoin(audit_seals, audit_seals.c.record_id == audit_records.c.id))


def _line(row: Any) -> AuditLine:
    return AuditLine(
        record_id=row.id,
        at=moment(row.at),
        kind=AuditKind(row.kind),
        outcome=Outcome(row.outcome),
        actor=row.actor,
        peer=row.peer,
        study_key=row.study_key,
        patient_key=row.patient_key,
        detail=json.loads(row.detail),
        sequence=row.sequence,
        digest=row.digest,
    )


def _wanted(connection: Connection, asked: Asked) -> Sequence[ColumnElement[bool]]:
    table = audit_records.c
    wanted: list[ColumnElement[bool]] = []
    if asked.study_uid:
        wanted.append(table.study_key == study_key(key_of(connection), asked.study_uid))
    for column, value in (
        (table.study_key, asked.study_key),
        (table.patient_key, asked.patient_key),
        (table.kind, asked.kind.value if asked.kind else ""),
        (table.actor, asked.actor),
    ):
        if value:
            wanted.append(column == value)
    if asked.since is not None:
        wanted.append(table.at >= asked.since.timestamp())
    if asked.until is not None:
        wanted.append(table.at < asked.until.timestamp())
    if asked.failures_only:
        wanted.append(table.outcome != Outcome.SUCCESS)
    return wanted

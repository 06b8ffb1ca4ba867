"""The chain over the audit trail: each seal's digest is made of the one before and of a whole record.

One sealer works at a time, in whichever process of whichever machine: the database decides. Records are sealed in the
order in which they are found, which need not be that of their numbers: where transactions overlap (PostgreSQL) a
record can be committed after a younger one is sealed.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, exists, func, select

from ledger.database import db_now
from ledger.tables import audit_records, audit_seals, installation

AT_ONCE: Final = 500  # records of one transaction, so that nobody waits long for the sealer
_FORM: Final = "opentriage-audit-1"  # of what is digested; another form gets another name
COLUMNS: Final = ("id", "at", "kind", "outcome", "actor", "peer", "study_key", "patient_key", "detail")


@dataclass(frozen=True)
class Head:
    """A point of the chain: whoever keeps it can tell later whether everything up to there is as it was."""

    sequence: int
    digest: str
    sealed_at: float  # seconds since 1970, by the database's clock


def canonical(sequence: int, sealed_at: float, record: Row[Any]) -> bytes:
    """The bytes that stand for a record and its place. Floating point as the shortest text that reads back the same.

    In a database of SQLite bytes may stand where text belongs, once somebody has put them there: they are no text."""
    values = [getattr(record, name) for name in COLUMNS]
    return json.dumps([_FORM, sequence, sealed_at, *values], separators=(",", ":"), default=_bytes).encode()


def _bytes(value: object) -> list[str]:
    if not isinstance(value, bytes):
        raise TypeError(f"a record holds a {type(value).__name__}")
    return ["bytes", value.hex()]


def link(previous: str, content: bytes) -> str:
    """The digest of a seal, in hexadecimal digits."""
    return hashlib.sha256(bytes.fromhex(previous) + content).hexdigest()


def genesis(connection: Connection) -> str:
    """What stands before the first seal: this installation's own, so that no other's chain can take its place."""
    uid = connection.execute(select(installation.c.value).where(installation.c.key == "installation_uid")).scalar_one()
    return hashlib.sha256(b"opentriage audit trail\0" + uid.encode()).hexdigest()


def head(connection: Connection) -> Head | None:
    """The newest seal; None while nothing is sealed."""
    newest = select(audit_seals).order_by(audit_seals.c.sequence.desc()).limit(1)
    row = connection.execute(newest).first()
    return Head(row.sequence, row.digest, row.sealed_at) if row else None


def highest_sealed(connection: Connection) -> int:
    """Number of the youngest record that is sealed; 0 when none is."""
    return int(connection.execute(select(func.coalesce(func.max(audit_seals.c.record_id), 0))).scalar_one())


def has_unsealed(connection: Connection, above: int) -> bool:
    return connection.execute(_unsealed(above, 1)).first() is not None


def _unsealed(above: int, limit: int) -> Any:
    is_sealed = exists().where(audit_seals.c.record_id == audit_records.c.id)
    found = select(audit_records).where(audit_records.c.id > above, ~is_sealed)
    return found.order_by(audit_records.c.id).limit(limit)


def seal(connection: Connection, above: int) -> Head | None:
    """Seal up to AT_ONCE records with numbers above `above`; the new head. None: nothing to do, or another does it."""
    turn = select(installation.c.key).where(installation.c.key == "installation_uid")
    if connection.execute(turn.with_for_update(skip_locked=True)).first() is None:  # PostgreSQL; SQLite has one writer
        return None
    records = connection.execute(_unsealed(above, AT_ONCE)).all()
    if not records:
        return None
    now = float(connection.execute(select(db_now())).scalar_one())
    before = head(connection)
    digest, sequence = (before.digest, before.sequence) if before else (genesis(connection), 0)
    seals = list(_chain(digest, sequence, now, records))
    connection.execute(audit_seals.insert(), seals)
    return Head(seals[-1]["sequence"], seals[-1]["digest"], now)


def _chain(digest: str, sequence: int, now: float, records: Iterable[Row[Any]]) -> Iterable[dict[str, Any]]:
    for record in records:
        sequence += 1
        digest = link(digest, canonical(sequence, now, record))
        yield {"sequence": sequence, "record_id": record.id, "digest": digest, "sealed_at": now}

"""Stored files that were found damaged or gone when somebody asked for them: known until they are healed.

The same bytes sent again take the place of the damaged file. An instance of which other bytes came since is no alarm:
the newer ones are what is read and committed to.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.sql import ColumnElement

from ledger.clinical import clinical
from ledger.database import db_now
from ledger.history import note
from ledger.tables import damaged_files, instances

CURE: Final = "have the image sent again: the same bytes take the place of the damaged file"


@dataclass(frozen=True)
class Damaged:
    """An instance whose stored file is not what was received."""

    instance_id: int
    sop_instance_uid: str
    study_instance_uid: str


def found(connection: Connection, damaged: Sequence[Damaged]) -> None:
    """These are. An event of the study when it is news."""
    make = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    for one in sorted(damaged, key=lambda one: one.instance_id):
        insert = make(damaged_files).values(instance_id=one.instance_id, found_at=db_now()).on_conflict_do_nothing()
        if connection.execute(insert.returning(damaged_files.c.instance_id)).first() is not None:
            text = f"The stored file of {one.sop_instance_uid} is damaged or gone; {CURE}."
            note(connection, one.study_instance_uid, "file_damaged", text, one.instance_id)


def whole(connection: Connection, instance_ids: Collection[int]) -> None:
    """These are whole, whatever was found before. An event of the study when it is news."""
    marked = set(connection.execute(select(damaged_files.c.instance_id)).scalars())
    for instance_id in sorted(marked.intersection(instance_ids)):
        if connection.execute(delete(damaged_files).where(damaged_files.c.instance_id == instance_id)).rowcount:
            row = connection.execute(select(instances).where(instances.c.id == instance_id)).one()
            text = f"The stored file of {row.sop_instance_uid} is whole again."
            note(connection, row.study_uid, "file_healed", text, instance_id)


def restored(connection: Connection, instance_id: int, size_bytes: int | None) -> None:
    """The same bytes came again and are whole on the disk; size_bytes: of the file that took the other's place."""
    if size_bytes is not None:  # another release of this node writes another header
        connection.execute(update(instances).where(instances.c.id == instance_id).values(size_bytes=size_bytes))
    whole(connection, [instance_id])


def is_known(connection: Connection, instance_id: int) -> bool:
    """Whether it is taken for damaged."""
    query = select(damaged_files.c.instance_id).where(damaged_files.c.instance_id == instance_id)
    return connection.execute(query).first() is not None


def of(connection: Connection, study_uid: str) -> frozenset[int]:
    """The damaged instances of a study."""
    query = select(instances.c.id).join(damaged_files, damaged_files.c.instance_id == instances.c.id)
    return frozenset(connection.execute(query.where(instances.c.study_uid == study_uid, _newest())).scalars())


def count(connection: Connection) -> int:
    """How many are damaged now."""
    query = select(func.count()).select_from(damaged_files.join(instances))
    return connection.execute(query.where(_newest(), clinical(instances.c.study_uid))).scalar_one()


def _newest() -> ColumnElement[bool]:
    newer = instances.alias("newer")
    return ~exists().where(
        newer.c.sop_instance_uid == instances.c.sop_instance_uid, newer.c.version > instances.c.version
    ).correlate(instances)

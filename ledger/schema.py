"""Which schema a ledger has, and the way back to an older one.

A migration whose module has `downgrade` can be undone. What the older schema has no place for is written to files
first: the rows of tables that go, what columns that go hold, and the files of objects that nothing knows afterwards.
"""

import json
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, Row, Table, func, inspect, select

from ledger.database import (
    HEAD,
    alembic_config,
    db_now,
    migrate,
    open_engine,
    read_revision,
    revision_of,
    serialised,
    transaction,
)
from ledger.errors import PermanentError
from ledger.presence import place
from ledger.states import UNFINISHED, JobState
from ledger.store import Store
from ledger.tables import instances, jobs, objects, studies

SECRETS = ("digest",)  # columns of what opens doors: in the backup alone
DOORS = ("access_tokens", "web_sessions")
Columns = dict[str, set[str]]


class NoWayBack(PermanentError):
    """The ledger cannot be rolled back so; the text says why and what can be done."""


@dataclass(frozen=True)
class LedgerState:
    """schema: of the ledger; program: the newest that this program knows. waiting: jobs not finished, parked ones not
    counted. size_bytes: of a SQLite ledger with its log."""

    place: str
    schema: str
    program: str
    studies: int
    instances: int
    waiting: int
    parked: int
    size_bytes: int | None


@dataclass(frozen=True)
class RolledBack:
    """rows: how many of each table, or of a column that goes as TABLE.COLUMN, were written to a file."""

    was: str
    now: str
    rows: dict[str, int] = field(default_factory=dict)
    objects_kept: int = 0


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    """The ledger's database as it is: nothing is created and no schema changed."""
    engine = open_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def state_of(url: str) -> LedgerState:
    """Of a ledger that is there, of whatever schema."""
    with opened(url) as engine, transaction(engine, write=False) as connection:
        counted = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state))
        by_state: dict[str, int] = {row[0]: row[1] for row in counted}
        return LedgerState(
            place(url),
            read_revision(connection) or "none",
            HEAD,
            connection.execute(select(func.count()).select_from(studies)).scalar_one(),
            connection.execute(select(func.count()).select_from(instances)).scalar_one(),
            sum(by_state.get(state, 0) for state in UNFINISHED),
            by_state.get(JobState.PARKED, 0),
            _size(url),
        )


def _size(url: str) -> int | None:
    if not url.startswith("sqlite"):
        return None
    return sum(path.stat().st_size for end in ("", "-wal") if (path := Path(place(url) + end)).exists())


def upgrade(url: str, keep_a_copy: bool = True) -> tuple[str, str]:
    """Bring a ledger that is there to this program's schema; (was, is). Raises LedgerIsNewer, NoBackup."""
    with opened(url) as engine:
        was = revision_of(engine) or "none"
        migrate(engine, keep_a_copy)
        return was, HEAD


def known_revisions() -> list[str]:
    """Oldest first."""
    script = ScriptDirectory.from_config(alembic_config())
    return [one.revision for one in reversed(list(script.walk_revisions()))]


def check_way_back(was: str | None, to: str) -> None:
    """Raises NoWayBack."""
    known = known_revisions()
    if to not in known:
        raise NoWayBack(f"there is no schema {to}; this program knows {known[0]} to {known[-1]}")
    if was is None or was not in known:
        raise NoWayBack(
            f"the ledger's schema {was} is not one of this program's: roll it back with the release it is of"
        )
    if to >= was:
        raise NoWayBack(f"the ledger has schema {was} already, and {to} is not older")
    script = ScriptDirectory.from_config(alembic_config())
    for revision in known[known.index(to) + 1 : known.index(was) + 1]:
        if not hasattr(script.get_revision(revision).module, "downgrade"):
            raise NoWayBack(f"schema {revision} cannot be undone: restore a backup from before it (docs/upgrade.md)")


def working_elsewhere(url: str, own_prefix: str) -> list[str]:
    """Who holds a lease that has not run out, but for processes of this machine: nodes that still run."""
    with opened(url) as engine, transaction(engine, write=False) as connection:
        held = select(jobs.c.lease_owner).where(jobs.c.lease_owner.is_not(None), jobs.c.lease_expires_at > db_now())
        return sorted({one for one in connection.execute(held).scalars() if not one.startswith(own_prefix)})


def roll_back(url: str, store: Store, to: str, folder: Path) -> RolledBack:
    """Undo every migration after `to` in one transaction, once `folder` holds what would be lost. Raises NoWayBack."""
    with opened(url) as engine, transaction(engine, write=True) as connection:
        serialised(connection)
        was = read_revision(connection)
        check_way_back(was, to)
        assert was is not None
        before, known = _columns(connection), _object_files(connection)
        rehearsal = connection.begin_nested()
        _downgrade(connection, to)
        after, kept = _columns(connection), _object_files(connection)
        rehearsal.rollback()
        folder.mkdir(mode=0o700, parents=True)
        rows = dict(_export(connection, before, after, folder))
        linked = _link(store, known - kept, folder / "objects")
        _sync(folder)
        _downgrade(connection, to)
    return RolledBack(was, to, rows, linked)


def _downgrade(connection: Connection, to: str) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.downgrade(config, to)


def _columns(connection: Connection) -> Columns:
    look = inspect(connection)
    return {table: {column["name"] for column in look.get_columns(table)} for table in look.get_table_names()}


def _object_files(connection: Connection) -> set[str]:
    return set(connection.execute(select(objects.c.path)).scalars())


def _export(connection: Connection, before: Columns, after: Columns, folder: Path) -> Iterable[tuple[str, int]]:
    for name, columns in sorted(before.items()):
        table = Table(name, MetaData(), autoload_with=connection)
        if name not in after:
            hidden = SECRETS if name in DOORS else ()
            yield name, _write(folder / f"{name}.jsonl", connection.execute(select(table)), hidden)
            continue
        for column in sorted(columns - after[name]):
            held = select(*table.primary_key.columns, table.c[column]).where(_says_something(table, column))
            yield f"{name}.{column}", _write(folder / f"{name}.{column}.jsonl", connection.execute(held), ())


def _says_something(table: Table, column: str) -> Any:
    one = table.c[column]
    if one.nullable:
        return one.is_not(None)
    return one.is_(True) if one.type.python_type is bool else one.is_not(None)


def _write(path: Path, rows: Iterable[Row[Any]], hidden: Collection[str]) -> int:
    count = 0
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
        for row in rows:
            file.write(json.dumps({key: value for key, value in row._mapping.items() if key not in hidden}) + "\n")
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count


def _link(store: Store, paths: Iterable[str], folder: Path) -> int:
    """What no row names any more is deleted by the next start: kept under a second name."""
    count = 0
    for relative in paths:
        source = store.path(relative)
        if source.is_file():
            folder.mkdir(mode=0o700, exist_ok=True)
            os.link(source, folder / source.name)
            count += 1
    return count


def _sync(folder: Path) -> None:
    for one in (folder, folder.parent):
        descriptor = os.open(one, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""The schema, the pragmas, and what start-up finds."""

import os
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import ledger as package
from ledger.database import HEAD, migrate, open_engine, transaction
from ledger.ledger import Ledger
from ledger.tables import metadata
from tests.support.records import received, stored_object


def test_the_migrations_build_exactly_the_tables_in_the_code(url: str) -> None:
    engine = open_engine(url)
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_newest_migration_is_the_one_the_code_asks_for() -> None:
    folder = Path(package.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_current_head() == HEAD


def test_every_sqlite_connection_syncs_fully(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    with transaction(engine, write=False) as first, transaction(engine, write=False) as second:
        for connection in (first, second):
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()


def part10(dataset: bytes) -> bytes:
    meta = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\x00"
    return bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + len(meta).to_bytes(4, "little") + meta + dataset


@pytest.fixture
def admitted(ledger: Ledger) -> str:
    """The path of one whole, admitted instance."""
    import hashlib

    dataset = b"a data set"
    digest = hashlib.sha256(dataset).hexdigest()
    content = part10(dataset)
    path = ledger.store.put("instances", digest, ".dcm", content)
    ledger.admit(received(path=path, sha256=digest, size_bytes=len(content)), 20)
    return path


def test_start_up_finds_a_whole_store_whole(ledger: Ledger, admitted: str) -> None:
    assert ledger.reconcile().lost == []
    assert ledger.store.path(admitted).exists()


def test_start_up_sweeps_parts_and_sets_orphans_aside(ledger: Ledger, admitted: str) -> None:
    part = ledger.store.begin()
    part.write(b"half")
    ledger.store.put("instances", "ab" * 32, ".dcm", b"renamed, never admitted")
    _, result = stored_object(ledger.store)
    found = ledger.reconcile()
    assert (found.parts_deleted, found.orphans_moved, found.results_deleted, found.lost) == (1, 1, 1, [])
    assert len(os.listdir(ledger.store.root / "orphans")) == 1
    assert not ledger.store.path(result).exists()
    assert ledger.store.path(admitted).exists()
    part.abort()


@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_start_up_names_every_acknowledged_instance_that_is_not_whole(
    ledger: Ledger, admitted: str, damage: str
) -> None:
    path = ledger.store.path(admitted)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:-1])
    else:
        path.write_bytes(content[:-1] + b"!")
    assert len(ledger.reconcile().lost) == 1

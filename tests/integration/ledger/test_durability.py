"""The schema, the pragmas, and what start-up finds."""

import hashlib
import os
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import ledger as package
from ledger.completion import Completion
from ledger.database import HEAD, begin_sqlite_write, migrate, open_engine, transaction
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.store import Store
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


def test_a_writer_looks_often_whether_it_is_its_turn_and_gives_up_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    ledger = Ledger.open(url, Store(tmp_path / "store"))
    other = open_engine(url)
    asked: list[str] = []
    with transaction(other, write=True) as busy:
        monkeypatch.setattr("ledger.database.BUSY_TIMEOUT_S", 3.0)
        raw = ledger._engine.raw_connection()
        assert raw.driver_connection is not None
        raw.driver_connection.set_trace_callback(asked.append)
        cursor = raw.cursor()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            begin_sqlite_write(cursor)
        with pytest.raises(LedgerUnavailable):
            ledger.admit(received(), Completion(20))
        busy.exec_driver_sql("SELECT 1")
    assert asked.count("BEGIN IMMEDIATE") > 10  # SQLite alone would have looked once, with longer and longer sleeps
    begin_sqlite_write(cursor)
    assert cursor.execute("PRAGMA busy_timeout").fetchone() == (3000,)  # a reader waits as before
    raw.rollback()
    raw.close()
    assert ledger.admit(received(), Completion(20)).outcome == "new"
    ledger.close()
    other.dispose()


def part10(dataset: bytes) -> bytes:
    meta = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\x00"
    return bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + len(meta).to_bytes(4, "little") + meta + dataset


@pytest.fixture
def admitted(ledger: Ledger) -> str:
    """The path of one whole, admitted instance."""
    dataset = b"a data set"
    digest = hashlib.sha256(dataset).hexdigest()
    content = part10(dataset)
    path = ledger.store.put("instances", digest, ".dcm", content)
    ledger.admit(received(path=path, sha256=digest, size_bytes=len(content)), Completion(20))
    return path


def test_start_up_finds_a_whole_store_whole(ledger: Ledger, admitted: str) -> None:
    assert ledger.reconcile().lost == []
    assert ledger.store.path(admitted).exists()


def named(store: Store, dataset: bytes, content: bytes) -> Path:
    """A file under the name of this data set, never admitted."""
    return store.path(store.put("instances", hashlib.sha256(dataset).hexdigest(), ".dcm", content))


def test_start_up_sweeps_parts_and_sets_orphans_aside(ledger: Ledger, admitted: str) -> None:
    part = ledger.store.begin()
    part.write(b"half")
    named(ledger.store, b"never admitted", part10(b"never admitted"))
    _, result = stored_object(ledger.store)
    found = ledger.reconcile()
    assert (found.parts_deleted, found.orphans_moved, found.results_deleted, found.lost) == (1, 1, 1, [])
    assert len(os.listdir(ledger.store.root / "orphans")) == 1
    assert not ledger.store.path(result).exists()
    assert ledger.store.path(admitted).exists()
    part.abort()


@pytest.mark.parametrize("held", [0, 1, 140, 170, -1], ids=lambda held: f"{held} bytes")
def test_start_up_deletes_what_a_power_cut_tore_under_its_final_name(ledger: Ledger, admitted: str, held: int) -> None:
    whole = part10(b"never admitted")
    named(ledger.store, b"never admitted", whole[:held])
    named(ledger.store, b"never admitted", whole[:held] + bytes(len(whole[held:])))  # the size without the bytes
    named(ledger.store, b"never admitted", whole)
    found = ledger.reconcile()
    assert (found.parts_deleted, found.orphans_moved, found.lost) == (2, 1, [])
    [orphan] = (ledger.store.root / "orphans").iterdir()
    assert orphan.read_bytes() == whole
    assert ledger.store.path(admitted).exists()


def test_what_is_set_aside_is_synced_for_a_crash_leaves_it_in_memory_only(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = named(ledger.store, b"never admitted", part10(b"never admitted"))
    steps: list[str] = []
    monkeypatch.setattr(
        ledger.store, "_sync", lambda how, fd: steps.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
    )
    ledger.reconcile()
    assert steps == [str(orphan), str(ledger.store.root.absolute() / "orphans")]


def test_start_up_deletes_nothing_of_which_it_cannot_tell_that_it_is_torn(ledger: Ledger) -> None:
    shard = named(ledger.store, b"never admitted", b"").parent
    link = shard / f"{'ab' * 32}-link.dcm"
    link.symlink_to("/dev/zero")
    (shard / f"{'cd' * 32}-folder.dcm").mkdir()
    (shard / "from somewhere else.dcm").write_bytes(b"of another node")
    found = ledger.reconcile()
    assert (found.parts_deleted, found.orphans_moved) == (1, 3)


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

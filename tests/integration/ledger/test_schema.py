"""A ledger goes back to the schema of the release before, which finds all it knew, and nothing that misleads it."""

import json
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from ledger.audit import AuditEvent, AuditKind
from ledger.backup import NoBackup, back_up, backups_of
from ledger.database import HEAD, LedgerIsNewer, migrate, open_engine, transaction
from ledger.ledger import Ledger
from ledger.records import Stage
from ledger.schema import NoWayBack, roll_back, state_of, working_elsewhere
from ledger.store import Store
from tests.support.ledger_story import HIGH, LOW, Story
from tests.support.records import judged

NEW_TABLES = ("audit_records", "audit_seals", "opinions", "access_tokens")


def tables(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, in the order of its first columns."""
    engine = open_engine(url)
    with transaction(engine, write=False) as connection:
        names = connection.dialect.get_table_names(connection)
        found = {name: sorted(map(tuple, connection.execute(text(f"SELECT * FROM {name}"))), key=str) for name in names}
    engine.dispose()
    return found


def sqlite(folder: Path) -> str:
    """Where the database makes no difference."""
    return f"sqlite:///{folder / 'ledger.sqlite'}"


def to_0007(url: str, store: Store, folder: Path) -> dict[str, int]:
    return roll_back(url, store, "0007", folder).rows


def test_what_the_older_schema_knows_is_unchanged_by_going_back_and_the_rest_is_in_files(
    url: str, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    ledger = Ledger.open(url, store)
    story = Story(ledger)
    story.image(judged(HIGH, 0.9))
    story.final()
    story.receive(study="1.2.9")  # in flight: its analysis waits
    ledger.audit(AuditEvent(AuditKind.ACTIVITY, "node:test"))
    ledger.close()
    before = tables(url)
    rows = to_0007(url, store, tmp_path / "kept")
    after = tables(url)
    assert after["alembic_version"] == [("0007",)]
    assert not set(NEW_TABLES) & set(after)
    before["installation"] = [row for row in before["installation"] if row[0] != "audit_since"]  # it has none now
    unchanged = set(after) - {"alembic_version", "studies", "instances", "reports"}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}
    assert len(after["studies"]) == len(before["studies"]) == 2
    assert rows["audit_records"] >= 1
    lines = (tmp_path / "kept" / "audit_records.jsonl").read_text().splitlines()
    assert "node:test" in [json.loads(line)["actor"] for line in lines]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "kept").iterdir() if path.is_file()} == {0o600}


def test_a_ledger_that_went_back_comes_forward_again_and_works(url: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    Ledger.open(url, store).close()
    to_0007(url, store, tmp_path / "kept")
    ledger = Ledger.open(url, store)
    story = Story(ledger)
    story.image(judged(HIGH, 0.9))
    assert story.final() is not None
    assert [entry.priority for entry in ledger.worklist()] == [HIGH]
    ledger.close()


def test_the_nodes_own_test_patient_is_no_patient_of_an_older_release(url: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    ledger = Ledger.open(url, store)
    story = Story(ledger)
    story.image(judged(HIGH, 0.9))
    story.final()
    story.receive(study="1.2.9")
    with transaction(ledger._engine, write=True) as connection:
        connection.execute(text("UPDATE studies SET is_heartbeat = :yes WHERE study_uid = '1.2.3'"), {"yes": True})
    ledger.close()
    to_0007(url, store, tmp_path / "kept")
    after = tables(url)
    assert [row[0] for row in after["studies"]] == ["1.2.9"]
    assert not after["reports"]
    assert not after["deliveries"]
    assert {row[3] for row in after["jobs"]} == {"1.2.9"}


def test_a_report_that_was_said_to_nobody_is_no_report_of_an_older_release(url: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    ledger = Ledger.open(url, store)
    story = Story(ledger)
    story.image(judged(LOW, 0.1))
    story.final()
    with transaction(ledger._engine, write=True) as connection:
        connection.execute(text("UPDATE reports SET is_shadow = :yes"), {"yes": True})
        [path] = connection.execute(text("SELECT path FROM objects")).scalars()
    ledger.close()
    store.path(path).parent.mkdir(parents=True, exist_ok=True)
    store.path(path).write_bytes(b"an object")
    rows = to_0007(url, store, tmp_path / "kept")
    assert rows["reports.is_shadow"] == 1
    assert (tmp_path / "kept" / "objects" / Path(path).name).read_bytes() == b"an object"
    after = tables(url)
    assert (len(after["studies"]), len(after["reports"]), len(after["objects"])) == (1, 0, 0)


def test_secrets_are_in_no_exported_file(tmp_path: Path) -> None:
    url = sqlite(tmp_path)
    store = Store(tmp_path / "store")
    ledger = Ledger.open(url, store)
    with transaction(ledger._engine, write=True) as connection:
        connection.execute(
            text(
                "INSERT INTO access_tokens (id, name, role, digest, created_at) VALUES (1, 'anna', 'read', 'd16e57', 1)"
            )
        )
    ledger.close()
    to_0007(url, store, tmp_path / "kept")
    said = (tmp_path / "kept" / "access_tokens.jsonl").read_text()
    assert "anna" in said
    assert "d16e57" not in said


def test_a_schema_that_cannot_be_undone_is_left_alone(tmp_path: Path) -> None:
    url = sqlite(tmp_path)
    store = Store(tmp_path / "store")
    Ledger.open(url, store).close()
    for to, why in (("0006", "0007 cannot be undone"), ("0099", "there is no schema 0099"), (HEAD, "already")):
        with pytest.raises(NoWayBack, match=why):
            roll_back(url, store, to, tmp_path / "kept")
    assert state_of(url).schema == HEAD
    assert not (tmp_path / "kept").exists()


def test_a_node_that_still_works_is_seen_by_its_leases(tmp_path: Path) -> None:
    url = sqlite(tmp_path)
    ledger = Ledger.open(url, Store(tmp_path / "store"))
    story = Story(ledger)
    story.receive()
    assert ledger.claim(Stage.ANALYSE, "elsewhere:analyse:7", 1, 60.0)
    assert working_elsewhere(url, "here:") == ["elsewhere:analyse:7"]
    assert working_elsewhere(url, "elsewhere:") == []
    ledger.close()


def test_a_release_that_meets_a_newer_schema_says_what_to_do_and_changes_nothing(url: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    Ledger.open(url, store).close()
    engine = open_engine(url)
    with transaction(engine, write=True) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    before = tables(url)
    with pytest.raises(LedgerIsNewer, match=rf"schema 9999.*up to {HEAD}.*ledger rollback --to {HEAD}"):
        Ledger.open(url, store)
    assert tables(url) == before


def test_a_sqlite_ledger_is_copied_before_its_schema_changes(tmp_path: Path) -> None:
    url = sqlite(tmp_path)
    store = Store(tmp_path / "store")
    Ledger.open(url, store).close()
    assert not backups_of(url).exists()  # a first start has nothing to copy
    to_0007(url, store, tmp_path / "kept")
    Ledger.open(url, store).close()
    [copy] = backups_of(url).iterdir()
    assert copy.name.startswith(f"ledger-0007-before-{HEAD}-")
    assert copy.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(copy) as kept:
        assert kept.execute("SELECT version_num FROM alembic_version").fetchone() == ("0007",)


def test_a_backup_is_of_one_moment_while_the_ledger_is_written(tmp_path: Path) -> None:
    url = sqlite(tmp_path)
    ledger = Ledger.open(url, Store(tmp_path / "store"))
    story = Story(ledger)
    story.image(judged(HIGH, 0.9))
    with transaction(ledger._engine, write=True) as connection:
        connection.execute(text("INSERT INTO installation VALUES ('not yet', 'committed')"))
        back_up(url, tmp_path / "copy.sqlite")
    story.final()
    copy = Ledger.open(f"sqlite:///{tmp_path / 'copy.sqlite'}", Store(tmp_path / "other"))
    assert [entry.priority for entry in copy.worklist()] == [HIGH]
    assert Story(copy).claimable(Stage.REPORT)
    assert copy.installation_uid == ledger.installation_uid
    with transaction(copy._engine, write=False) as connection:
        assert not connection.execute(text("SELECT 1 FROM installation WHERE key = 'not yet'")).all()
    copy.close()
    ledger.close()


def test_no_backup_replaces_another_nor_pretends_to_know_postgresql(tmp_path: Path) -> None:
    url = sqlite(tmp_path)
    Ledger.open(url, Store(tmp_path / "store")).close()
    back_up(url, tmp_path / "copy.sqlite")
    with pytest.raises(NoBackup, match="never replaces another"):
        back_up(url, tmp_path / "copy.sqlite")
    with pytest.raises(NoBackup, match="pg_dump --format=custom") as caught:
        back_up("postgresql+psycopg://node:secret@db/opentriage", tmp_path / "x")
    assert "secret" not in str(caught.value)


def test_a_disk_without_room_for_the_copy_keeps_the_old_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = sqlite(tmp_path)
    store = Store(tmp_path / "store")
    Ledger.open(url, store).close()
    to_0007(url, store, tmp_path / "kept")
    monkeypatch.setattr("ledger.backup.SPARE_BYTES", 1 << 60)
    with pytest.raises(NoBackup, match="make room"):
        Ledger.open(url, store)
    assert tables(url)["alembic_version"] == [("0007",)]
    engine = open_engine(url)
    migrate(engine, keep_a_copy=False)
    engine.dispose()
    assert tables(url)["alembic_version"] == [(HEAD,)]

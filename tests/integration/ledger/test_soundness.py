"""A ledger that cannot be written, or is damaged, is called so by the name that SQLite has for it."""

import sqlite3
from pathlib import Path

import pytest

from ledger.database import errorname, refused
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.soundness import check_writable, first_damage
from ledger.store import Store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A ledger with a row too many for one page."""
    path = tmp_path / "ledger.sqlite"
    Ledger.open(f"sqlite:///{path}", Store(tmp_path / "store")).close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO installation VALUES ('long', ?)", ("x" * 100_000,))
    connection.close()
    return path


def url(file: Path) -> str:
    return f"sqlite:///{file}"


def rows(file: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(file)
    try:
        return connection.execute("SELECT * FROM installation ORDER BY key").fetchall()
    finally:
        connection.close()


def test_asking_whether_it_can_be_written_changes_nothing(file: Path) -> None:
    before = rows(file)
    check_writable(url(file))
    assert rows(file) == before
    assert first_damage(url(file), 20) == ""


def test_a_ledger_that_is_read_only_is_called_so(file: Path) -> None:
    with pytest.raises(LedgerUnavailable, match=r"OperationalError \(SQLITE_READONLY\w*: .* read-only for this user\)"):
        check_writable(f"sqlite:///file:{file}?mode=ro&uri=true")


def test_a_damaged_file_is_found_and_refuses_by_name(file: Path) -> None:
    size = file.stat().st_size
    with file.open("r+b") as raw:
        raw.seek(size // 2 // 4096 * 4096)
        raw.write(bytes(range(256)) * 16 * 5)
    try:
        assert first_damage(url(file), 20)
    except LedgerUnavailable as error:
        assert "SQLITE_CORRUPT: its file is damaged" in str(error)  # noqa: PT017  which of the two depends on the page
    file.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 64)
    with pytest.raises(LedgerUnavailable, match=r"\(SQLITE_(CORRUPT|NOTADB)\w*: its file is damaged"):
        check_writable(url(file))


def test_a_file_that_takes_too_long_is_said_to_be_neither_whole_nor_damaged(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.soundness.STEPS", 1)
    assert first_damage(url(file), 0.0) is None


def test_the_error_keeps_its_name_and_no_text_of_the_driver() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA max_page_count = 2")
    connection.execute("CREATE TABLE t (x)")
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    assert str(refused(caught.value)).endswith("OperationalError (SQLITE_FULL: the disk is full)")
    assert (errorname(ValueError("a value")), str(refused(ValueError("a value")))) == (
        "",
        "the ledger refused a transaction: ValueError",
    )

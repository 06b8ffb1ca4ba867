"""A copy of the ledger while it is in use: SQLite's online backup, one consistent moment, nobody waits for it.

A ledger in PostgreSQL is backed up by PostgreSQL's own means; the errors here give the command.
"""

import os
import shutil
import sqlite3
import time
from pathlib import Path

from sqlalchemy import make_url

from ledger.errors import PermanentError

FOLDER = "backups"
SPARE_BYTES = 64 << 20  # left on the disk for the work that goes on meanwhile


class NoBackup(PermanentError):
    """There is no backup; the text says why and what to do."""


def stamp() -> str:
    """Now, as names of files bear it."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def backups_of(url: str) -> Path:
    """Where backups of a SQLite ledger go unless told otherwise: beside it."""
    return Path(make_url(url).database or "").absolute().parent / FOLDER


def by_postgresql(url: str) -> NoBackup:
    """The sentence for a ledger that is not a file."""
    parsed = make_url(url)
    plain = parsed.set(drivername="postgresql", password=None).render_as_string()
    return NoBackup(f"the ledger is in PostgreSQL: back it up with pg_dump --format=custom --file=FILE '{plain}'")


def back_up(url: str, target: Path) -> int:
    """Write a consistent copy to `target`, durably, readable for the owner alone; its size in bytes.

    The copy is checked before it gets its name. Raises NoBackup, OSError.
    """
    if not url.startswith("sqlite"):
        raise by_postgresql(url)
    source = Path(make_url(url).database or "")
    if target.exists():
        raise NoBackup(f"{target} exists: a backup never replaces another")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_room(source, target.parent)
    part = target.with_name(target.name + ".part")
    os.close(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))
    try:
        _copy(source, part)
        part.replace(target)
    except sqlite3.Error as error:
        raise NoBackup(
            f"the copy of {source} failed: {type(error).__name__}; is there room, is the disk well?"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    _sync(target.parent)
    return target.stat().st_size


def _check_room(source: Path, folder: Path) -> None:
    needs = source.stat().st_size + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needs:
        raise NoBackup(
            f"{folder} has {free >> 20} MiB free and a backup needs {needs >> 20}: make room, or name another place"
        )


def _copy(source: Path, part: Path) -> None:
    # All pages in one step: in WAL mode a reader holds up nobody, and a copy in steps begins anew at each commit.
    original = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
    copy = sqlite3.connect(part)
    try:
        original.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        if (said := copy.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise NoBackup(f"the copy is not whole ({said}): the ledger itself may be damaged, or the disk")
    finally:
        copy.close()
        original.close()
    descriptor = os.open(part, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

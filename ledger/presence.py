"""Is there a ledger at all? Asked before a question is put to one: asking must not make it."""

from pathlib import Path

from sqlalchemy import inspect, make_url

from ledger.database import HEAD, open_engine, read_revision, transaction


def is_there(url: str) -> bool:
    """Whether a node has made its ledger at `url`: the SQLite file exists, or PostgreSQL holds the tables.

    Creates nothing. Raises LedgerUnavailable when PostgreSQL does not answer.
    """
    if url.startswith("sqlite"):
        return Path(make_url(url).database or "").is_file()
    engine = open_engine(url)
    try:
        with transaction(engine, write=False) as connection:
            return inspect(connection).has_table("installation")
    finally:
        engine.dispose()


def is_older(url: str) -> bool:
    """Whether an older release made the ledger at `url`, which is there: a question must not change its schema."""
    engine = open_engine(url)
    try:
        with transaction(engine, write=False) as connection:
            return (read_revision(connection) or HEAD) < HEAD
    finally:
        engine.dispose()


def place(url: str) -> str:
    """Where the ledger is, for people: SQLite's file, or PostgreSQL's URL without its password."""
    parsed = make_url(url)
    if url.startswith("sqlite"):
        return parsed.database or "memory"
    return parsed.render_as_string(hide_password=True)

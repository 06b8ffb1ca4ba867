"""Engines, the database's own clock, and migrations. SQLite by default, PostgreSQL when there are more machines."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Double, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from ledger.errors import LedgerUnavailable

HEAD = "0004"  # the newest migration; a test holds it against the folder
BUSY_TIMEOUT_S = 30
WRITE = "opentriage_write"


class db_now(FunctionElement[float]):  # noqa: N801  a SQL function
    """Seconds since 1970 by the database's clock: the one clock that all workers share."""

    type = Double()
    inherit_cache = True


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _postgresql_now(element: db_now, compiler: Any, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


def open_engine(url: str) -> Engine:
    """An engine whose every connection is durable: SQLite's `synchronous` does not persist, so it is set each time."""
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, pool_size=4, max_overflow=12)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False})
    event.listen(engine, "connect", _sqlite_connect)
    event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connect(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _sqlite_begin(connection: Connection) -> None:
    # A write begins IMMEDIATE: it waits for its turn now instead of failing at its first UPDATE.
    write = connection.get_execution_options().get(WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def transaction(engine: Engine, *, write: bool) -> Iterator[Connection]:
    """One transaction; committed at the end, rolled back on any error. Raises LedgerUnavailable for the database's."""
    options: dict[str, Any] = {WRITE: write}
    if not write and engine.dialect.name == "postgresql":
        options["isolation_level"] = "REPEATABLE READ"  # several questions, one answer; SQLite gives this anyway
    try:
        with engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection
    except (DBAPIError, SQLAlchemyError) as error:
        # The driver's text can quote parameters; only the kind of error leaves this module.
        raise LedgerUnavailable(f"the ledger refused a transaction: {type(error).__name__}") from error


def migrate(engine: Engine) -> None:
    """Bring the schema to HEAD. Nothing is done, and Alembic not even imported, when it is there already."""
    if _revision(engine) == HEAD:
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    with transaction(engine, write=True) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(7221126)"))  # one migrates, the others wait
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _revision(engine: Engine) -> str | None:
    with transaction(engine, write=False) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()

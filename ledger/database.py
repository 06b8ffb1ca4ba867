"""Engines, the database's own clock, and migrations. SQLite by default, PostgreSQL when there are more machines."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Double, Engine, ExceptionContext, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from ledger.errors import LedgerUnavailable, PermanentError

HEAD = "0008"  # the newest migration; a test holds it against the folder
BUSY_TIMEOUT_S = 30
TURN_MS = 1  # how often SQLite is asked whether it is our turn to write
WRITE = "opentriage_write"
_SAID = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_READONLY": "its file, its folder or the disk is read-only for this user",
    "SQLITE_CORRUPT": "its file is damaged",
    "SQLITE_NOTADB": "its file is damaged, or is no ledger",
    "SQLITE_BUSY": "another process holds it",
    "SQLITE_CANTOPEN": "its file cannot be opened, or its log not be made: a full disk, or rights",
    "SQLITE_IOERR": "the disk fails, or is full",
}


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
    if not connection.get_execution_options().get(WRITE, False):
        connection.exec_driver_sql("BEGIN")
        return
    try:
        begin_sqlite_write(connection.connection.cursor())
    except sqlite3.Error as error:  # a damaged file is a DatabaseError
        raise refused(error) from error


def begin_sqlite_write(cursor: Any) -> None:
    """BEGIN IMMEDIATE as soon as nobody else writes, at the latest after BUSY_TIMEOUT_S. Raises OperationalError.

    Asked by itself SQLite sleeps ever longer between two looks, up to 0.1 s: beside a process that writes without a
    pause it would come to its turn late, and now and then after a second.
    """
    give_up = time.monotonic() + BUSY_TIMEOUT_S
    cursor.execute(f"PRAGMA busy_timeout = {TURN_MS}")
    try:
        while True:
            try:
                cursor.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
    finally:
        cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")


def refused(error: Exception) -> LedgerUnavailable:
    """The driver's text can quote parameters; only the kind of error leaves the ledger, and SQLite's name for it."""
    name = errorname(error)
    words = next((said for start, said in _SAID.items() if name.startswith(start)), "")
    what = f" ({name}{': ' if words else ''}{words})" if name else ""
    return LedgerUnavailable(f"the ledger refused a transaction: {type(error).__name__}{what}")


def errorname(error: BaseException | None) -> str:
    """What SQLite calls it (https://www.sqlite.org/rescode.html); empty of anybody else's error."""
    return next(_errornames(error), "")


def _errornames(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        if name := getattr(error, "sqlite_errorname", ""):
            yield str(name)
        error = getattr(error, "orig", None) or error.__cause__


def sync_failed(error: BaseException | None) -> bool:
    """Whether it was SQLite that could not sync: what the disk holds of its files is no longer known."""
    return not {"SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC"}.isdisjoint(_errornames(error))


def tell_of_failed_sync(engine: Engine, tell: Callable[[], None]) -> None:
    """Call `tell` when any transaction of the engine ends so."""

    def failed(context: ExceptionContext) -> None:
        if sync_failed(context.original_exception):
            tell()

    event.listen(engine, "handle_error", failed)


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
        raise refused(error) from error


def begin_new_log(engine: Engine) -> None:
    """SQLite: move what the write-ahead log holds into the database, synced, and begin a new log.

    After a sync that failed, a log can read well from memory and never reach the disk; what is appended to it would be
    lost with it. The next start must not go on with it.
    """
    if engine.dialect.name == "sqlite":
        try:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        except SQLAlchemyError as error:
            raise refused(error) from error


class LedgerIsNewer(PermanentError):
    """A newer release has changed the schema: this program would misread it, and leaves it alone."""


def migrate(engine: Engine, keep_a_copy: bool = True) -> None:
    """Bring the schema to HEAD. Nothing is done, and Alembic not even imported, when it is there already.

    A SQLite ledger of an older schema is copied first (ledger.backup). Raises LedgerIsNewer, and NoBackup where the
    copy could not be made; then the engine has no open connection.
    """
    try:
        if revision_of(engine) != HEAD:
            _upgrade(engine, keep_a_copy)
    except BaseException:
        engine.dispose()
        raise


def _upgrade(engine: Engine, keep_a_copy: bool) -> None:
    from alembic import command

    config = alembic_config()
    with transaction(engine, write=True) as connection:
        serialised(connection)
        if (found := read_revision(connection)) == HEAD:
            return  # somebody else was quicker
        if found is not None and keep_a_copy:
            _keep_a_copy(engine, found)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def revision_of(engine: Engine) -> str | None:
    """The schema that a ledger has; None before its first start. Raises LedgerIsNewer."""
    with transaction(engine, write=False) as connection:
        found = read_revision(connection)
    if found is not None and found > HEAD:
        raise LedgerIsNewer(
            f"the ledger has schema {found}, and this release knows schemas up to {HEAD}: a newer release has used it. "
            f"Nothing was changed. Start the newer release again; or, with the newer release's own program, run "
            f"`opentriage ledger rollback --to {HEAD}`, and then start this one (docs/upgrade.md)"
        )
    return found


def read_revision(connection: Connection) -> str | None:
    """What stands in the database, known to us or not."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def serialised(connection: Connection) -> None:
    """One changes the schema, the others wait; with SQLite who writes is alone anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(7221126)"))


def alembic_config() -> Any:
    """For Alembic's commands; the connection goes into its attributes."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def _keep_a_copy(engine: Engine, found: str) -> None:
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return
    from ledger.backup import back_up, backups_of, stamp

    url = str(engine.url)
    back_up(url, backups_of(url) / f"ledger-{found}-before-{HEAD}-{stamp()}.sqlite")

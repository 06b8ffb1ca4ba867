"""What somebody who owns the database can do to the audit trail."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine

from ledger.ledger import Ledger


def tamper(ledger: Ledger, *statements: str) -> None:
    """As one who owns the database: the wall is taken down first, and no foreign key holds."""
    with outside(ledger._engine) as connection:
        for statement in (*wall_down(connection), *statements):
            connection.exec_driver_sql(statement)


def wall_down(connection: Connection) -> list[str]:
    if connection.dialect.name == "postgresql":
        return ["SET session_replication_role = replica"]
    triggers = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").scalars().all()
    return ["PRAGMA foreign_keys=OFF", *(f"DROP TRIGGER {name}" for name in triggers)]


@contextmanager
def outside(engine: Engine) -> Iterator[Connection]:
    """A connection of its own that commits each statement by itself: SQLite's pragmas want that."""
    own = create_engine(engine.url, isolation_level="AUTOCOMMIT")
    with own.connect() as connection:
        yield connection
    own.dispose()

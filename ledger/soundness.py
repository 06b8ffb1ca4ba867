"""Can the ledger be written, and is its file whole? Nothing is changed by asking."""

import time
from typing import Final

from sqlalchemy import false, update
from sqlalchemy.exc import SQLAlchemyError

from ledger.database import WRITE, open_engine, refused
from ledger.tables import installation

STEPS: Final = 100_000  # of SQLite's virtual machine between two looks at the clock


def check_writable(url: str) -> None:
    """Begin a write to a ledger that is there, and take it back. Waits for its turn. Raises LedgerUnavailable."""
    engine = open_engine(url)
    try:
        with engine.connect().execution_options(**{WRITE: True}) as connection, connection.begin() as begun:
            connection.execute(update(installation).where(false()).values(value=""))
            begun.rollback()
    except SQLAlchemyError as error:
        raise refused(error) from error
    finally:
        engine.dispose()


def first_damage(url: str, within_s: float) -> str | None:
    """What SQLite finds first that is wrong with its file (PRAGMA quick_check); empty: it is whole; None: it could not
    be read through in that time, or is not SQLite's. Raises LedgerUnavailable."""
    if not url.startswith("sqlite"):
        return None
    engine, until, late = open_engine(url), time.monotonic() + within_s, False

    def look_at_clock() -> int:
        nonlocal late
        late = time.monotonic() > until
        return int(late)

    try:
        with engine.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.set_progress_handler(look_at_clock, STEPS)
            found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
            raw.set_progress_handler(None, 0)
    except SQLAlchemyError as error:
        if late:
            return None
        raise refused(error) from error
    finally:
        engine.dispose()
    return "" if found == "ok" else found

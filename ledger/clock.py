"""The database's wall clock was set: what is due, and who holds it, moves along, so that no wait ends early or late.

Without this an hour set back would leave every waiting image unread for an hour, and an hour set forward would report
every growing study at once.
"""

from typing import Final

from sqlalchemy import select, update

from ledger.database import db_now, open_engine, transaction
from ledger.ledger import Ledger
from ledger.states import UNFINISHED
from ledger.tables import commitment_requests as requests
from ledger.tables import jobs

SLACK_S: Final = 1.0  # between a commit and the moment that the step is noticed


def follow_step(ledger: Ledger, by_s: float, until: float) -> int:
    """Move by `by_s` what was queued before the clock showed `until`, seconds since 1970 by the clock before its step.

    Returns how many jobs and requests moved. Only for SQLite, whose clock is this machine's: who runs PostgreSQL keeps
    its clock, and several nodes must not each move the same jobs. Raises LedgerUnavailable.
    """
    before = until + SLACK_S
    waiting = update(jobs).where(jobs.c.state.in_(UNFINISHED), jobs.c.queued_at <= before)
    asked = update(requests).where(requests.c.ended_at.is_(None), requests.c.asked_at <= before)
    of_jobs = jobs.c.queued_at, jobs.c.due_at, jobs.c.lease_expires_at
    of_requests = requests.c.asked_at, requests.c.patience_until, requests.c.due_at, requests.c.lease_expires_at
    with ledger._write() as connection:
        if connection.dialect.name != "sqlite":
            return 0
        moved = connection.execute(waiting.values({at.name: at + by_s for at in of_jobs})).rowcount
        return moved + connection.execute(asked.values({at.name: at + by_s for at in of_requests})).rowcount


def seconds_now(url: str) -> float:
    """What the database's clock shows, in seconds since 1970. Raises LedgerUnavailable."""
    engine = open_engine(url)
    try:
        with transaction(engine, write=False) as connection:
            return float(connection.execute(select(db_now())).scalar_one())
    finally:
        engine.dispose()

"""Admissions of many threads share what makes them durable: one sync of a folder, one commit (docs/adr/0017).

The order stands: every file of a group is renamed and on disk, then the folders are synced, then the ledger commits,
then anybody is answered.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Engine
from sqlalchemy.exc import InterfaceError, OperationalError

from ledger import intake
from ledger.bulk import Arrival, Bulk, Uncommon
from ledger.database import refused, sync_failed, transaction
from ledger.errors import LedgerUnavailable
from ledger.group import Coming, Group, copy_of
from ledger.intake import Admission, AdmissionOutcome
from ledger.store import Store, VolumeFailed

_AWAY = (
    OperationalError,
    InterfaceError,
    sqlite3.OperationalError,
)  # the database's own trouble, not that of what was written


class Admissions:
    """Admits what any number of threads bring, each group in the order in which it was brought."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine = engine
        self._store = store
        self._bulk = Bulk(engine)
        self._has_news = False
        self._group: Group[Arrival, Admission] = Group(self._admit)

    def coming(self) -> Coming:
        return Coming(self._group)

    def admit(self, arrival: Arrival, coming: Coming | None = None) -> Admission:
        """Returns once it is durable. Raises VolumeFailed, OSError, LedgerUnavailable."""
        return self._group.hand_in(arrival, coming)

    def take_news(self) -> bool:
        """Whether anything was admitted since this last said so: one of a group is told, and wakes who waits."""
        had, self._has_news = self._has_news, False
        return had

    def close(self) -> None:
        self._bulk.close()

    def _admit(self, arrivals: Sequence[Arrival]) -> Sequence[Admission | Exception]:
        for folder in {arrival.folder for arrival in arrivals if arrival.folder is not None}:
            self._store.sync_folder(folder)
        if self._store.failed:  # also somebody else's sync, beside ours
            raise VolumeFailed("a sync of this volume failed")
        try:
            outcomes = self._commit(arrivals)
        except LedgerUnavailable as error:
            self._look_for_failed_sync(error)
            raise
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                self._look_for_failed_sync(outcome)
        self._has_news = True
        return outcomes

    def _look_for_failed_sync(self, error: Exception) -> None:
        """The ledger's own sync counts as the store's: nothing more is acknowledged until a restart."""
        if sync_failed(error):
            self._store.fail()

    def _commit(self, arrivals: Sequence[Arrival]) -> Sequence[Admission | Exception]:
        try:
            return self._bulk.admit(arrivals)
        except Uncommon:
            pass
        except sqlite3.OperationalError as error:  # locked for too long, full, broken: it would not end otherwise now
            raise refused(error) from error
        except Exception:  # noqa: BLE001 - whose fault it is, or whether a connection went stale, is found out
            return self._one_by_one(arrivals)
        return self._together(arrivals)

    def _together(self, arrivals: Sequence[Arrival]) -> Sequence[Admission | Exception]:
        """One after the other in one transaction."""
        try:
            with transaction(self._engine, write=True) as connection:
                return [intake.admit(connection, one.received, one.completion) for one in arrivals]
        except Exception as error:
            if len(arrivals) == 1 or _is_away(error):
                raise
            return self._one_by_one(arrivals)

    def _one_by_one(self, arrivals: Sequence[Arrival]) -> Sequence[Admission | Exception]:
        """Each in a transaction of its own: what is wrong with one is not wrong with the others."""
        outcomes: list[Admission | Exception] = []
        away: Exception | None = None
        for arrival in arrivals:
            if away is not None:  # do not wait for it again
                outcomes.append(copy_of(away))
                continue
            try:
                outcomes.append(self._alone(arrival))
            except Exception as error:  # noqa: BLE001 - handed to the thread that brought it
                outcomes.append(error)
                away = error if _is_away(error) else None
        return outcomes

    def _alone(self, arrival: Arrival) -> Admission:
        with transaction(self._engine, write=True) as connection:
            admission = intake.admit(connection, arrival.received, arrival.completion)
        if admission.outcome is AdmissionOutcome.RESENT and admission.path == arrival.received.path:
            return replace(admission, outcome=AdmissionOutcome.NEW)  # a commit whose answer was lost had done it
        return admission


def _is_away(error: Exception) -> bool:
    return isinstance(error, LedgerUnavailable) and isinstance(error.__cause__, _AWAY)

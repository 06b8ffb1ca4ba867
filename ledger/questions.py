"""What people, health and metrics ask of the ledger. Nothing is changed by asking."""

from collections.abc import Collection
from contextlib import AbstractContextManager
from datetime import datetime

from sqlalchemy import Connection, Engine

from ledger import (
    commitments,
    completeness,
    damage,
    history,
    notifications,
    outward,
    peers,
    revisions,
    statements,
    views,
    worklist,
)
from ledger.commitments import Transaction
from ledger.completeness import Contents, Waiting
from ledger.database import transaction
from ledger.history import Event
from ledger.notifications import NotificationState
from ledger.outward import Refusal, StillToLeave
from ledger.peers import Gaps, Peer, RefusedKind
from ledger.records import InstanceResults, Stage
from ledger.views import ObjectDelivery, ParkedJob
from ledger.worklist import WorklistEntry


class Questions:
    """The asking half of `ledger.ledger.Ledger`; each method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def told_so_far(self) -> dict[str, dict[NotificationState, int]]:
        """By adapter: of how many reports it was told, is still to be told, refused to hear."""
        with self._read() as connection:
            return notifications.told_so_far(connection)

    def told(self, study_uid: str) -> list[notifications.Notification]:
        """What each adapter was told of each report, oldest report first."""
        return self.told_of([study_uid]).get(study_uid, [])

    def told_of(self, study_uids: Collection[str]) -> dict[str, list[notifications.Notification]]:
        """By study of which any was told: what each adapter was told of each report, oldest report first."""
        with self._read() as connection:
            return notifications.of_studies(connection, study_uids)

    def to_recall(self, study_uid: str | None = None, model: tuple[str, str | None] | None = None) -> list[str]:
        """The studies that `recall` would withdraw now, by Study Instance UID."""
        with self._read() as connection:
            return revisions.to_recall(connection, study_uid, model)

    def worklist(self, since: datetime | None = None, include_hidden: bool = False) -> list[WorklistEntry]:
        with self._read() as connection:
            return worklist.worklist(connection, since, include_hidden)

    def events(self, study_instance_uid: str) -> list[Event]:
        with self._read() as connection:
            return history.read(connection, study_instance_uid)

    def hold(self, study_instance_uid: str) -> str:
        """Why nothing of a study may leave; empty while it may."""
        with self._read() as connection:
            return views.hold(connection, study_instance_uid)

    def damaged_of(self, study_instance_uid: str) -> frozenset[int]:
        """Instances of a study whose stored file was found damaged or gone."""
        with self._read() as connection:
            return damage.of(connection, study_instance_uid)

    def damaged_count(self) -> int:
        """How many stored files were found damaged or gone, and are not healed."""
        with self._read() as connection:
            return damage.count(connection)

    def waiting(self, study_instance_uid: str) -> Waiting | None:
        """What a study that may still grow waits for; None when it waits for nothing."""
        with self._read() as connection:
            return completeness.waiting(connection, study_instance_uid)

    def contents(self, study_instance_uid: str) -> Contents:
        """What is here of a study, to be held against what an archive lists."""
        with self._read() as connection:
            return completeness.contents(connection, study_instance_uid)

    def peers(self) -> list[Peer]:
        """Everybody who has called, the last first."""
        with self._read() as connection:
            return peers.known(connection)

    def refused_of(self, calling_ae_title: str) -> list[RefusedKind]:
        """The presentation contexts that a peer did not get, the most frequent first."""
        with self._read() as connection:
            return peers.refused_of(connection, calling_ae_title)

    def turned_away(self, calling_ae_title: str) -> list[RefusedKind]:
        """The associations and instances of a peer that were not taken (ledger.peers)."""
        with self._read() as connection:
            return peers.turned_away(connection, calling_ae_title)

    def refused_counts(self) -> dict[tuple[str, str, bool], int]:
        """(calling AE title, reason, whether it has stored here) -> presentation contexts refused."""
        with self._read() as connection:
            return peers.refused_counts(connection)

    def arrival_gaps(self) -> dict[str, Gaps]:
        """By calling AE title: how it sends (ledger.peers)."""
        with self._read() as connection:
            return peers.gaps_of(connection)

    def study_instances(self, study_instance_uid: str) -> list[InstanceResults]:
        with self._read() as connection:
            return statements.looked_at(connection, study_instance_uid, routed_only=False)

    def study_objects(self, study_instance_uid: str) -> list[ObjectDelivery]:
        """Every result object of a study with its deliveries, in the order they were made."""
        return self.objects_of([study_instance_uid]).get(study_instance_uid, [])

    def objects_of(self, study_instance_uids: Collection[str]) -> dict[str, list[ObjectDelivery]]:
        """By study that has any: every result object with its deliveries, in the order they were made."""
        with self._read() as connection:
            return views.objects_of(connection, study_instance_uids)

    def counts(self) -> dict[str, dict[str, int]]:
        with self._read() as connection:
            return views.counts(connection)

    def oldest_job_age_s(self) -> float | None:
        with self._read() as connection:
            return views.oldest_job_age_s(connection)

    def oldest_outward_ages_s(self) -> dict[Stage, dict[str, float]]:
        """For DELIVER, PROVE and NOTIFY: seconds for which the oldest job for each destination, or adapter, waits."""
        with self._read() as connection:
            return views.oldest_outward_ages_s(connection)

    def parked(self) -> list[ParkedJob]:
        with self._read() as connection:
            return views.parked(connection)

    def parked_counts(self) -> dict[tuple[Stage, str | None], int]:
        with self._read() as connection:
            return views.parked_counts(connection)

    def still_to_leave(self, study_instance_uid: str) -> list[StillToLeave]:
        """What was tried for a study, and will be again, at destinations and adapters."""
        with self._read() as connection:
            return outward.still_to_leave(connection, study_instance_uid)

    def newest_answers(self) -> dict[str, str]:
        """By destination for which reports wait: why they do."""
        with self._read() as connection:
            return outward.newest_answers(connection)

    def refusals(self) -> dict[str, Refusal]:
        """By destination for which deliveries are parked because it refused something."""
        with self._read() as connection:
            return outward.refusals(connection)

    def studies_ending(self, end: str, limit: int) -> list[str]:
        """Study Instance UIDs that end so, of patients, at most `limit`. end: digits and points."""
        with self._read() as connection:
            return views.studies_ending(connection, end, limit)

    def commitment_transaction(self, transaction_uid: str) -> Transaction | None:
        """Whom we asked that, and what; None: nobody."""
        with self._read() as connection:
            return commitments.transaction_of(connection, transaction_uid)

    def _read(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=False)

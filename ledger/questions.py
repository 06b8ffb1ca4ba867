"""What people, health and metrics ask of the ledger. Nothing is changed by asking."""

from collections.abc import Collection
from contextlib import AbstractContextManager
from datetime import datetime

from sqlalchemy import Connection, Engine

from ledger import history, notifications, revisions, statements, views, worklist
from ledger.database import transaction
from ledger.history import Event
from ledger.notifications import NotificationState
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

    def _read(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=False)

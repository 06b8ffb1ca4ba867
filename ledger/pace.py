"""What the page draws and chooses by: how much comes, how soon it is answered, and which models spoke of which study.

Our own heartbeat is not counted.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from ledger.codec import moment
from ledger.database import db_now
from ledger.delivery_records import DeliveryState
from ledger.questions import Questions
from ledger.records import Disposition, TriagePriority
from ledger.tables import deliveries, instances, objects, report_models, reports, studies
from ledger.worklist import WorklistEntry, entry_of

HOUR_S = 3600.0


@dataclass(frozen=True)
class Hour:
    """studies: whose first image came in the hour that begins at `begins_at`."""

    begins_at: datetime
    studies: int


@dataclass(frozen=True)
class Promptness:
    """From the last byte of a report's newest image to the whole report accepted by a destination, by priority, of
    reports that say something for the first time. Seconds; None: there was none."""

    priority: TriagePriority
    deliveries: int
    p50_s: float | None
    p95_s: float | None
    by_hour: tuple[float | None, ...] = ()  # the 95th percentile of each hour


@dataclass(frozen=True)
class Pace:
    """The last so many whole hours and the one that runs, oldest first."""

    hours: tuple[Hour, ...]
    promptness: tuple[Promptness, ...]


class Pacing(Questions):
    """Of `ledger.ledger.Ledger`."""

    def pace(self, hours: int = 24) -> Pace:
        with self._read() as connection:
            return _pace(connection, hours)

    def entry(self, study_uid: str) -> WorklistEntry | None:
        """One study's line of the triage list, whether the list would show it or not."""
        with self._read() as connection:
            return entry_of(connection, study_uid)

    def first_images(self, study_uids: Collection[str]) -> dict[str, str]:
        """By study: where its first image is stored that is no result of ours; its header says whose the study is."""
        query = (
            select(instances.c.study_uid, instances.c.path)
            .where(instances.c.study_uid.in_(study_uids), instances.c.disposition != Disposition.OWN_RESULT.value)
            .order_by(instances.c.id.desc())
        )
        with self._read() as connection:
            return {row.study_uid: row.path for row in connection.execute(query)}

    def models_by_study(self, study_uids: Collection[str]) -> dict[str, frozenset[str]]:
        """By study that has a report: the models it rests on, as "name/version"."""
        query = (
            select(reports.c.study_uid, report_models.c.name, report_models.c.version)
            .join(report_models, report_models.c.report_id == reports.c.id)
            .where(reports.c.study_uid.in_(study_uids))
        )
        found: dict[str, set[str]] = {}
        with self._read() as connection:
            for row in connection.execute(query):
                found.setdefault(row.study_uid, set()).add(f"{row.name}/{row.version}")
        return {uid: frozenset(models) for uid, models in found.items()}


def _pace(connection: Connection, count: int) -> Pace:
    now = float(connection.execute(select(db_now())).scalar_one())
    first = math.floor(now / HOUR_S) * HOUR_S - (count - 1) * HOUR_S
    came: list[int] = [0] * count
    query = select(studies.c.first_received_at).where(studies.c.first_received_at >= first, ~studies.c.is_heartbeat)
    for at in connection.execute(query).scalars():
        came[_hour(at, first, count)] += 1
    waits: dict[str, list[list[float]]] = {}
    for priority, at, wait_s in _waits(connection, first):
        waits.setdefault(priority, [[] for _ in range(count)])[_hour(at, first, count)].append(wait_s)
    hours = tuple(Hour(moment(first + i * HOUR_S), number) for i, number in enumerate(came))
    return Pace(hours, tuple(_promptness(one, waits.get(one.value, [])) for one in TriagePriority))


def _hour(at: float, first: float, count: int) -> int:
    return min(max(int((at - first) // HOUR_S), 0), count - 1)


def _waits(connection: Connection, since: float) -> Iterable[tuple[str, float, float]]:
    """Of each report that a clock runs for (ledger/slo.py) and that a destination took whole: priority, when, and how
    long after the last byte of its newest image. One that repeats a provisional report, or that a person or a
    correction asked for, says nothing of how soon anything was answered."""
    sent = (
        select(reports.c.priority, reports.c.last_byte_at, func.max(deliveries.c.changed_at).label("sent_at"))
        .join(objects, objects.c.report_id == reports.c.id)
        .join(deliveries, deliveries.c.object_id == objects.c.id)
        .join(studies, studies.c.study_uid == reports.c.study_uid)
        .where(
            reports.c.created_at >= since,
            reports.c.last_byte_at.is_not(None),
            ~reports.c.is_shadow,
            ~studies.c.is_heartbeat,
            deliveries.c.state != DeliveryState.NOT_NEEDED.value,
        )
        .group_by(reports.c.id, reports.c.priority, reports.c.last_byte_at, deliveries.c.destination)
        .having(func.min(deliveries.c.state) == func.max(deliveries.c.state))
        .having(func.max(deliveries.c.state) == DeliveryState.DELIVERED.value)
    )
    for priority, last_byte_at, sent_at in connection.execute(sent):
        yield priority, sent_at, max(0.0, sent_at - last_byte_at)


def _promptness(priority: TriagePriority, hours: Sequence[Sequence[float]]) -> Promptness:
    every = [wait_s for hour in hours for wait_s in hour]
    by_hour = tuple(percentile(hour, 0.95) for hour in hours)
    return Promptness(priority, len(every), percentile(every, 0.5), percentile(every, 0.95), by_hour)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest of the values that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None

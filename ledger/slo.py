"""Promised times: from the last byte of a study's newest image to its report at a destination.

The clock runs for a report that says something of images for the first time: neither for one that repeats a
provisional one when its study is complete, nor for one that a person or a correction asked for. It is judged once, when
its time is up, or when it was queued if that was later: so what never arrives counts as well. One process after the
other tallies; what is counted never shrinks, whatever is removed later.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, and_, func, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from ledger.clinical import SINK
from ledger.database import db_now, transaction
from ledger.records import Job, ReportKind, Stage, StudyFindings, TriagePriority
from ledger.states import JobState
from ledger.tables import installation, jobs, reports, slo_tally

CURSOR: Final = "slo_tallied_to"
LAG_S: Final = 10.0  # a transaction that queues a delivery is long over by then

Promise = tuple[ReportKind, TriagePriority]
Targets = Mapping[Promise, float]  # seconds


@dataclass(frozen=True)
class Tally:
    """How many reports, by destination, fell due so far; how many of them were not there by then."""

    due: int
    late: int


@dataclass(frozen=True)
class Took:
    """One delivery against the clock."""

    kind: ReportKind
    priority: TriagePriority
    seconds: float


def clock_starts(findings: StudyFindings) -> float | None:
    """Seconds since 1970: when the newest image that a report rests on was here; None where no clock runs."""
    repeats = findings.follows is not None and findings.follows.kind is ReportKind.PROVISIONAL
    if findings.kind is ReportKind.WITHDRAWN or findings.cause or (findings.kind is ReportKind.FINAL and repeats):
        return None
    return max(item.instance.received_at for item in findings.looked_at).timestamp()


def tally(connection: Connection, targets: Targets) -> None:
    """Judge what fell due since this was last done. Everything before the first time is let be."""
    now = float(connection.execute(select(db_now())).scalar_one()) - LAG_S
    before = _cursor(connection, now)
    if now <= before:
        return
    counted: dict[Promise, list[int]] = {}
    for row in connection.execute(_fell_due(before, now, max(targets.values()))):
        promise = ReportKind(row.kind), TriagePriority(row.priority)
        if promise not in targets:
            continue
        deadline = row.last_byte_at + targets[promise]
        if before < max(deadline, row.queued_at) <= now:
            count = counted.setdefault(promise, [0, 0])
            count[0] += 1
            count[1] += not _in_time(row, deadline)
    for promise, (due, late) in sorted(counted.items()):
        _add(connection, promise, due, late)
    connection.execute(update(installation).where(installation.c.key == CURSOR).values(value=repr(now)))


def _cursor(connection: Connection, now: float) -> float:
    """Held until the transaction ends: nobody else tallies meanwhile."""
    mine = select(installation.c.value).where(installation.c.key == CURSOR).with_for_update()
    value = connection.execute(mine).scalar()
    if value is None:
        connection.execute(installation.insert().values(key=CURSOR, value=repr(now)))
        return now
    return float(value)


def _fell_due(after: float, until: float, longest_s: float) -> Any:
    """A delivery is queued with its report, so none that fell due in between has an older one."""
    return (
        select(
            reports.c.kind,
            reports.c.priority,
            reports.c.last_byte_at,
            jobs.c.state,
            jobs.c.queued_at,
            jobs.c.finished_at,
        )
        .join(jobs, and_(jobs.c.study_uid == reports.c.study_uid, jobs.c.report_id == reports.c.id))
        .where(
            reports.c.created_at > after - longest_s - LAG_S,
            reports.c.created_at <= until,
            reports.c.last_byte_at.is_not(None),
            jobs.c.stage == Stage.DELIVER,
            jobs.c.destination != SINK,
        )
    )


def _in_time(row: Row[Any], deadline: float) -> bool:
    return bool(row.state == JobState.SUCCEEDED and row.finished_at <= deadline)


def _add(connection: Connection, promise: Promise, due: int, late: int) -> None:
    make = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    insert = make(slo_tally).values(kind=promise[0], priority=promise[1], due=due, late=late)
    more = {"due": slo_tally.c.due + insert.excluded.due, "late": slo_tally.c.late + insert.excluded.late}
    connection.execute(insert.on_conflict_do_update(index_elements=["kind", "priority"], set_=more))


def tallied(connection: Connection) -> dict[Promise, Tally]:
    rows = connection.execute(select(slo_tally)).all()
    return {(ReportKind(row.kind), TriagePriority(row.priority)): Tally(row.due, row.late) for row in rows}


def overdue(connection: Connection, targets: Targets) -> dict[Promise, int]:
    """What waits now past its time, or was parked."""
    query = (
        select(reports.c.kind, reports.c.priority, func.count())
        .join(jobs, jobs.c.report_id == reports.c.id)
        .where(
            jobs.c.stage == Stage.DELIVER,
            jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING, JobState.PARKED)),
            jobs.c.destination != SINK,
        )
        .group_by(reports.c.kind, reports.c.priority)
    )
    found = dict.fromkeys(targets, 0)
    for promise, target_s in targets.items():
        of_it = and_(reports.c.kind == promise[0], reports.c.priority == promise[1])
        row = connection.execute(query.where(of_it, reports.c.last_byte_at + target_s < db_now())).first()
        found[promise] = row[2] if row else 0
    return found


def took(connection: Connection, job: Job) -> Took | None:
    """Of a delivery that has just ended; None where no clock ran."""
    query = select(reports.c.kind, reports.c.priority, db_now() - reports.c.last_byte_at).where(
        reports.c.id == job.report_id, reports.c.last_byte_at.is_not(None)
    )
    row = connection.execute(query).first()
    return None if row is None else Took(ReportKind(row[0]), TriagePriority(row[1]), max(0.0, float(row[2])))


class Promised:
    """Of `ledger.ledger.Ledger`; each method is one transaction."""

    _engine: Engine

    def tally(self, targets: Targets) -> None:
        """Count what fell due since the last time, once for all machines around the ledger."""
        with transaction(self._engine, write=True) as connection:
            tally(connection, targets)

    def tallied(self) -> dict[Promise, Tally]:
        with self._ask() as connection:
            return tallied(connection)

    def overdue(self, targets: Targets) -> dict[Promise, int]:
        with self._ask() as connection:
            return overdue(connection, targets)

    def took(self, job: Job) -> Took | None:
        with self._ask() as connection:
            return took(connection, job)

    def _ask(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=False)

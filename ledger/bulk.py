"""Admission of many instances in one transaction, with statements that each take all of them.

Only for what is common: instances that are new and go against nothing that is known. Everything else is `Uncommon`,
leaves no trace, and is admitted by `ledger.intake`, which this module must agree with: a test holds them together.
The statements are compiled once and run on the driver's own connection, kept for this alone.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Dialect, Engine, PoolProxiedConnection, bindparam, case, func
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.sql import ClauseElement

from ledger import audit, deeds
from ledger.completion import Completion
from ledger.database import begin_sqlite_write, db_now
from ledger.intake import (
    ANALYSIS,
    LIMIT_AT,
    NOBODYS,
    QUIET_UNTIL,
    RECEIPT,
    Admission,
    AdmissionOutcome,
    agrees,
    instance_row,
    last_resort,
    quiet_period,
    rank_of,
    receipt,
)
from ledger.queueing import FRESH
from ledger.records import Disposition, ReceivedInstance, ReportKind, Stage
from ledger.tables import WAITING_FINAL, events, instances, jobs, studies

Rows = list[dict[str, Any]]

# What is known of the studies and the instances, and of none in two ways unless it is uncommon: a rejection (here
# even one that withdraws nothing), or a sender's list of what it sent. A heartbeat is as uncommon as a held study.
_KNOWN: Final = """
SELECT 'study', study_uid, patient_digest, CASE WHEN is_heartbeat THEN 'heartbeat' ELSE hold END
FROM studies WHERE study_uid IN {studies}
UNION ALL SELECT 'instance', sop_instance_uid, '', '' FROM instances WHERE sop_instance_uid IN {uids}
UNION ALL SELECT 'rejection', sop_instance_uid, '', '' FROM rejections
WHERE study_uid IN {studies} AND sop_instance_uid IN {uids}
UNION ALL SELECT 'awaited', sop_instance_uid, '', '' FROM awaited_instances WHERE sop_instance_uid IN {uids}
UNION ALL SELECT 'stated', study_uid, '', '' FROM stated_studies WHERE study_uid IN {studies}
"""


class Uncommon(Exception):
    """Something in it needs more than to be written down. Nothing was changed."""


@dataclass(frozen=True)
class Arrival:
    """One instance to be admitted. folder: where its file was named, to be synced first; None: that is done."""

    received: ReceivedInstance
    completion: Completion
    folder: Path | None = None


class _Statement:
    """A statement for the driver, with named parameters; `fixed` are the values that the code gave it."""

    def __init__(self, statement: ClauseElement, dialect: Dialect, columns: Sequence[str] | None = None) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=columns)
        self.sql = str(compiled)
        self.fixed = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}  # type: ignore[attr-defined]

    def run(self, cursor: Any, rows: Iterable[Mapping[str, Any]]) -> None:
        cursor.executemany(self.sql, [{**self.fixed, **row} for row in rows])


class Bulk:
    """One connection and its statements. For one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._connection: PoolProxiedConnection | None = None
        dialect = sqlite_dialect(paramstyle="named") if self._is_sqlite else engine.dialect
        self._study = _Statement(_study(self._is_sqlite), dialect)
        told = [column.name for column in instances.columns if not column.nullable]  # the others are NULL at first
        self._instance = _Statement(instances.insert(), dialect, told)
        self._event = _Statement(
            events.insert().values(at=db_now()), dialect, ["study_uid", "name", "text", "instance_id"]
        )
        self._audit = _Statement(audit.INSERT, dialect, [*audit.COLUMNS])
        self._key = b""
        self._analysis = _Statement(ANALYSIS, dialect)
        self._final_report = _Statement(_final_report(self._is_sqlite), dialect)
        a_list = "(SELECT value FROM json_each(:{0}))" if self._is_sqlite else "(SELECT unnest(%({0})s::text[]))"
        self._known = _KNOWN.format(studies=a_list.format("studies"), uids=a_list.format("uids"))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()

    def admit(self, arrivals: Sequence[Arrival]) -> list[Admission]:
        """All of them, or none and Uncommon, or none and the driver's error (unless only the commit's answer was
        lost: to admit them again finds out)."""
        received = [arrival.received for arrival in arrivals]
        if not _could_be_common(received):
            raise Uncommon
        if self._connection is None:
            self._connection = self._engine.raw_connection()
        connection = self._connection
        try:
            cursor = connection.cursor()
            if self._is_sqlite:  # the drivers of other databases begin by themselves
                begin_sqlite_write(cursor)
            self._study.run(cursor, _study_rows(received))
            self._check(cursor, received)
            ids = self._write(cursor, arrivals)
            connection.commit()
            cursor.close()
        except Uncommon:
            connection.rollback()
            raise
        except BaseException:
            with contextlib.suppress(Exception):  # a lock must not outlive this, whatever still refers to the cursor
                connection.rollback()
            self.close()
            raise
        return [Admission(one_id, AdmissionOutcome.NEW, one.path) for one_id, one in zip(ids, received, strict=True)]

    def _check(self, cursor: Any, received: Sequence[ReceivedInstance]) -> None:
        """The studies' rows are locked: what is asked now holds until the commit."""
        study_uids = list({one.study_instance_uid for one in received})
        uids = [one.sop_instance_uid for one in received]
        cursor.execute(self._known, {"studies": self._list(study_uids), "uids": self._list(uids)})
        known = cursor.fetchall()
        if len(known) != len(study_uids):  # more than the studies is known
            raise Uncommon
        patients = {uid: (digest, hold) for _, uid, digest, hold in known}
        for one in received:
            digest, hold = patients[one.study_instance_uid]
            if one.disposition not in NOBODYS and (hold or not agrees(one.patient_digest, digest)):
                raise Uncommon

    def _write(self, cursor: Any, arrivals: Sequence[Arrival]) -> list[int]:
        ids = self._new_ids(cursor, len(arrivals))
        numbered = list(zip(ids, arrivals, strict=True))
        self._instance.run(cursor, ({"id": one_id, **instance_row(one.received, 1)} for one_id, one in numbered))
        self._event.run(cursor, (_event_row(one_id, one.received) for one_id, one in numbered))
        told = deeds.receipts((one_id, one.received) for one_id, one in numbered)
        self._audit.run(cursor, audit.rows(told, self._secret(cursor)))
        to_analyse = [(one_id, one) for one_id, one in numbered if one.received.disposition is Disposition.ANALYSE]
        if to_analyse:
            self._analysis.run(cursor, (_analysis_row(one_id, one.received) for one_id, one in to_analyse))
            self._final_report.run(cursor, (_final_report_row(one) for _, one in to_analyse))
        return ids

    def _secret(self, cursor: Any) -> bytes:
        if not self._key:
            [value] = cursor.execute("SELECT value FROM installation WHERE key = 'patient_key'").fetchone()
            self._key = bytes.fromhex(value)
        return self._key

    def _new_ids(self, cursor: Any, count: int) -> list[int]:
        if self._is_sqlite:  # the number that it would give itself; nobody else writes now
            [last] = cursor.execute("SELECT coalesce(max(id), 0) FROM instances").fetchone()
            return list(range(last + 1, last + 1 + count))
        cursor.execute("SELECT nextval(pg_get_serial_sequence('instances', 'id')) FROM generate_series(1, %s)", [count])
        return [one_id for (one_id,) in cursor.fetchall()]

    def _list(self, values: list[str]) -> str | list[str]:
        return json.dumps(values) if self._is_sqlite else values


def _could_be_common(received: Sequence[ReceivedInstance]) -> bool:
    """As far as can be told without asking: a note rejects others, and a UID that comes twice goes against itself."""
    if any(one.disposition is Disposition.REJECTION_NOTE for one in received):
        return False
    return len({one.sop_instance_uid for one in received}) == len(received)


def _study_rows(received: Sequence[ReceivedInstance]) -> Rows:
    """One row a study, in an order that all processes share, so that none waits for another in a circle."""
    by_study: dict[str, list[ReceivedInstance]] = {}
    for one in received:
        by_study.setdefault(one.study_instance_uid, []).append(one)
    return [_study_row(uid, by_study[uid]) for uid in sorted(by_study)]


def _study_row(study_uid: str, received: Sequence[ReceivedInstance]) -> dict[str, Any]:
    """What the instances of one study do to its row, one after the other (`ledger.intake`), in one go."""
    first = received[0].received_at.timestamp()
    news = [one.received_at.timestamp() for one in received if one.disposition is not Disposition.OWN_RESULT]
    opens = any(one.disposition is Disposition.ANALYSE for one in received)
    named = (one.patient_digest for one in received if one.disposition not in NOBODYS)
    return {
        "study_uid": study_uid,
        "is_prior": received[0].disposition is Disposition.PRIOR and not opens,
        "first_received_at": first,
        "last_received_at": max([first, *news]),
        "patient_digest": next(filter(None, named), ""),
        "newest": max(news, default=0.0),
        "opens": opens,
    }


def _study(is_sqlite: bool) -> ClauseElement:
    statement = (sqlite_insert if is_sqlite else postgresql_insert)(studies).values(
        study_uid=bindparam("study_uid"),
        is_prior=bindparam("is_prior"),
        first_received_at=bindparam("first_received_at"),
        last_received_at=bindparam("last_received_at"),
        patient_digest=bindparam("patient_digest"),
    )
    greatest = func.max if is_sqlite else func.greatest
    opens = bindparam("opens", type_=studies.c.is_prior.type)
    known = studies.c.patient_digest
    return statement.on_conflict_do_update(
        index_elements=[studies.c.study_uid],
        set_={
            "last_received_at": greatest(
                studies.c.last_received_at, bindparam("newest", type_=studies.c.last_received_at.type)
            ),
            "completed_at": case((opens, None), else_=studies.c.completed_at),
            "is_prior": studies.c.is_prior & ~opens,
            "patient_digest": case((known == "", statement.excluded.patient_digest), else_=known),
        },
    )


def _event_row(instance_id: int, received: ReceivedInstance) -> dict[str, Any]:
    return {
        "study_uid": received.study_instance_uid,
        "name": RECEIPT,
        "text": receipt(received),
        "instance_id": instance_id,
    }


def _analysis_row(instance_id: int, received: ReceivedInstance) -> dict[str, Any]:
    return {"for_study": received.study_instance_uid, "for_instance": instance_id, "at_rank": rank_of(received)}


def _final_report(is_sqlite: bool) -> ClauseElement:
    """Queue the study's final report, or postpone the one that waits."""
    statement = (sqlite_insert if is_sqlite else postgresql_insert)(jobs).values(
        stage=Stage.REPORT,
        report_kind=ReportKind.FINAL,
        rank=2,
        due_at=QUIET_UNTIL,
        due_because=bindparam("because"),
        study_uid=bindparam("for_study"),
        **FRESH,
    )
    quiet = statement.excluded
    limited = quiet.due_at >= LIMIT_AT
    return statement.on_conflict_do_update(
        index_elements=[jobs.c.study_uid],
        index_where=WAITING_FINAL,
        set_={
            "due_at": case((limited, LIMIT_AT), else_=quiet.due_at),
            "due_because": case((limited, bindparam("limit_because")), else_=quiet.due_because),
        },
    )


def _final_report_row(arrival: Arrival) -> dict[str, Any]:
    completion = arrival.completion
    return {"for_study": arrival.received.study_instance_uid, **quiet_period(completion), **last_resort(completion)}

"""Heartbeats: studies of our own that go the whole path, and are removed again with every row and every file.

A study is one because this node wrote down its Study Instance UID, and the one instance that it is to hold, before it
was sent: nothing that comes over the wire makes it one. Where anything else comes under that UID it is a study like any
other from then on, and nothing of it is removed. What stays of a heartbeat is one row: when it was where.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, delete, exists, func, or_, select, update

from ledger.clinical import clinical_job
from ledger.codec import load_result, moment, moment_or_none
from ledger.database import db_now, transaction
from ledger.records import ReceivedInstance, Stage
from ledger.standing import lock_study
from ledger.states import UNFINISHED, JobState
from ledger.store import Store
from ledger.tables import (
    commitment_objects,
    damaged_files,
    deliveries,
    events,
    heartbeats,
    instances,
    jobs,
    notifications,
    objects,
    opinions,
    rejections,
    report_models,
    report_sources,
    reports,
    results,
    stated_studies,
    studies,
)

KEPT_S: Final = 7 * 86400.0  # how long a heartbeat's own row stays
FOREIGN: Final = "Something else came under its Study Instance UID: it is a study like any other now."
_STAGES: Final = (
    ("received_at", "sent to our own receiver"),
    ("looked_at", "looked at"),
    ("reported_at", "reported"),
    ("delivered_at", "read back by the deliver role"),
)


@dataclass(frozen=True)
class Heartbeat:
    """One heartbeat: when it was where, and what kept it. behind: a patient's jobs that its next job waits behind."""

    study_instance_uid: str
    machine: str
    registered_at: datetime
    received_at: datetime | None
    looked_at: datetime | None
    reported_at: datetime | None
    delivered_at: datetime | None
    ended_at: datetime | None
    failure: str = ""
    behind: int = 0

    @property
    def arrived(self) -> bool:
        return self.delivered_at is not None and not self.failure

    @property
    def where(self) -> str:
        """How far it came, for a sentence."""
        missing = next((words for name, words in _STAGES if getattr(self, name) is None), "")
        if not missing:
            return "it went the whole path" + (f": {self.failure}" if self.failure else "")
        waits = f", behind {self.behind} jobs of patients" if self.behind else ""
        return f"it was not {missing}{waits}" + (f": {self.failure}" if self.failure else "")

    @property
    def seconds(self) -> dict[str, float]:
        """By stage that it passed: how long that took."""
        found, before = {}, self.registered_at
        for name, stage in zip(_STAGES, ("receive", "analyse", "report", "deliver"), strict=True):
            at = getattr(self, name[0])
            if at is None:
                break
            found[stage] = max(0.0, (at - before).total_seconds())
            before = at
        return found


@dataclass(frozen=True)
class Pulse:
    """One machine's heartbeats. age_s: since one arrived; where none has: since the first was sent."""

    machine: str
    age_s: float
    last: Heartbeat | None  # that arrived
    newest: Heartbeat


def register(connection: Connection, study_uid: str, sop_instance_uid: str, sha256: str, machine: str) -> None:
    """Before it is sent: this study, with this one instance, is a heartbeat."""
    now = connection.execute(select(db_now())).scalar_one()
    connection.execute(
        studies.insert().values(
            study_uid=study_uid, is_prior=False, first_received_at=now, last_received_at=now, is_heartbeat=True
        )
    )
    connection.execute(
        heartbeats.insert().values(
            study_uid=study_uid,
            machine=machine,
            sop_instance_uid=sop_instance_uid,
            sha256=sha256,
            registered_at=now,
        )
    )


def is_the_one(connection: Connection, received: ReceivedInstance) -> bool:
    """Whether this is what was registered. If not, its study is a study like any other from now on. Study locked."""
    known = connection.execute(select(heartbeats).where(heartbeats.c.study_uid == received.study_instance_uid)).first()
    if known and (known.sop_instance_uid, known.sha256) == (received.sop_instance_uid, received.sha256):
        return True
    _disown(connection, received.study_instance_uid)
    return False


def _disown(connection: Connection, study_uid: str) -> None:
    connection.execute(update(studies).where(studies.c.study_uid == study_uid).values(is_heartbeat=False))
    connection.execute(update(jobs).where(jobs.c.study_uid == study_uid, jobs.c.stage != Stage.DELIVER).values(rank=1))
    connection.execute(update(heartbeats).where(heartbeats.c.study_uid == study_uid).values(failure=FOREIGN))


def look(connection: Connection, study_uid: str) -> Heartbeat | None:
    """How far a heartbeat has come; None of a study that was never one, or long ago."""
    row = connection.execute(select(heartbeats).where(heartbeats.c.study_uid == study_uid)).first()
    return None if row is None else _heartbeat(connection, row)


def _heartbeat(connection: Connection, row: Row[Any]) -> Heartbeat:
    """Of one that is under way its jobs tell, of one that has ended its row."""
    said = dict(row._mapping)
    behind = 0
    if row.ended_at is None:
        theirs = connection.execute(select(jobs).where(jobs.c.study_uid == row.study_uid).order_by(jobs.c.id)).all()
        said |= _progress(connection, row.study_uid, theirs)
        behind = _behind(connection, theirs)
    times = {name: moment_or_none(said[name]) for name, _ in _STAGES}
    return Heartbeat(
        study_instance_uid=row.study_uid,
        machine=row.machine,
        registered_at=moment(row.registered_at),
        ended_at=moment_or_none(row.ended_at),
        failure=said["failure"],
        behind=behind,
        **times,
    )


def _progress(connection: Connection, study_uid: str, theirs: Sequence[Row[Any]]) -> dict[str, Any]:
    received = select(func.min(instances.c.received_at)).where(instances.c.study_uid == study_uid)
    done = {row.stage: row.finished_at for row in theirs if row.state == JobState.SUCCEEDED}
    parked = [row.reason for row in theirs if row.state == JobState.PARKED]
    return {
        "received_at": connection.execute(received).scalar(),
        "looked_at": done.get(Stage.ANALYSE),
        "reported_at": done.get(Stage.REPORT),
        "delivered_at": done.get(Stage.DELIVER),
        **({"failure": parked[0]} if parked else {}),
    }


def _behind(connection: Connection, theirs: Sequence[Row[Any]]) -> int:
    """A patient's jobs that are due in the stage that the heartbeat waits for."""
    waiting = [row.stage for row in theirs if row.state == JobState.QUEUED]
    if not waiting:
        return 0
    stage = Stage.ANALYSE if Stage.ANALYSE in waiting else waiting[0]
    due = select(func.count()).where(
        jobs.c.stage == stage, jobs.c.state.in_(UNFINISHED), jobs.c.due_at <= db_now(), clinical_job()
    )
    return int(connection.execute(due).scalar_one())


def pulses(connection: Connection) -> list[Pulse]:
    """One for each machine that sent a heartbeat in the last days, by name."""
    now = connection.execute(select(db_now())).scalar_one()
    found = []
    for machine in connection.execute(select(heartbeats.c.machine).distinct().order_by("machine")).scalars().all():
        of_it = select(heartbeats).where(heartbeats.c.machine == machine)
        arrived = of_it.where(heartbeats.c.delivered_at.is_not(None), heartbeats.c.failure == "")
        last = connection.execute(arrived.order_by(heartbeats.c.registered_at.desc()).limit(1)).first()
        newest = connection.execute(of_it.order_by(heartbeats.c.registered_at.desc()).limit(1)).one()
        first = select(func.min(heartbeats.c.registered_at)).where(heartbeats.c.machine == machine)
        since = last.delivered_at if last else connection.execute(first).scalar_one()
        beat = None if last is None else _heartbeat(connection, last)
        found.append(Pulse(machine, max(0.0, now - since), beat, _heartbeat(connection, newest)))
    return found


def close(connection: Connection, study_uid: str, failure: str) -> list[str] | None:
    """Keep what is known of it, and name its files, which may go now. None: it is no heartbeat, and must stay.

    failure: why it is given up; empty: what its jobs say. Study locked.
    """
    study = lock_study(connection, study_uid)
    row = connection.execute(select(heartbeats).where(heartbeats.c.study_uid == study_uid)).first()
    if study is not None and study.is_heartbeat and row is not None and _holds_others(connection, row):
        _disown(connection, study_uid)
        return None
    if study is None or not study.is_heartbeat:
        return None
    if row is not None and row.ended_at is None:
        beat = _heartbeat(connection, row)
        times = {name: at.timestamp() for name, _ in _STAGES if (at := getattr(beat, name)) is not None}
        said = {"ended_at": db_now(), "failure": beat.failure or failure, **times}
        connection.execute(update(heartbeats).where(heartbeats.c.study_uid == study_uid).values(**said))
    return _files(connection, study_uid)


def _holds_others(connection: Connection, row: Row[Any]) -> bool:
    other = or_(instances.c.sop_instance_uid != row.sop_instance_uid, instances.c.sha256 != row.sha256)
    found = select(instances.c.id).where(instances.c.study_uid == row.study_uid, other)
    return connection.execute(found.limit(1)).first() is not None


def _files(connection: Connection, study_uid: str) -> list[str]:
    made = select(objects.c.path).join(reports, reports.c.id == objects.c.report_id)
    paths = list(connection.execute(made.where(reports.c.study_uid == study_uid)).scalars())
    paths += connection.execute(select(instances.c.path).where(instances.c.study_uid == study_uid)).scalars()
    for body in connection.execute(select(results.c.body).where(results.c.study_uid == study_uid)).scalars():
        result = load_result(body)
        paths += [*(mask.path for mask in result.masks), result.display_path or ""]
    return [path for path in paths if path]


def remove(connection: Connection, study_uid: str) -> None:
    """Every row of a heartbeat's study. Study locked; nothing of a study that is none."""
    study = lock_study(connection, study_uid)
    if study is None or not study.is_heartbeat:
        return
    of_study = select(instances.c.id).where(instances.c.study_uid == study_uid)
    made = select(reports.c.id).where(reports.c.study_uid == study_uid)
    sent = select(objects.c.id).where(objects.c.report_id.in_(made))
    theirs = select(jobs.c.id).where(jobs.c.study_uid == study_uid)
    for table, which in (
        (commitment_objects, commitment_objects.c.job_id.in_(theirs)),
        (jobs, jobs.c.study_uid == study_uid),
        (deliveries, deliveries.c.object_id.in_(sent)),
        (notifications, notifications.c.report_id.in_(made)),
        (objects, objects.c.report_id.in_(made)),
        (report_models, report_models.c.report_id.in_(made)),
        (report_sources, report_sources.c.report_id.in_(made)),
        (reports, reports.c.study_uid == study_uid),
        (opinions, opinions.c.study_uid == study_uid),
        (results, results.c.study_uid == study_uid),
        (damaged_files, damaged_files.c.instance_id.in_(of_study)),
        (rejections, rejections.c.study_uid == study_uid),
        (stated_studies, stated_studies.c.study_uid == study_uid),
        (events, events.c.study_uid == study_uid),
        (instances, instances.c.study_uid == study_uid),
        (studies, studies.c.study_uid == study_uid),
    ):
        connection.execute(delete(table).where(which))


def left_over(connection: Connection, machine: str, older_than_s: float) -> list[str]:
    """Studies of heartbeats that nobody waits for: of this machine, or of one that would long have ended them."""
    old = heartbeats.c.registered_at < db_now() - older_than_s
    query = select(studies.c.study_uid).join(heartbeats, heartbeats.c.study_uid == studies.c.study_uid)
    return list(
        connection.execute(query.where(studies.c.is_heartbeat, or_(heartbeats.c.machine == machine, old))).scalars()
    )


def forget_old(connection: Connection) -> None:
    """Rows of heartbeats that ended long ago; where nothing of their study is left."""
    live = exists().where(studies.c.study_uid == heartbeats.c.study_uid, studies.c.is_heartbeat)
    connection.execute(delete(heartbeats).where(heartbeats.c.registered_at < db_now() - KEPT_S, ~live))


class Heartbeats:
    """Of `ledger.ledger.Ledger`; each method is one transaction where nothing else is said."""

    _engine: Engine
    store: Store

    def register_heartbeat(self, study_uid: str, sop_instance_uid: str, sha256: str, machine: str) -> None:
        """Before it is sent. sha256: of the data set as it will come."""
        with self._change() as connection:
            register(connection, study_uid, sop_instance_uid, sha256, machine)

    def heartbeat(self, study_uid: str) -> Heartbeat | None:
        """How far it has come."""
        with transaction(self._engine, write=False) as connection:
            return look(connection, study_uid)

    def pulses(self) -> list[Pulse]:
        """What health and metrics go by."""
        with transaction(self._engine, write=False) as connection:
            return pulses(connection)

    def end_heartbeat(self, study_uid: str, failure: str = "") -> None:
        """Keep how it went and remove all the rest: its files, then its rows, so that no file is left unknown."""
        with self._change() as connection:
            paths = close(connection, study_uid, failure)
            if paths is None:
                return
        for path in paths:
            self.store.path(path).unlink(missing_ok=True)
        with self._change() as connection:
            remove(connection, study_uid)

    def sweep_heartbeats(self, machine: str, older_than_s: float) -> int:
        """Remove what a process that died left of its heartbeats; how many."""
        with self._change() as connection:
            left = left_over(connection, machine, older_than_s)
            forget_old(connection)
        for study_uid in left:
            self.end_heartbeat(study_uid, "The process that sent it died.")
        return len(left)

    def _change(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=True)

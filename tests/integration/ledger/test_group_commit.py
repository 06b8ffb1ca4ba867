"""Admission in groups: what a ledger holds afterwards, and what had to be on disk before anybody was answered."""

import hashlib
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from ledger import assembly, intake
from ledger.bulk import Arrival, Bulk, Uncommon
from ledger.commitment_results import CommitmentRequest, Listed
from ledger.completion import Completion
from ledger.database import transaction
from ledger.errors import LedgerUnavailable
from ledger.intake import Admission, AdmissionOutcome
from ledger.ledger import Ledger
from ledger.peers import Observed
from ledger.records import Disposition, ReceivedInstance
from ledger.standing import UNKNOWN_HALF
from ledger.store import Store, VolumeFailed
from tests.support.records import received
from tests.support.waiting import wait_until

ANNA, BEN = "a" * 64, "b" * 64
NOW = datetime(2026, 11, 1, tzinfo=UTC)
UNIT_S = 100_000.0  # of every wait, so that moments can be compared although time passes

# --- in groups or one by one: the same ledger ---


@dataclass(frozen=True)
class Came:
    """One instance, by small numbers that only mean something within a test."""

    study: int
    uid: int
    content: int
    disposition: Disposition
    patient: str
    urgent: bool
    at_s: int
    wait: int
    limit: int
    code: str
    rejects: tuple[int, ...]

    def arrival(self, world: str) -> Arrival:
        digest = hashlib.sha256(f"{world} {self.study} {self.uid} {self.content}".encode()).hexdigest()
        note = self.disposition is Disposition.REJECTION_NOTE
        instance = received(
            f"{world}.{self.study}",
            sop_instance_uid=f"{world}.9.{self.uid}",
            sha256=digest,
            path=f"instances/{os.urandom(8).hex()}",
            disposition=self.disposition,
            patient_digest=self.patient,
            message_priority=int(self.urgent),
            received_at=NOW + timedelta(seconds=self.at_s),
            rejection=self.code if note else "",
            rejects=tuple(f"{world}.9.{uid}" for uid in self.rejects) if note else (),
        )
        return Arrival(instance, Completion(self.wait * UNIT_S, self.limit * UNIT_S, f"waits {self.wait}"))


COMMON = (Disposition.ANALYSE, Disposition.ANALYSE, Disposition.PRIOR, Disposition.OWN_RESULT)
ARRIVALS = st.builds(
    Came,
    study=st.sampled_from([1, 1, 2, 3]),
    uid=st.integers(0, 60),
    content=st.sampled_from([0, 0, 0, 1]),
    disposition=st.sampled_from([*COMMON, *COMMON, *Disposition]),
    patient=st.sampled_from([*[ANNA] * 12, "", BEN, UNKNOWN_HALF + ANNA[32:]]),
    urgent=st.booleans(),
    at_s=st.integers(0, 100),
    wait=st.integers(1, 4),
    limit=st.integers(3, 6),
    code=st.sampled_from(["113001", "113039"]),
    rejects=st.lists(st.integers(0, 60), max_size=3).map(tuple),
)
ONE = Came(1, 1, 0, Disposition.ANALYSE, ANNA, False, 5, 4, 5, "113001", ())
OLD = replace(ONE, uid=2, disposition=Disposition.PRIOR)
NOTE = replace(ONE, uid=3, disposition=Disposition.REJECTION_NOTE, rejects=(4,))
OWN = replace(ONE, uid=5, disposition=Disposition.OWN_RESULT, at_s=90)
GROUPS = st.lists(st.lists(ARRIVALS, min_size=1, max_size=6), min_size=1, max_size=4)


def contents(connection: Connection, world: str, since: float) -> dict[str, list[tuple[Any, ...]]]:
    """All that was written of the studies of a world, without what its name and the clock put into it."""

    def rows(query: str) -> list[tuple[Any, ...]]:
        found = connection.execute(text(query), {"world": f"{world}.%", "since": since, "unit": UNIT_S})
        return [tuple(v.replace(world, "W") if isinstance(v, str) else v for v in row) for row in found]

    place = "SELECT count(*) FROM instances x WHERE x.study_uid LIKE :world AND x.id <= "
    return {
        "studies": rows(
            "SELECT study_uid, is_prior, first_received_at, last_received_at, completed_at, priority, hold,"
            " patient_digest FROM studies WHERE study_uid LIKE :world ORDER BY study_uid"
        ),
        "instances": rows(
            f"SELECT ({place} i.id), study_uid, series_uid, sop_class_uid, sop_instance_uid, transfer_syntax_uid,"
            " modality, size_bytes, disposition, version, calling_ae_title, peer_address, association_id,"
            " message_priority, received_at, patient_digest"
            " FROM instances i WHERE study_uid LIKE :world ORDER BY id"
        ),
        "jobs": rows(
            f"SELECT stage, state, study_uid, ({place} j.instance_id), report_kind, report_id, destination, rank,"
            " ROUND((queued_at - :since) / :unit), ROUND((due_at - :since) / :unit),"
            " attempts, generation, lease_owner, lease_expires_at, reason, finished_at IS NULL, cause, due_because"
            " FROM jobs j WHERE study_uid LIKE :world ORDER BY stage, id"
        ),
        "rejections": rows("SELECT study_uid, sop_instance_uid, code FROM rejections WHERE study_uid LIKE :world"
                           " ORDER BY study_uid, sop_instance_uid"),
        "events": rows(
            f"SELECT study_uid, ({place} e.instance_id), job_id IS NULL, name, text"
            " FROM events e WHERE study_uid LIKE :world ORDER BY id"
        ),
    }  # fmt: skip


def told(outcomes: Sequence[Admission | Exception], arrivals: Sequence[Arrival]) -> list[Any]:
    """What each was told, and whether its own file is the one that is kept."""
    assert all(isinstance(outcome, Admission) for outcome in outcomes), outcomes
    admitted = [outcome for outcome in outcomes if isinstance(outcome, Admission)]
    return [(one.outcome, one.path == arrival.received.path) for one, arrival in zip(admitted, arrivals, strict=True)]


def alone(connection: Connection, arrival: Arrival) -> Admission:
    return intake.admit(connection, arrival.received, arrival.completion)


_worlds = iter(range(1, 1_000_000))


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=GROUPS)
@example([[OLD, ONE]])
@example([[OLD], [ONE]])
@example([[NOTE], [replace(ONE, uid=4)]])
@example([[ONE], [OWN], [OLD, OWN]])
@example([[ONE], [replace(ONE, uid=6)], [replace(ONE, uid=7)]])  # up to the last resort
def test_a_ledger_filled_in_groups_is_one_filled_one_by_one(ledger: Ledger, groups: list[list[Came]]) -> None:
    number = next(_worlds)
    grouped, single = f"2.25.777.{number}", f"2.25.888.{number}"
    with transaction(ledger._engine, write=False) as connection:
        since = float(connection.execute(text(_NOW[ledger._engine.dialect.name])).scalar_one())
    outcomes: dict[str, list[Any]] = {grouped: [], single: []}
    for group in groups:
        arrivals = [came.arrival(grouped) for came in group]
        outcomes[grouped] += told(ledger._admissions._admit(arrivals), arrivals)
        for arrival in (came.arrival(single) for came in group):
            with transaction(ledger._engine, write=True) as connection:
                outcomes[single] += told([alone(connection, arrival)], [arrival])
        with transaction(ledger._engine, write=True) as connection:  # time passes
            connection.execute(text("UPDATE jobs SET queued_at = queued_at - :s, due_at = due_at - :s"), {"s": UNIT_S})
    assert outcomes[grouped] == outcomes[single]
    with transaction(ledger._engine, write=False) as connection:
        assert contents(connection, grouped, since) == contents(connection, single, since)


_NOW = {
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "SELECT extract(epoch from clock_timestamp())::double precision",
}


def arrivals(count: int, **changes: object) -> list[Arrival]:
    return [Arrival(received(f"1.2.3.{n % 3}", patient_digest=ANNA, **changes), Completion(60)) for n in range(count)]


def test_what_is_common_is_written_in_one_go(ledger: Ledger) -> None:
    """Else the test above would hold the slow way against itself."""
    bulk = Bulk(ledger._engine)
    assert [one.outcome for one in bulk.admit(arrivals(9))] == [AdmissionOutcome.NEW] * 9
    assert len(bulk.admit(arrivals(9, disposition=Disposition.NOT_AN_IMAGE))) == 9
    bulk.close()


def test_what_goes_against_something_known_is_not(ledger: Ledger) -> None:
    bulk = Bulk(ledger._engine)
    known, awaited, listed = arrivals(1), arrivals(1), arrivals(1)
    bulk.admit([*known, Arrival(replace(listed[0].received, study_instance_uid="1.2.4"), Completion(60))])
    with transaction(ledger._engine, write=True) as connection:  # a sender says what it sent
        uids = [awaited[0].received.sop_instance_uid, listed[0].received.sop_instance_uid]
        assembly.stated(connection, "MODALITY", uids)
    before = ledger.counts()
    for uncommon in (
        known,
        [Arrival(replace(known[0].received, sha256="f" * 64, path="instances/f"), Completion(60))],
        [*arrivals(1), Arrival(received("1.2.3.0", patient_digest=BEN), Completion(60))],
        arrivals(2, sop_instance_uid="1.2.3.4"),
        arrivals(1, disposition=Disposition.REJECTION_NOTE, rejection="113001"),
        awaited,
        [Arrival(received("1.2.4", patient_digest=ANNA), Completion(60))],
    ):
        with pytest.raises(Uncommon):
            bulk.admit(uncommon)
    bulk.close()
    assert ledger.counts() == before


@pytest.mark.parametrize("is_common", [True, False])
def test_one_that_cannot_be_written_fails_alone(ledger: Ledger, is_common: bool) -> None:
    group = arrivals(5)
    if not is_common:
        ledger.admit(replace(group[0].received, path="instances/before"), Completion(60))
    group[2] = replace(group[2], received=replace(group[2].received, path=group[1].received.path))  # must be unique
    outcomes = ledger._admissions._admit(group)
    assert [isinstance(outcome, Admission) for outcome in outcomes] == [True, True, False, True, True]
    assert isinstance(outcomes[2], LedgerUnavailable)
    assert ledger.counts()["instances"] == {"analyse": 4}


def test_a_database_that_is_away_is_asked_once_for_a_whole_group(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def away(*_: object, **__: object) -> None:
        asked.append(1)
        raise LedgerUnavailable("away") from OperationalError("", {}, Exception())

    def locked(*_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(ledger._admissions._bulk, "admit", locked)
    with pytest.raises(LedgerUnavailable):
        ledger._admissions._admit(arrivals(5))
    monkeypatch.setattr(ledger._admissions._bulk, "admit", lambda _: (_ for _ in ()).throw(RuntimeError))
    monkeypatch.setattr("ledger.admissions.transaction", away)
    outcomes = ledger._admissions._admit(arrivals(5))
    assert asked == [1]
    assert all(isinstance(outcome, LedgerUnavailable) for outcome in outcomes)
    assert len({id(outcome) for outcome in outcomes}) == 5


def test_a_commit_whose_answer_was_lost_is_found_to_have_been_done(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, bulk = arrivals(4), ledger._admissions._bulk
    real = bulk.admit

    def lost(arrivals: Sequence[Arrival]) -> list[Admission]:
        real(arrivals)
        raise RuntimeError("server closed the connection unexpectedly")

    monkeypatch.setattr(bulk, "admit", lost)
    outcomes = ledger._admissions._admit(group)
    assert told(outcomes, group) == [(AdmissionOutcome.NEW, True)] * 4  # nobody takes its own file for another's
    assert ledger.counts()["instances"] == {"analyse": 4}


def test_sixteen_threads_with_fifty_each_are_all_admitted(ledger: Ledger) -> None:
    failed: list[Exception] = []

    def associate(study: int) -> None:
        try:
            for _ in range(50):
                ledger.admit(received(f"1.2.{study}", patient_digest=ANNA), Completion(60))
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=associate, args=(study % 8,)) for study in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(150)
    assert failed == []
    assert ledger.counts()["instances"] == {"analyse": 800}
    assert ledger.counts()["jobs"] == {"analyse:queued": 800, "report:queued": 8}


# --- before anybody is answered ---


class WatchedStore(Store):
    """Calls `on_folder` at each sync of a shard, before it is done."""

    def __init__(self, root: Path) -> None:
        self.synced: list[str] = []
        self.on_folder: Any = lambda: None
        super().__init__(root, self._watch)

    def _watch(self, fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            folder = Path(f"/proc/self/fd/{fd}").readlink()
            if folder.parent.name == "instances":
                self.on_folder()
                self.synced.append(folder.name)
        os.fsync(fd)


@pytest.fixture
def watched(url: str, tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(url, WatchedStore(tmp_path / "store"))
    yield ledger
    ledger.close()


def sealed(ledger: Ledger, shard: str = "ab") -> tuple[ReceivedInstance, Path]:
    part = ledger.store.begin()
    part.write(os.urandom(32))
    path = f"instances/{shard}/{os.urandom(8).hex()}"
    return received(path=path, patient_digest=ANNA), part.seal(path)


def is_known(ledger: Ledger, instance: ReceivedInstance) -> bool:
    return ledger.find_instance(instance.sop_instance_uid, instance.sha256) is not None


def test_the_folder_is_synced_before_the_ledger_knows_of_the_file(watched: Ledger) -> None:
    store = watched.store
    assert isinstance(store, WatchedStore)
    instance, folder = sealed(watched)
    known_then: list[bool] = []
    store.on_folder = lambda: known_then.append(is_known(watched, instance))
    watched.admit(instance, Completion(60), folder)
    assert known_then == [False]
    assert is_known(watched, instance)


def test_a_group_syncs_each_of_its_folders_once(watched: Ledger) -> None:
    store = watched.store
    assert isinstance(store, WatchedStore)
    made = [sealed(watched, shard) for shard in ("ab", "ab", "cd", "ab", "cd")]
    store.synced.clear()
    outcomes = watched._admissions._admit([Arrival(one, Completion(60), folder) for one, folder in made])
    assert [isinstance(outcome, Admission) for outcome in outcomes] == [True] * 5
    assert sorted(store.synced) == ["ab", "cd"]


def test_nobody_of_a_group_whose_folder_failed_is_admitted_and_nobody_after(watched: Ledger) -> None:
    store = watched.store
    assert isinstance(store, WatchedStore)
    made = [sealed(watched, shard) for shard in ("ab", "cd", "ab")]

    def broken() -> None:
        raise OSError(5, "Input/output error")

    store.on_folder = broken
    with pytest.raises(VolumeFailed):
        watched._admissions._admit([Arrival(one, Completion(60), folder) for one, folder in made])
    assert store.failed
    store.on_folder = lambda: None  # the kernel may say yes now
    with pytest.raises(VolumeFailed):
        watched.admit(made[0][0], Completion(60), made[0][1])
    assert watched.counts()["instances"] == {}


def test_nobody_is_answered_before_the_commit(watched: Ledger) -> None:
    store, answered = watched.store, threading.Event()
    assert isinstance(store, WatchedStore)
    instance, folder = sealed(watched)
    store.synced.clear()

    def associate() -> None:
        watched.admit(instance, Completion(60), folder)
        answered.set()

    thread = threading.Thread(target=associate)
    with transaction(watched._engine, write=True) as connection:  # SQLite: nobody else can write
        if watched._engine.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE instances IN EXCLUSIVE MODE"))
        thread.start()
        wait_until(lambda: store.synced == ["ab"], 20)
        assert not answered.wait(0.4)
        assert store.synced == ["ab"]
    assert answered.wait(20)
    thread.join(20)
    assert is_known(watched, instance)


def test_a_ledger_that_cannot_sync_ends_the_right_to_acknowledge(tmp_path: Path) -> None:
    """As a sync of the store that failed does; any other trouble of the database passes."""
    store = Store(tmp_path / "store")
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}", store)
    for name, ends in (("SQLITE_BUSY", False), ("SQLITE_FULL", False), ("SQLITE_IOERR_FSYNC", True)):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = name

        def fail(arrivals: Sequence[Arrival], error: Exception = error) -> list[Admission]:
            raise error

        ledger._admissions._bulk.admit = fail  # type: ignore[method-assign]
        with pytest.raises(LedgerUnavailable):
            ledger.admit(replace(received("2.25.1"), sop_instance_uid="2.25.2"), Completion(1.0))
        assert store.failed is ends
    ledger.close()


@pytest.mark.parametrize(
    "write",
    [
        lambda ledger: ledger.commitment_requested(CommitmentRequest("CT1", "2.25.1", (Listed("1.2", "1.3"),)), 0.0),
        lambda ledger: ledger.observe({"CT1": Observed(1, 1)}),
        lambda ledger: ledger.expire_leases(),
    ],
    ids=["commitment", "habits", "any other"],
)
def test_so_does_a_sync_that_failed_in_whatever_else_the_ledger_writes(
    tmp_path: Path, write: Callable[[Ledger], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}", store)
    for name, ends in (("SQLITE_FULL", False), ("SQLITE_IOERR_FSYNC", True)):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = name

        def fail(connection: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(ledger._engine.dialect, "do_commit", fail)
        with pytest.raises(LedgerUnavailable):
            write(ledger)
        assert store.failed is ends
    ledger.close()

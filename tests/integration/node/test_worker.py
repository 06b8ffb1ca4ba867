"""A worker's loop on a real ledger: poison is isolated, leases are kept, a lost lease publishes nothing."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select

from ledger.errors import LeaseLost, PermanentError
from ledger.records import Job, ResultStatus, Stage
from ledger.tables import jobs
from node.running.lease import LeaseKeeper
from node.running.worker import Worker
from node.wiring import owner_prefix
from tests.support import ledgers
from tests.support.realdata import ROOT
from tests.support.waiting import wait_until


def run_poisoned(folder: Path, poison: str, how: str) -> int:
    command = [sys.executable, "-m", "tests.support.poisoned_worker", str(folder), poison, how]
    return subprocess.run(command, cwd=ROOT, timeout=120, check=False, capture_output=True).returncode


def test_an_instance_that_kills_its_worker_is_parked_and_the_others_go_on(tmp_path: Path) -> None:
    ledger = ledgers.open_fresh(tmp_path)
    received = [ledgers.admit(ledger, number) for number in range(6)]
    poison = received[2].sop_instance_uid
    deaths = 0
    while run_poisoned(tmp_path, poison, "die") == 9:
        deaths += 1
        ledger.abandon(owner_prefix("analyse"), 3)  # as the supervisor does for a dead child
        assert deaths <= 3
    assert deaths == 3
    (parked,) = ledger.parked()
    assert parked.study_instance_uid == received[2].study_instance_uid
    for one in received:
        (item,) = ledger.study_instances(one.study_instance_uid)
        wanted = ResultStatus.FAILED if one.sop_instance_uid == poison else ResultStatus.ANALYSED
        assert [result.status for result in item.results] == [wanted]


def test_an_instance_that_raises_is_parked_and_costs_its_batch_nothing(tmp_path: Path) -> None:
    ledger = ledgers.open_fresh(tmp_path)
    received = [ledgers.admit(ledger, number) for number in range(4)]
    assert run_poisoned(tmp_path, received[0].sop_instance_uid, "raise") == 0
    (parked,) = ledger.parked()
    assert parked.reason == "unexpected error: RuntimeError"  # not its text, which could quote a value
    assert ledger.counts()["jobs"]["analyse:succeeded"] == 3


class OneRound:
    """A worker whose work is given, stopped after its first job."""

    def __init__(self, folder: Path, lease_s: float = 30.0, max_attempts: int = 3) -> None:
        self.ledger = ledgers.open_fresh(folder)
        self.stop = threading.Event()
        self.worker = Worker(self.ledger, Stage.ANALYSE, "here:", lease_s, max_attempts, 8, self.work, self.stop)
        self.errors: list[Exception] = []

    def work(self, jobs: Sequence[Job], keeper: LeaseKeeper) -> None:
        self.stop.set()
        raise self.errors.pop()


def test_a_permanent_error_is_parked_at_once_with_its_sentence(tmp_path: Path) -> None:
    one = OneRound(tmp_path)
    ledgers.admit(one.ledger)
    one.errors = [PermanentError("The header cannot be read.")]
    one.worker.run()
    assert [job.reason for job in one.ledger.parked()] == ["The header cannot be read."]


def test_a_full_disk_never_parks_a_job(tmp_path: Path) -> None:
    one = OneRound(tmp_path, max_attempts=1)
    ledgers.admit(one.ledger)
    one.errors = [OSError(28, "No space left on device")]
    one.worker.run()
    assert one.ledger.parked() == []
    assert one.ledger.counts()["jobs"]["analyse:queued"] == 1


def test_the_lease_of_long_work_is_kept(tmp_path: Path) -> None:
    ledger = ledgers.open_fresh(tmp_path)
    ledgers.admit(ledger)
    (job,) = ledger.claim(Stage.ANALYSE, "here:", 1, 3.0)

    of_it = select(jobs.c.lease_expires_at).where(jobs.c.id == job.job_id)

    def lease_ends() -> float:
        with ledger._engine.connect() as connection:
            return float(connection.execute(of_it).scalar_one())

    first = lease_ends()
    with LeaseKeeper(ledger, [job], 3.0):
        wait_until(lambda: lease_ends() > first + 3.0, 60)  # longer than the lease: the passing of time is the test
    wait_until(lambda: ledger.expire_leases(3) == 1, 30)


def test_a_worker_that_lost_its_lease_publishes_nothing(tmp_path: Path) -> None:
    ledger = ledgers.open_fresh(tmp_path)
    received = ledgers.admit(ledger)
    stop = threading.Event()

    def slow(jobs: Sequence[Job], keeper: LeaseKeeper) -> None:
        stop.set()
        ledger.abandon("here:", 3)
        ledger.finish_analysis(jobs[0], [ledgers.analysed()])

    Worker(ledger, Stage.ANALYSE, "here:", 30.0, 3, 1, slow, stop).run()
    (item,) = ledger.study_instances(received.study_instance_uid)
    assert item.results == ()
    (job,) = ledger.claim(Stage.ANALYSE, "there:", 1, 30.0)
    assert job.attempt == 2
    ledger.finish_analysis(job, [ledgers.analysed()])
    try:
        ledger.renew(job, 1.0)
    except LeaseLost:
        return
    raise AssertionError("a finished job was renewed")

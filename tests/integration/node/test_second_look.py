"""A study that kills the process that runs the models: it alone is blamed, it alone waits, and it is put aside."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference.analyser import Analyser
from inference.aside import Apart
from inference.errors import ModelsGone
from inference.model_host import ModelHost
from ledger.records import ResultStatus, Stage, TriagePriority
from node.looking.second import Lost, SecondLook, SecondWorker, second_work
from tests.support import ledgers
from tests.support.analysing import Role, receive
from tests.support.chests import bright
from tests.support.deadly_models import HANGS
from tests.support.hosting import deadly, deadly_pictures, packages, settings_in
from tests.support.waiting import wait_until

ATTEMPTS = 3


@pytest.fixture
def role(tmp_path: Path) -> Iterator[Role]:
    with deadly_pictures():
        made = Role(settings_in(tmp_path), ledgers.open_fresh(tmp_path))
        yield made
        made.close()


def test_the_killer_alone_is_put_aside_and_its_company_is_looked_at_once(role: Role) -> None:
    studies = [receive(role.ledger, bright()) for _ in range(3)]
    bad = receive(role.ledger, deadly())
    studies += [receive(role.ledger, bright()) for _ in range(3)]  # one batch, the killer in its midst
    role.start()
    wait_until(lambda: bool(role.ledger.parked()), 90)
    (parked,) = role.ledger.parked()
    assert parked.study_instance_uid == bad
    assert parked.reason.startswith(f"Stopped after {ATTEMPTS} attempts: the process that runs the models died")
    for study in studies:
        wait_until(lambda study=study: role.ledger.study_instances(study)[0].results, 60)  # the last of its company
        (item,) = role.ledger.study_instances(study)
        assert [result.status for result in item.results] == [ResultStatus.ANALYSED]
        assert not [event for event in role.ledger.events(study) if event.name == "analyse_retry"]
    (item,) = role.ledger.study_instances(bad)
    (said,) = item.results
    assert (said.status, said.priority) == (ResultStatus.FAILED, TriagePriority.NOT_ASSESSED)
    assert len([event for event in role.ledger.events(bad) if event.name == "analyse_retry"]) == ATTEMPTS - 1


def test_what_was_innocent_is_looked_at_the_second_time(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    """By models of another process, which ends when nothing is left to look at."""
    study = receive(role.ledger, bright())
    role.ledger.claim(Stage.ANALYSE, "dead:", 8, 60.0)
    role.ledger.abandon("dead:", ATTEMPTS)  # it was in the company of something that killed a whole role
    role.start()
    wait_until(lambda: bool(role.ledger.study_instances(study)[0].results), 60)
    (said,) = role.ledger.study_instances(study)[0].results
    assert said.status is ResultStatus.ANALYSED
    assert said.computed_by == "cpu float32"
    process = role.second._host._process
    assert process is not None
    assert process is not role.host._process
    monkeypatch.setattr("node.looking.second.IDLE_S", 0.0)
    wait_until(lambda: role.second._host._process is None and not process.alive, 30)


class Jobs:
    """A second look without models: `work` is given, and that of the role's own models."""

    def __init__(self, folder: Path, work: Any, by_the_others: Any = None) -> None:
        self.ledger, self.stop = ledgers.open_fresh(folder), threading.Event()
        self.lost = Lost(self.ledger, ATTEMPTS, self.stop)
        careful = second_work(work, by_the_others, self.lost)
        self.worker = SecondWorker(self.ledger, Stage.ANALYSE, "here:", 30.0, ATTEMPTS, 1, careful, self.stop)

    def tried(self, number: int) -> None:
        """A job that was claimed so often before."""
        ledgers.admit(self.ledger, number)
        for _ in range(number):
            (job,) = self.ledger.claim(Stage.ANALYSE, "dead:", 1, 60.0)
            self.ledger.retry(job, "", 0.0)


def test_without_memory_for_other_models_it_waits_and_the_roles_own_have_the_last_try(tmp_path: Path) -> None:
    """Nothing is put aside that no model ever saw by itself."""
    asked: list[int] = []
    seen: list[int] = []

    def work(jobs: Any, keeper: Any) -> None:
        asked.append(jobs[0].attempt)
        raise ModelsGone("The models could not be loaded again")

    def by_the_others(jobs: Any, keeper: Any) -> None:
        seen.append(jobs[0].attempt)
        jobs_of.lost.give_back(jobs[0], "It died of it.")
        jobs_of.stop.set()

    jobs_of = Jobs(tmp_path, work, by_the_others)
    jobs_of.tried(1)
    jobs_of.worker._once()
    assert (asked, seen) == ([2], [])
    assert jobs_of.ledger.counts()["jobs"]["analyse:queued"] == 1
    jobs_of.tried(2)
    jobs_of.worker.run()
    assert (asked, seen) == ([2, 3], [3])
    (parked,) = jobs_of.ledger.parked()
    assert parked.reason == "Stopped after 3 attempts: it died of it."
    assert jobs_of.ledger.counts()["jobs"]["analyse:queued"] == 1


def test_a_package_that_is_replaced_on_disk_costs_no_image_its_second_look(
    role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models to be used after the next restart: whoever was in a killer's company is looked at by those that serve."""
    monkeypatch.setattr("node.looking.second.NO_MODELS_S", 0.1)
    study = receive(role.ledger, bright())
    role.ledger.claim(Stage.ANALYSE, "dead:", 8, 60.0)
    role.ledger.abandon("dead:", ATTEMPTS)
    manifest = role.analyser._packages[0].folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    role.start()
    wait_until(lambda: bool(role.ledger.study_instances(study)[0].results), 60)
    (said,) = role.ledger.study_instances(study)[0].results
    assert said.status is ResultStatus.ANALYSED
    assert not role.stop.is_set()


def test_a_stop_blames_no_image_that_is_still_being_looked_at(role: Role) -> None:
    """On a busy machine it may take longer than the role may: the next start looks at it, be it for a fourth time."""
    receive(role.ledger, deadly(HANGS))
    for _ in range(ATTEMPTS - 1):
        role.ledger.claim(Stage.ANALYSE, "dead:", 8, 60.0)
        role.ledger.abandon("dead:", ATTEMPTS)
    role.start()
    host = role.second._host
    wait_until(lambda: host._process is not None and host._process.runs > 0, 60)
    role.stop.set()
    role.second.close(0.1)
    assert not role.ledger.parked()
    assert role.ledger.counts()["jobs"]["analyse:queued"] == 1


def test_an_error_that_ends_it_ends_the_role(tmp_path: Path) -> None:
    class Broken(SecondWorker):
        def _once(self) -> None:
            raise ModelsGone("for good")

    ledger, stop = ledgers.open_fresh(tmp_path), threading.Event()
    worker = Broken(ledger, Stage.ANALYSE, "here:", 30.0, ATTEMPTS, 1, lambda jobs, keeper: None, stop)
    host = ModelHost()
    settings = settings_in(tmp_path)
    analyser = Analyser(settings, packages(settings), children=1)
    second = SecondLook(worker, Apart(analyser, settings, {}), host)
    second.start()
    assert stop.wait(30)
    second.close(30)
    analyser.close()
    assert isinstance(second.error, ModelsGone)

"""What is cut short, or fails in a process that may be sick, is tried by itself before anything is said of it."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from inference import patience
from inference.analyser import Source
from ledger.records import ImageResult, ResultStatus
from node.looking.server import Desk
from tests.support import ledgers
from tests.support.analysing import Role, receive
from tests.support.chests import bright, save
from tests.support.deadly_models import HANGS, INFECTS, RAISES, picture
from tests.support.hosting import deadly, deadly_pictures, settings_in
from tests.support.waiting import wait_until

LONG_S = 60.0
Made = Callable[..., Role]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """A role whose models have answered before, so that what it knows of them cuts short."""
    roles: list[Role] = []

    def make(max_attempts: int, least_s: float) -> Role:
        role = Role(settings_in(tmp_path, max_attempts=max_attempts), ledgers.open_fresh(tmp_path))
        roles.append(role)
        (session,) = role.host.sessions().values()
        session.run(picture(0.0)[None])
        for name, value in (("ENOUGH", 1), ("TIMES", 0.0), ("LEAST_S", least_s)):
            monkeypatch.setattr(patience, name, value)
        return role

    with deadly_pictures():
        yield make
        for role in roles:
            role.close()


def said_of(role: Role, study: str) -> ImageResult:
    """Once anything is."""
    wait_until(lambda: bool(role.ledger.study_instances(study)[0].results), 90)
    (said,) = role.ledger.study_instances(study)[0].results
    return said


def tried_again(role: Role, study: str) -> list[str]:
    return [event.text for event in role.ledger.events(study) if event.name == "analyse_retry"]


def stopped(role: Role) -> int:
    assert role.host._process is not None
    os.kill(role.host._process.pid, signal.SIGSTOP)
    return role.host._process.pid


def test_a_process_that_was_stopped_costs_no_study_its_result_and_no_attempt_counts_against_it(made: Made) -> None:
    """Even where one attempt is all there is: the machine was suspended, or fetched its memory from the disk."""
    role = made(max_attempts=1, least_s=0.5)
    stopped(role)
    study = receive(role.ledger, bright())
    role.start()
    assert said_of(role, study).status is ResultStatus.ANALYSED
    assert not role.ledger.parked()
    (why,) = tried_again(role, study)
    assert "The model gave no answer in 0.5 s, and its last answers took" in why
    assert "It is looked at by itself, in another process, which may take its time." in why


def test_an_image_that_hangs_wherever_it_is_looked_at_is_put_aside_and_keeps_nobody_waiting(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = made(max_attempts=2, least_s=3.0)  # a busy machine may take one for the other image
    bad = receive(role.ledger, deadly(HANGS))
    other = receive(role.ledger, bright())
    role.start()
    assert said_of(role, other).status is ResultStatus.ANALYSED
    assert not tried_again(role, other)
    monkeypatch.setattr(patience, "RUN_S", 1.0)
    apart = role.apart._process
    if apart is not None:
        apart.kill()  # of what began before, two minutes would be waited for
    wait_until(lambda: bool(role.ledger.parked()), 90)
    (parked,) = role.ledger.parked()
    assert parked.study_instance_uid == bad
    assert parked.reason.startswith("Stopped after 2 attempts: ")
    assert said_of(role, bad).status is ResultStatus.FAILED


def test_whoever_was_given_to_a_sick_process_is_looked_at_by_another_and_has_failed_only_there(made: Made) -> None:
    role = made(max_attempts=3, least_s=LONG_S)
    (session,) = role.host.sessions().values()
    session.run(picture(INFECTS)[None])
    studies = [receive(role.ledger, bright()) for _ in range(3)]
    role.start()
    for study in studies:
        assert said_of(role, study).status is ResultStatus.ANALYSED
    assert [len(tried_again(role, study)) for study in studies] == [1, 1, 0]
    bad = receive(role.ledger, deadly(RAISES))
    said = said_of(role, bad)
    assert (said.status, said.reason_code) == (ResultStatus.FAILED, "internal_error")
    assert len(tried_again(role, bad)) == 1
    assert not role.ledger.parked()


def test_an_upload_that_is_cut_short_is_judged_by_another_process(made: Made, tmp_path: Path) -> None:
    role = made(max_attempts=3, least_s=0.5)
    role.start()
    stopped(role)
    desk = Desk(role.analyser._settings, role.analyser, role.turns, role.apart.sessions())
    desk.until = monotonic() + 60
    try:
        looked = desk.analyse(Source(save(bright(), tmp_path / "in")))
    finally:
        desk.close()
    assert [result.status for result in looked.results] == [ResultStatus.ANALYSED]
    assert looked.loss is None

"""A model that gives no answer is waited for as long as its answers take, many times over, and not for two minutes."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog

from inference import patience
from inference.errors import LostInModel, Undecided
from inference.metrics import MODEL_PROCESSES_LOST
from inference.model_host import HostedSession, ModelHost
from tests.support.deadly_models import HANGS, INFECTS, RAISES, picture
from tests.support.hosting import deadly_pictures, packages, settings_in

HARMLESS = 0.3
KNOWN = 3
LEAST_S = 0.5


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostedSession]:
    """Of the only package, whose answers are known."""
    monkeypatch.setattr(patience, "ENOUGH", KNOWN)
    settings = settings_in(tmp_path)
    host = ModelHost()
    with deadly_pictures():
        try:
            host.open(packages(settings), settings)
            (made,) = host.sessions().values()
            for _ in range(KNOWN):
                assert answers(made)
            monkeypatch.setattr(patience, "LEAST_S", LEAST_S)
            monkeypatch.setattr(patience, "TIMES", 0.0)  # this machine may be as busy as it likes
            yield made
        finally:
            host.close()


def answers(session: HostedSession, kind: float = HARMLESS) -> bool:
    return len(session.run(picture(kind)[None])) == 1


def pid_of(session: HostedSession) -> int:
    assert session.host._process is not None
    return session.host._process.pid


def lost(how: str) -> float:
    return float(MODEL_PROCESSES_LOST.labels(how)._value.get())


def test_a_run_that_hangs_is_cut_short_and_nothing_is_said_of_its_images(session: HostedSession) -> None:
    hanging, cut = pid_of(session), lost("cut")
    began = time.monotonic()
    with (
        structlog.testing.capture_logs() as told,
        pytest.raises(Undecided, match=r"no answer in 0\.5 s, and its last answers took"),
    ):
        answers(session, HANGS)
    assert time.monotonic() - began < patience.RUN_S / 4
    assert lost("cut") == cut + 1
    (event,) = [one for one in told if one["event"] == "model_process_ended"]
    assert (event["how"], event["pid"], event["waited_s"], event["images"]) == ("cut", hanging, LEAST_S, 1)
    with pytest.raises(ProcessLookupError):
        os.kill(hanging, 0)
    assert answers(session)


def test_what_may_take_its_time_is_not_cut_short(session: HostedSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apart from the others, or with the last try: all the time there is, and after that it stands."""
    monkeypatch.setattr(patience, "RUN_S", 1.0)
    monkeypatch.setattr(patience, "LEAST_S", 0.0)
    apart = session.host.apart()
    try:
        (alone,) = apart.sessions().values()
        (at_last,) = session.host.sessions(patient=True).values()
        for one in (alone, at_last):
            hung = lost("hung")
            with pytest.raises(LostInModel, match=r"no answer in 1 s$") as raised:
                answers(one, HANGS)
            assert not isinstance(raised.value, Undecided)
            assert lost("hung") == hung + 1
    finally:
        apart.close()


def test_a_process_that_is_stopped_for_a_moment_loses_nothing(
    session: HostedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose memory is fetched from a slow disk: within the time that is waited at least."""
    monkeypatch.setattr(patience, "LEAST_S", 30.0)
    process = pid_of(session)
    os.kill(process, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as thread:
        answered = thread.submit(answers, session)
        with pytest.raises(TimeoutError):
            answered.result(2 * LEAST_S)
        os.kill(process, signal.SIGCONT)
        assert answered.result(60)
    assert pid_of(session) == process


def test_a_failure_says_nothing_of_an_image_that_a_sick_process_was_given(
    session: HostedSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one stood as failed, for good: whoever was given to a process that had just become sick."""
    monkeypatch.setattr(patience, "LEAST_S", 30.0)
    assert answers(session, INFECTS)
    with pytest.raises(Undecided, match="RuntimeError"):
        answers(session)
    apart = session.host.apart()
    try:
        (alone,) = apart.sessions().values()
        assert answers(alone)
        with pytest.raises(RuntimeError, match="ValueError"):
            answers(alone, RAISES)  # this one fails wherever it is looked at
    finally:
        apart.close()

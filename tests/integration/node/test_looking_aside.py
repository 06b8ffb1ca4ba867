"""Uploads and pictures are looked at beside the routed images, over a Unix socket, and never keep those waiting."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from config import Settings
from inference.analyser import Analyser, Source
from inference.aside import Aside
from inference.package import load_packages
from node.looking import server as look_server
from node.looking import turns as look_turns
from node.looking.server import LookServer
from node.looking.turns import QUIET_S, Busy, Turns
from node.looking.wire import NAME, NoAnalyser, Refusal, ask, uploads_dir
from tests.support.chests import bright, save
from tests.support.packages import write_package


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("a" * 90)  # with this a socket's name is longer than 107 bytes
    write_package(folder / "models")
    return Settings.model_validate(
        {"node": {"state_dir": folder / "state"}, "look": {"models_dir": folder / "models", "decode_wall_s": 5}}
    )


@pytest.fixture(scope="module")
def analyser(settings: Settings) -> Iterator[Analyser]:
    made = Analyser(settings, load_packages(settings.look))
    yield made
    made.close()


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def served(settings: Settings, analyser: Analyser, turns: Turns) -> Iterator[LookServer]:
    server = LookServer(settings, analyser, turns)
    server.start()
    yield server
    server.stop()


def upload(settings: Settings) -> Path:
    return save(bright(), uploads_dir(settings))


@pytest.mark.usefixtures("served")
def test_an_upload_is_judged_as_a_routed_image_is(settings: Settings, analyser: Analyser) -> None:
    path = upload(settings)
    (line,) = ask(settings, "look", 30, path=str(path)).said["lines"]
    (routed,) = analyser.analyse([Source(path)])
    assert line["priority"] == "HIGH"
    assert line["findings"][0]["probability"] == routed.results[0].findings[0].probability
    assert "path" not in line


@pytest.mark.usefixtures("served")
def test_the_socket_is_this_users_alone(settings: Settings) -> None:
    path = settings.node.state_dir / "run" / NAME
    assert len(str(path)) > 107
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("served")
def test_another_users_process_is_not_answered(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_server, "is_ours", lambda connection: False)
    with pytest.raises(NoAnalyser):
        ask(settings, "look", 30, path=str(upload(settings)))


def test_whose_process_it_is_comes_from_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert look_server.is_ours(ours)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert look_server.is_ours(ours) is (os.getuid() == 0), "root may, and nobody else"


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("path", ["/etc/passwd", "../ledger.sqlite", "", "nothing.dcm", "\0"])
def test_only_images_that_lie_where_images_lie_are_looked_at(settings: Settings, path: str) -> None:
    with pytest.raises((Refusal, NoAnalyser)):
        ask(settings, "look", 30, path=path if path.startswith("/") else str(uploads_dir(settings) / path))


@pytest.mark.usefixtures("served")
def test_a_link_out_of_the_uploads_is_not_followed(settings: Settings, tmp_path: Path) -> None:
    outside = save(bright(), tmp_path)
    link = uploads_dir(settings) / "link"
    link.symlink_to(outside)
    with pytest.raises(Refusal):
        ask(settings, "look", 30, path=str(link))
    link.unlink()


@pytest.mark.usefixtures("served")
def test_a_question_that_makes_no_sense_hurts_nobody(settings: Settings) -> None:
    for question in ({"path": 5, "age": "x"}, {"as_kind": {"a": 1}}):
        with pytest.raises((Refusal, NoAnalyser)):
            ask(settings, "look", 30, **question)
    with pytest.raises(NoAnalyser):
        ask(settings, "unheard-of", 30)
    assert ask(settings, "look", 30, path=str(upload(settings))).said["lines"]


def test_nobody_there_is_said_as_such(settings: Settings) -> None:
    with pytest.raises(NoAnalyser, match="no analyser is running"):
        ask(settings, "look", 30, path="x")


@pytest.mark.usefixtures("served")
def test_an_upload_waits_for_routed_images_and_is_told_so_in_time(settings: Settings, turns: Turns) -> None:
    path = str(upload(settings))
    with turns.routed(), pytest.raises(NoAnalyser, match="routed"):
        ask(settings, "look", 0.5, path=path)
    assert ask(settings, "look", 30, path=path).said["lines"]


@pytest.mark.usefixtures("served")
def test_a_routed_batch_goes_on_while_an_upload_is_decoded(
    settings: Settings, analyser: Analyser, tmp_path: Path, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload's decoder takes as long as the batch does, and longer."""
    is_decoded, may_end, prepare = threading.Event(), threading.Event(), Aside._prepare

    def slowly(aside: Aside, source: Source) -> Any:
        is_decoded.set()
        may_end.wait(60)
        return prepare(aside, source)

    monkeypatch.setattr(Aside, "_prepare", slowly)
    path, answers = str(upload(settings)), []
    asked = threading.Thread(target=lambda: answers.append(ask(settings, "look", 120, path=path).said), daemon=True)
    asked.start()
    assert is_decoded.wait(60)
    with turns.routed():
        (looked,) = analyser.analyse([Source(save(bright(), tmp_path))])
    assert looked.results[0].priority == "HIGH"
    assert not answers, "it waited for the upload's decoder"
    may_end.set()
    asked.join(120)
    assert [line["priority"] for said in answers for line in said["lines"]] == ["HIGH"]


def test_an_upload_does_not_slip_between_two_routed_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, order, now = Turns(), [], [100.0]
    monkeypatch.setattr(look_turns, "monotonic", lambda: now[0])

    def other() -> None:
        with turns.other(1000.0):
            order.append("other")

    waiting = threading.Thread(target=other)
    with turns.routed():
        waiting.start()
        order.append("first")
    waiting.join(4 * QUIET_S)  # the clock stands: no time has passed since the batch
    with turns.routed():
        order.append("second")
    now[0] += 2 * QUIET_S
    waiting.join(30)
    assert order == ["first", "second", "other"]


def test_no_turn_in_time_is_busy_and_leaves_the_turns_as_they_were() -> None:
    turns = Turns()
    with turns.routed(), pytest.raises(Busy), turns.other(monotonic() + 0.01):
        pass
    with turns.other(monotonic() + 10 * QUIET_S + 5):
        pass
    with turns.routed():
        pass


@pytest.mark.usefixtures("served")
def test_too_many_at_once_hear_busy(settings: Settings, monkeypatch: pytest.MonkeyPatch, served: LookServer) -> None:
    for _ in range(look_server.CONNECTIONS_MAX):
        served._places.acquire()
    with pytest.raises(NoAnalyser, match="too many"):
        ask(settings, "look", 30, path="x")
    for _ in range(look_server.CONNECTIONS_MAX):
        served._places.release()

"""Two nodes never share a store, and the second says what it waits for; roles on their own share it with each other. A
release that knows the machine's lock alone is a node like any other."""

import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from structlog.testing import capture_logs

from config.settings import NodeSettings, Settings
from node.running import on_its_own
from node.running.lock import NotAlone, alone, beside_others, let_go
from node.watching.counters import COUNTERS


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node=NodeSettings(state_dir=tmp_path))


def test_the_second_node_says_at_once_what_it_waits_for_and_for_how_long(settings: Settings) -> None:
    first = alone(settings, 0.0, threading.Event())
    with capture_logs() as logs, pytest.raises(NotAlone, match="another node is running"):
        alone(settings, 0.3, threading.Event())
    (said,) = logs
    assert said["event"] == "node_waiting"
    assert said["reason"] == f"another node holds {settings.node.state_dir}: waiting up to 0.3 s for it to end"
    let_go(first)
    let_go(alone(settings, 0.0, threading.Event()))


def test_who_is_told_to_stop_waits_no_longer(settings: Settings) -> None:
    first = alone(settings, 0.0, threading.Event())
    stop = threading.Event()
    stop.set()
    with pytest.raises(NotAlone):
        alone(settings, 3600.0, stop)
    let_go(first)


def test_roles_on_their_own_keep_a_whole_node_from_putting_in_order_what_they_are_writing(settings: Settings) -> None:
    now = threading.Event()
    now.set()
    roles = [beside_others(settings, 0.0, now) for _ in range(2)]
    with pytest.raises(NotAlone):
        alone(settings, 0.0, now)
    for role in roles:
        let_go(role)
    node = alone(settings, 0.0, now)
    with pytest.raises(NotAlone, match="a whole node"):
        beside_others(settings, 0.0, now)
    let_go(node)


@pytest.fixture
def older(settings: Settings) -> Iterator[IO[bytes]]:
    """The lock of a release up to schema 0007, not taken yet."""
    folder = settings.node.state_dir / "run"
    folder.mkdir()
    with (folder / "lock").open("wb") as file:
        yield file


def test_while_an_older_release_runs_neither_a_node_nor_a_role_begins(settings: Settings, older: IO[bytes]) -> None:
    now = threading.Event()
    now.set()
    fcntl.flock(older, fcntl.LOCK_EX)
    with pytest.raises(NotAlone, match="another node is running"):
        alone(settings, 0.0, now)
    with pytest.raises(NotAlone, match="a whole node"):
        beside_others(settings, 0.0, now)
    fcntl.flock(older, fcntl.LOCK_UN)
    let_go(alone(settings, 0.0, now))


def test_who_waits_for_an_older_release_keeps_no_other_machine_from_the_store(
    settings: Settings, older: IO[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl.flock(older, fcntl.LOCK_EX)
    stop = threading.Event()

    def look(_: float) -> bool:
        with (settings.node.state_dir / "store" / "lock").open("wb") as elsewhere:
            fcntl.flock(elsewhere, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(older, fcntl.LOCK_UN)
        return False

    monkeypatch.setattr(stop, "wait", look)
    let_go(alone(settings, 60.0, stop))


def test_an_older_release_does_not_begin_beside_a_node_or_a_role_on_its_own(
    settings: Settings, older: IO[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = alone(settings, 0.0, threading.Event())
    with pytest.raises(BlockingIOError):
        fcntl.flock(older, fcntl.LOCK_EX | fcntl.LOCK_NB)
    let_go(node)
    held: list[int] = []
    monkeypatch.setattr(on_its_own, "_held", held)
    monkeypatch.setenv(COUNTERS, "")  # put back afterwards
    on_its_own.prepare("report", settings)
    with pytest.raises(BlockingIOError):
        fcntl.flock(older, fcntl.LOCK_EX | fcntl.LOCK_NB)
    let_go(tuple(held))
    fcntl.flock(older, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_who_gives_up_because_of_another_machine_holds_nothing_on_this_one(
    settings: Settings, older: IO[bytes]
) -> None:
    (settings.node.state_dir / "store").mkdir()
    with (settings.node.state_dir / "store" / "lock").open("wb") as elsewhere:
        fcntl.flock(elsewhere, fcntl.LOCK_EX)
        with pytest.raises(NotAlone):
            alone(settings, 0.0, threading.Event())
    fcntl.flock(older, fcntl.LOCK_EX | fcntl.LOCK_NB)

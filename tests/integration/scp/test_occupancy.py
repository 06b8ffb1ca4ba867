"""The limits of a receiver that is several processes hold in sum, and nobody's death costs a place."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scp.network import occupancy
from scp.network.occupancy import SharedOccupancy
from scp.network.policy import Refusal
from tests.support.realdata import ROOT

PLACES, OF_ONE_AE = 4, 2
AT_ONCE = 2  # in the storm
OTHER = f"""
import sys
from pathlib import Path
from tests.integration.scp.test_occupancy import limit, storm
from scp.network import occupancy
from scp.network.occupancy import SharedOccupancy
shared = SharedOccupancy(Path(sys.argv[1]), {PLACES})
for line in sys.stdin:
    what, title = line.split()
    if what == "patience":
        print(setattr(occupancy, "PATIENCE_S", float(title)), flush=True)
    elif what == "enter":
        print(shared.enter(title, limit), flush=True)
    else:
        print(storm(shared) if what == "storm" else shared.leave(title), flush=True)
"""


def limit(in_all: int, of_this_ae: int) -> Refusal | None:
    return Refusal.LOCAL_LIMIT if in_all >= PLACES or of_this_ae >= OF_ONE_AE else None


class Other:
    """A second process that does as it is told."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def say(self, what: str, title: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(what, title, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "associations"


@pytest.fixture
def shared(path: Path) -> Iterator[SharedOccupancy]:
    occupancy = SharedOccupancy(path, PLACES)
    yield occupancy
    occupancy.close()


@pytest.fixture
def other(path: Path) -> Iterator[Other]:
    started = Other(path)
    yield started
    started.kill()


def test_both_limits_hold_in_sum(shared: SharedOccupancy, other: Other) -> None:
    assert other.say("enter", "CT1") == "None"
    assert shared.enter("CT1", limit) is None
    assert shared.enter("CT1", limit) is Refusal.LOCAL_LIMIT
    assert other.say("enter", "CT1") == "Refusal.LOCAL_LIMIT"
    assert shared.enter("CT11", limit) is None  # another AE
    assert other.say("enter", "MR") == "None"
    assert shared.enter("US", limit) is Refusal.LOCAL_LIMIT  # four in all
    assert other.say("leave", "CT1") == "None"
    assert shared.enter("CT1", limit) is None


def test_a_killed_process_gives_its_places_back(shared: SharedOccupancy, other: Other) -> None:
    for title in ("CT1", "CT1", "MR", "US"):
        assert other.say("enter", title) == "None"
    assert shared.enter("DX", limit) is Refusal.LOCAL_LIMIT
    other.kill()
    assert shared.enter("CT1", limit) is None  # noticed by who needed it
    assert [shared.enter("CT1", limit), shared.enter("CT1", limit)] == [None, Refusal.LOCAL_LIMIT]


def test_places_of_processes_that_cannot_be_are_free(shared: SharedOccupancy, path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert shared.enter("CT1", limit) is None


def test_whoever_reaps_a_process_can_free_its_places(shared: SharedOccupancy, other: Other, path: Path) -> None:
    other.say("enter", "CT1")
    other.say("enter", "CT1")
    os.kill(other.process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, other.process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a process to kill(pid, 0)
    assert shared.enter("CT1", limit) is Refusal.LOCAL_LIMIT
    supervisor = SharedOccupancy(path, PLACES)
    supervisor.forget(other.process.pid)
    supervisor.close()
    assert shared.enter("CT1", limit) is None


def test_a_stopped_process_does_not_stop_the_others(shared: SharedOccupancy, other: Other, path: Path) -> None:
    other.say("enter", "CT1")
    with path.open("rb") as held:  # as one would that was stopped in the middle of it
        fcntl.flock(held, fcntl.LOCK_EX)
        assert shared.enter("MR", limit) is None
        shared.leave("MR")
    assert shared.enter("CT1", limit) is None


def test_a_storm_in_two_processes_never_passes_the_limit(
    shared: SharedOccupancy, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks is told how many are inside: that is never more than may be."""
    monkeypatch.setattr(occupancy, "PATIENCE_S", 60.0)  # longer than a busy machine holds anybody up
    assert other.say("patience", "60") == "None"
    assert [other.say("enter", "X"), other.say("leave", "X")] == ["None", "None"]  # it is awake
    assert other.process.stdin is not None
    print("storm STORM", file=other.process.stdin, flush=True)
    most_here = storm(shared)
    assert other.process.stdout is not None
    most_there = int(other.process.stdout.readline())
    assert (most_here, most_there) == (AT_ONCE, AT_ONCE)
    assert [shared.enter(str(n), limit) for n in range(PLACES + 1)] == [None] * PLACES + [Refusal.LOCAL_LIMIT]


def storm(shared: SharedOccupancy) -> int:
    """Four threads come and go; the most that were found inside."""
    found: list[int] = []

    def few(in_all: int, of_this_ae: int) -> Refusal | None:
        found.append(in_all)
        time.sleep(0.0001)  # between looking and going in
        return Refusal.LOCAL_LIMIT if in_all >= AT_ONCE else None

    def come_and_go() -> None:
        for _ in range(200):
            if shared.enter("STORM", few) is None:
                time.sleep(0.0001)
                shared.leave("STORM")

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(found)


@pytest.mark.parametrize("title", ["", "A" * 16, "\0" * 16, "\0\0CT1", "MÜNCHEN_RÖNTGEN_", "x" * 40])
def test_any_title_that_a_stranger_sends_is_counted_and_let_go(shared: SharedOccupancy, title: str) -> None:
    for _ in range(3):
        assert [shared.enter(title, limit) for _ in range(3)] == [None, None, Refusal.LOCAL_LIMIT]
        shared.leave(title)
        shared.leave(title)

"""An arm that is late, and nothing else, runs again: a slow product is slow each time, a stalled machine is not."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.torture.__main__ import TRIES, _run
from tests.torture.experiment import Arm, Context, Control, Experiment
from tests.torture.report import Line

LATE = "an image took 2 s"


def arms(*told: Callable[[Arm], None]) -> tuple[Callable[[Context], Arm], list[Path]]:
    """A runner whose n-th arm is told the n-th thing, and the folders that it was given."""
    folders: list[Path] = []

    def run(context: Context) -> Arm:
        assert not list(context.folder.iterdir())
        folders.append(context.folder)
        arm = Arm()
        told[len(folders) - 1](arm)
        return arm

    return run, folders


def late(arm: Arm) -> None:
    arm.in_time(False, LATE)


def broken(arm: Arm) -> None:
    arm.require(False, "an image is lost")
    late(arm)


def well(arm: Arm) -> None:
    arm.in_time(True, LATE)


def line(run: Callable[[Context], Arm], folder: Path, control: str = "", **how: Any) -> Line:
    one = Experiment(1, "a title", run, {"it_is_slow": Control("took", run)})
    return _run(one, control, run, Context(folder / "arm", random.Random(1), "native", None, **how))  # type: ignore[arg-type]


@pytest.mark.parametrize("times", range(TRIES))
def test_what_was_late_and_is_not_any_more_holds_and_says_so(times: int, tmp_path: Path) -> None:
    run, folders = arms(*[late] * times, well)
    found = line(run, tmp_path)
    assert found.passed
    assert found.verdict == "holds"
    assert found.arm.figures.get("late before", "").count(LATE) == times
    assert len(set(folders)) == times + 1
    assert {folder.parent for folder in folders} == {tmp_path}
    assert all(folder.name.endswith("arm") for folder in folders), "experiment 36 knows them by that"


def test_what_is_late_each_time_is_broken(tmp_path: Path) -> None:
    run, folders = arms(*[late] * (TRIES + 1))
    found = line(run, tmp_path)
    assert not found.passed
    assert found.verdict == f"BROKEN: {LATE}"
    assert len(folders) == TRIES


def test_what_breaks_is_broken_at_once(tmp_path: Path) -> None:
    run, folders = arms(broken, well)
    found = line(run, tmp_path)
    assert not found.passed
    assert found.arm.broken == ["an image is lost", LATE]
    assert len(folders) == 1


def test_a_control_that_is_late_is_caught_at_once_and_the_long_form_repeats_nothing(tmp_path: Path) -> None:
    run, folders = arms(late, late)
    assert line(run, tmp_path / "control", control="it_is_slow").passed
    assert not line(run, tmp_path / "long", long=True).passed
    assert len(folders) == 2

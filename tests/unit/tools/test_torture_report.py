"""A control of a torture experiment counts only when what it breaks is what is seen broken."""

import pytest

from tests.torture.experiment import EXPERIMENTS, Arm, Control, Experiment, register
from tests.torture.report import Line


def _line(control: str, *broken: str, **arm: str) -> Line:
    controls = {"no_sync": Control(r"images are (missing|corrupt)", lambda context: Arm())}
    made = Arm(broken=list(broken), **arm)  # type: ignore[arg-type]
    return Line(Experiment(1, "a title", lambda context: Arm(), controls), control, made, 1.0)


def test_a_control_is_caught_by_the_sentence_that_tells_of_what_was_done() -> None:
    line = _line("no_sync", "9 descriptors are left", "3 images are corrupt")
    assert line.passed
    assert line.verdict == "caught: 3 images are corrupt"


def test_a_control_that_breaks_something_else_alone_is_not_caught() -> None:
    line = _line("no_sync", "9 descriptors are left")
    assert not line.passed
    assert line.verdict.startswith("NOT CAUGHT: ")
    assert "9 descriptors are left" in line.verdict


def test_a_control_that_breaks_nothing_or_did_not_run_is_not_caught() -> None:
    assert not _line("no_sync").passed
    assert not _line("no_sync", "3 images are corrupt", not_run="no compiler").passed


def test_the_arm_that_must_hold_holds_with_nothing_broken_alone() -> None:
    assert _line("").passed
    assert not _line("", "9 descriptors are left").passed
    assert not _line("", not_run="no compiler").passed


def test_a_control_that_does_not_say_what_it_must_show_is_refused() -> None:
    before = list(EXPERIMENTS)
    with pytest.raises(TypeError, match="no_sync"):
        register(1, "a title", lambda context: Arm(), no_sync=lambda context: Arm())  # type: ignore[arg-type]
    assert before == EXPERIMENTS

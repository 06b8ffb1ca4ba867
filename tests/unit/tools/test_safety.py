"""The safety page leads somewhere in every row, or `make check` says where it does not."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.torture import report
from tests.torture.experiment import Arm, Experiment
from tools.safety import Control, Hazard, LastRun, broken, page, read, verdicts_in

SOUND = Control("it is guarded", code=("guard.py:Guard.prove",), tests=("tests/test_guard.py::test_it",), torture=(7,))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "guard.py").write_text("class Guard:\n    def prove(self) -> None: ...\n")
    (tmp_path / "tests/torture").mkdir(parents=True)
    (tmp_path / "tests/test_guard.py").write_text("def test_it() -> None: ...\n")
    (tmp_path / "tests/torture/network.py").write_text("register(7, 'a title', run)\nregister(7, 'another', run)\n")
    return tmp_path


def _hazard(*controls: Control, name: str = "H1", severity: str = "serious", part: str = "a part") -> Hazard:
    return Hazard(name, part, "a title", "a harm", severity, "what remains", controls)


def test_a_hazard_whose_links_lead_somewhere_is_sound(root: Path) -> None:
    assert list(broken([_hazard(SOUND)], LastRun(), root)) == []


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (Control("x", code=("gone.py:Guard",), torture=(7,)), "there is no gone.py:Guard"),
        (Control("x", code=("guard.py:Guard.gone",), torture=(7,)), "there is no guard.py:Guard.gone"),
        (Control("x", code=("guard.py",), tests=("tests/test_guard.py::test_gone",)), "there is no test"),
        (Control("x", code=("guard.py",), torture=(8,)), "there is no experiment 8"),
        (Control("x", code=("guard.py",)), "names no code, or nothing that proves it"),
        (Control("x", torture=(7,)), "names no code, or nothing that proves it"),
    ],
)
def test_a_link_that_leads_nowhere_is_named(root: Path, control: Control, said: str) -> None:
    (sentence,) = broken([_hazard(control)], LastRun(), root)
    assert said in sentence
    assert sentence.startswith("H1: ")


def test_a_proof_that_failed_in_the_last_run_breaks_the_check(root: Path) -> None:
    run = LastRun(tests={SOUND.tests[0]: "failed"}, torture={"7": "holds"})
    assert [sentence.partition(": tests")[2] for sentence in broken([_hazard(SOUND)], run, root)] == [
        "/test_guard.py::test_it: failed in the last run"
    ]


def test_a_hazard_that_nothing_controls_is_no_hazard_that_was_thought_about(root: Path) -> None:
    assert list(broken([_hazard()], LastRun(), root))
    assert list(broken([_hazard(SOUND), _hazard(SOUND)], LastRun(), root))
    assert list(broken([_hazard(SOUND, severity="bad")], LastRun(), root))


def test_the_page_shows_control_proof_and_what_came_of_it(root: Path) -> None:
    run = LastRun("abc", "2026-11-21", "a machine", {SOUND.tests[0]: "passed"})
    assert "[guard.py:Guard.prove](../guard.py)" in _row_of(run, root)
    assert "| • [it](../tests/test_guard.py)<br>• [experiment 7](torture.md): a title; another |" in _row_of(run, root)
    assert "| 1 passed, 1 not run yet |" in _row_of(run, root)


def test_a_page_of_nothing_but_proofs_that_hold_says_so_and_one_that_does_not_is_marked(root: Path) -> None:
    good = LastRun(tests={SOUND.tests[0]: "passed"}, torture={"7": "holds"})
    assert "| all 2 passed |" in _row_of(good, root)
    assert "**" not in _row_of(good, root)
    assert "[it](../tests/test_guard.py) **skipped**<br>" in _row_of(LastRun(tests={SOUND.tests[0]: "skipped"}), root)


def test_a_proof_at_several_controls_counts_once_in_the_summary(root: Path) -> None:
    run = LastRun(tests={SOUND.tests[0]: "passed"}, torture={"7": "holds"})
    made = page([_hazard(SOUND, SOUND), _hazard(SOUND, name="H2")], run, root)
    assert "2 hazards, 3 controls." in made
    assert "Proofs: all 2 passed." in made
    assert "| [H1](#h1) | a title | serious | 2 | all 2 passed |" in made


def test_hazards_of_one_part_stand_together_under_one_heading(root: Path) -> None:
    hazards = [_hazard(SOUND, name=f"H{n}", part=part) for n, part in enumerate("aab")]
    assert list(broken(hazards, LastRun(), root)) == []
    assert page(hazards, LastRun(), root).count("\n## a\n") == 1
    assert list(broken(hazards[1:] + hazards[:1], LastRun(), root)) == ["the hazards of 'a' do not stand together"]


SAID_OF_7 = ("7 a title: {} (1.0 s)", "7 control one: {} (1.0 s)", "7 another: {} (1.0 s)")


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (("holds; goal missed: x", "caught: it was lost", "holds"), "holds"),
        (("NOT RUN: it broke down: OSError", "caught: it was lost", "holds"), "did not run"),
        (("holds", "NOT RUN: no compiler", "holds"), "did not run"),
        (("holds", "caught: it was lost", ""), "did not run"),
        (("", "caught: it was lost", ""), "did not run"),
        (("BROKEN: 1 instance is lost", "caught: it was lost", "holds"), "failed"),
        (("holds", "NOT CAUGHT: this control must fail", "holds"), "failed"),
        (("NOT RUN: no compiler", "NOT CAUGHT: this control must fail", "holds"), "failed"),
        (("", "", ""), "did not run"),
    ],
)
def test_an_experiment_holds_only_when_every_part_of_it_ran_and_held(
    root: Path, said: tuple[str, str, str], verdict: str
) -> None:
    told = "\n".join(line.format(word) for line, word in zip(SAID_OF_7, said, strict=True) if word)
    assert verdicts_in(f"seed 1\n{told}\n3 arms\n", [7], root) == {"7": verdict}


def test_the_verdicts_are_those_that_the_torture_command_prints(root: Path) -> None:
    own = report.Line(Experiment(7, "a title", lambda context: Arm(), {}), "", Arm(), 0.0)
    lines = [
        own,
        replace(own, arm=Arm(broken=["1 instance is lost"])),
        replace(own, arm=Arm(not_run="no compiler")),
        replace(own, arm=Arm(forbidden="not here")),
    ]
    said = [verdicts_in(f"7 a title: {line.verdict} (1.0 s)\n7 another: holds (1.0 s)", [7], root) for line in lines]
    assert [one["7"] for one in said] == ["holds", "failed", "did not run", "did not run"]


def _row_of(run: LastRun, root: Path) -> str:
    return next(line for line in page([_hazard(SOUND)], run, root).splitlines() if "it is guarded" in line)


def test_the_house_has_an_answer_to_the_hazards_that_everybody_asks_for_first() -> None:
    titles = " ".join(hazard.title for hazard in read())
    for word in ("wrong patient", "lost", "not looked at", "model", "decoded", "after the read", "bias", "unflagged"):
        assert word in titles
    for word in ("flag does not reach", "leak", "stranger", "not meant for", "upgrade", "library"):
        assert word in titles

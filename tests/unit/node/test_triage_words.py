"""The triage list in words: what is marked without an alarm says so, and no spread is nothing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from config import load_settings
from ledger.completion import Completion
from ledger.figures import probability_words, sd_words
from ledger.ledger import Ledger
from ledger.records import ImageResult, Stage, TriagePriority
from node.cli import app
from node.telling.triage_list import finding_words
from node.wiring import open_ledger
from tests.support.records import judged, received
from tests.support.waiting import wait_until

HIGH, LOW = TriagePriority.HIGH, TriagePriority.LOW
STUDY = "1.2.3"


@pytest.fixture
def ledger(site: Path) -> Iterator[Ledger]:
    opened = open_ledger(load_settings(site))
    yield opened
    opened.close()


def look(ledger: Ledger, result: ImageResult) -> str:
    """The words of the one study, in which a model said this."""
    ledger.admit(received(STUDY), Completion(60))
    [job] = ledger.claim(Stage.ANALYSE, "test", 1, 60)
    ledger.finish_analysis(job, [result])
    [entry] = ledger.worklist()
    return finding_words(entry)


def with_sd(result: ImageResult, sd: float) -> ImageResult:
    return replace(result, findings=tuple(replace(one, probability_sd=sd) for one in result.findings))


def test_a_finding_that_raises_the_priority_is_said_with_its_figures(ledger: Ledger) -> None:
    assert look(ledger, judged(HIGH, 0.93)) == "pneumonia 0.93 ± 0.02"


@pytest.mark.parametrize(("in_doubt", "doubt"), [(False, ""), (True, ", in doubt")])
def test_what_a_model_marks_and_may_not_raise_the_alarm_for_says_so(ledger: Ledger, in_doubt: bool, doubt: str) -> None:
    assert look(ledger, judged(LOW, 0.52, in_doubt=in_doubt)) == (
        f"pneumonia marked 0.52 ± 0.02{doubt}, no alarm: its model may raise none for this patient"
    )


def test_a_study_whose_report_was_not_made_does_not_look_done(ledger: Ledger, site: Path) -> None:
    ledger.admit(received(STUDY), Completion(0.01))
    [job] = ledger.claim(Stage.ANALYSE, "test", 1, 60)
    ledger.finish_analysis(job, [judged(LOW, 0.1)])
    [job] = wait_until(lambda: ledger.claim(Stage.REPORT, "test", 1, 60), 10)
    ledger.stop_report(job, "Its source changed.")
    [entry] = ledger.worklist()
    assert finding_words(entry).startswith("NOT REPORTED: ")
    listed = CliRunner().invoke(app, ["worklist", "-c", str(site)], env={"COLUMNS": "300"}).output
    assert "NOT REPORTED" in listed
    ledger.release(job.job_id)
    [entry] = ledger.worklist()
    assert "NOT REPORTED" not in finding_words(entry)


def test_a_finding_below_its_operating_point_is_not_called_marked(ledger: Ledger) -> None:
    assert look(ledger, judged(LOW, 0.45, in_doubt=True)) == "pneumonia 0.45 ± 0.02, in doubt"


def test_no_spread_is_nothing(ledger: Ledger, site: Path) -> None:
    assert look(ledger, with_sd(judged(HIGH, 0.9999), 0.0001)) == "pneumonia >0.99 ± <0.01"
    told = CliRunner().invoke(app, ["explain", STUDY, "-c", str(site)], env={"COLUMNS": "300"}).output
    assert "pneumonia >0.99 ± <0.01 present" in told
    assert "pneumonia: probability >0.99 ± <0.001" in told
    assert "± 0.00" not in told
    listed = CliRunner().invoke(app, ["worklist", "-c", str(site)], env={"COLUMNS": "300"}).output
    assert "pneumonia >0.99 ± <0.01" in listed


@pytest.mark.parametrize(
    ("sd", "decimals", "words"), [(0.0, 2, "<0.01"), (0.0049, 2, "<0.01"), (0.0051, 2, "0.01"), (0.0004, 3, "<0.001"),
                                  (0.04, 3, "0.040")]
)  # fmt: skip
def test_a_spread_is_rounded_to_its_decimals_and_never_to_nothing(sd: float, decimals: int, words: str) -> None:
    assert sd_words(sd, decimals) == words


@pytest.mark.parametrize(
    ("probability", "words"), [(0.0, "<0.01"), (1.0, ">0.99"), (0.931, "0.93"), (0.995, ">0.99"), (0.006, "0.01")]
)
def test_no_probability_is_a_certainty(probability: float, words: str) -> None:
    assert probability_words(probability) == words

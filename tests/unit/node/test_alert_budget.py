"""Which thresholds keep a budget of flags a day: the node's own rule, counted day by day, and what is lost is said."""

import csv
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from config import Settings
from config.settings import DecideSettings, RecommendSettings
from inference.decide import decide, in_doubt
from ledger.database import transaction
from ledger.opinions import Judged
from ledger.records import ImageResult, TriagePriority
from ledger.review import ReviewedImage, ReviewedStudy
from node.cli import app
from node.looking.alert_budget import (
    Scores,
    flagged_by,
    highest_threshold,
    proposed,
    scores_of,
    smallest_step,
    spread_of,
    steps_of,
    written,
)
from node.wiring import open_ledger
from tests.support.ledger_story import Story
from tests.support.records import judged

NO_DOUBT = DecideSettings(doubt_priority="LOW")
MONDAY = datetime(2026, 11, 2, 12, tzinfo=UTC)


def said(probability: float, sd: float = 0.02) -> ImageResult:
    """What the node would have said at an operating point of 0.5."""
    result = judged(TriagePriority.MEDIUM if probability >= 0.5 else TriagePriority.LOW, probability)
    return replace(result, findings=(replace(result.findings[0], probability_sd=sd),))


def study(number: int, day: int, *probabilities: float) -> ReviewedStudy:
    at = MONDAY + timedelta(days=day)
    images = [
        ReviewedImage(n, "1.2", f"1.{number}.{n}", "path", at, (said(probability),))
        for n, probability in enumerate(probabilities)
    ]
    return ReviewedStudy(f"1.{number}", at, tuple(images))


def scored(decide: DecideSettings, *days: list[float]) -> Scores:
    """Each day's studies, of one image each."""
    numbered = [(n, day, one) for day, studies in enumerate(days) for n, one in enumerate(studies)]
    return scores_of([study(1000 * day + n, day, one) for n, day, one in numbered], decide)


@pytest.mark.parametrize("settings", [DecideSettings(), NO_DOUBT, DecideSettings(doubt_sd=0.01)])
@pytest.mark.parametrize("probability", [0.05, 0.3, 0.41, 0.5, 0.77, 0.95])
@pytest.mark.parametrize("threshold", [0.1, 0.4, 0.5, 0.51, 0.8, 0.99])
def test_the_count_goes_by_the_nodes_own_rule(settings: DecideSettings, probability: float, threshold: float) -> None:
    [finding] = said(probability).findings
    there = replace(
        finding,
        operating_point=threshold,
        present=probability >= threshold,
        in_doubt=in_doubt(probability, finding.probability_sd, threshold, settings),
    )
    priority = decide((there,), "CHEST", True, settings, RecommendSettings()).priority
    assert (highest_threshold(finding, settings) >= threshold) == (priority is not TriagePriority.LOW)


def test_a_study_is_as_its_most_probable_image() -> None:
    scores = scores_of([study(1, 0, 0.1, 0.9, 0.4)], NO_DOUBT)
    assert scores.studies[0].highest == {"pneumonia": 0.9}
    assert list(flagged_by(scores, "pneumonia", 0.9)) == [True]
    assert list(flagged_by(scores, "pneumonia", 0.91)) == [False]


def test_the_smallest_step_that_keeps_the_budget_is_taken_and_no_other() -> None:
    scores = scored(NO_DOUBT, [0.6, 0.7, 0.8, 0.9], [0.55, 0.75, 0.95])
    step = smallest_step(scores, 2, 1.0)
    point = written(0.5, step)
    assert point == 0.7001
    assert list(flagged_by(scores, "pneumonia", point)).count(True) == 4  # 0.8 and 0.9, 0.75 and 0.95
    assert spread_of(scores, steps_of(scores) >= step, 2).most == 2
    assert smallest_step(scores, 4, 1.0) == 0.0  # kept already: nothing is raised
    assert smallest_step(scores, 2, 0.5) < step  # one of the two days is enough


def test_days_on_which_nothing_came_count_and_days_cut_off_do_not() -> None:
    scores = scored(NO_DOUBT, [0.9] * 9, [0.9, 0.9], [], [0.9], [0.9] * 7)
    spread = spread_of(scores, steps_of(scores) >= 0.0, 1)
    assert (spread.days, spread.studies, spread.mean, spread.most) == (3, 3, 1.0, 2)
    assert spread.within == pytest.approx(2 / 3)


def test_flags_for_doubt_that_no_threshold_takes_away_are_said_to_be_such() -> None:
    uncertain = replace(study(1, 0, 0.2), images=())
    result = said(0.2, sd=0.4)
    uncertain = replace(uncertain, images=(ReviewedImage(1, "1.2", "1.9", "path", MONDAY, (result,)),))
    scores = scores_of([uncertain], DecideSettings())
    assert math.isinf(smallest_step(scores, 0, 1.0))


def aged(group: str, point: float, probability: float, may_raise: bool | None = True) -> ImageResult:
    """What a package with age groups says of a patient: one digest, whoever it is."""
    present = probability >= point
    priority = TriagePriority.MEDIUM if present and may_raise is not False else TriagePriority.LOW
    result = judged(priority, probability)
    finding = replace(result.findings[0], operating_point=point, present=present)
    return replace(result, findings=(finding,), may_raise=may_raise, age_group=group)


def patients(*said_of: ImageResult) -> Scores:
    """A study for each, all on one day."""
    made = []
    for number, result in enumerate(said_of):
        one = study(number, 0, 0.5)
        made.append(replace(one, images=(replace(one.images[0], results=(result,)),)))
    return scores_of(made, NO_DOUBT)


def test_a_package_that_never_raises_a_priority_raises_no_flags() -> None:
    scores = patients(replace(judged(TriagePriority.LOW, 0.9), may_raise=False))
    assert scores.points == {}
    assert not np.any(steps_of(scores) >= 0.0)


def test_adults_for_whom_a_package_never_raises_silence_no_child_of_the_same_package() -> None:
    children = [aged("children", 0.3333, probability) for probability in (0.2, 0.4, 0.7, 0.9)]
    adults = [aged("adults", 0.2857, probability, may_raise=False) for probability in (0.1, 0.3, 0.95)]
    scores = patients(*children, *adults)
    assert scores.points == {"pneumonia": (0.3333,)}
    assert list(steps_of(scores) >= 0.0) == [False, True, True, True, False, False, False]
    step = smallest_step(scores, 1, 1.0)  # of 0.4, 0.7 and 0.9 one is to be left: just above 0.7
    assert step == pytest.approx(math.log(0.7 / 0.3) - math.log(0.3333 / 0.6667))
    assert proposed(scores, step) == {"pneumonia": 0.7001}
    assert list(flagged_by(scores, "pneumonia", 0.05)) == [True] * 4 + [False] * 3  # nor at any lower threshold


def test_results_from_before_it_was_kept_who_may_raise_are_judged_one_by_one() -> None:
    child = aged("", 0.3333, 0.9, may_raise=None)
    adult = replace(aged("", 0.2857, 0.9, may_raise=None), priority=TriagePriority.LOW)
    scores = patients(child, adult, aged("", 0.3333, 0.1, may_raise=None))
    assert list(steps_of(scores) >= 0.0) == [True, False, False]
    assert scores.points == {"pneumonia": (0.3333,)}


def test_each_study_is_raised_from_the_threshold_of_its_own_age_group() -> None:
    # Odds: 0.25 is 1:3, 0.5 is 1:1. Child 0.4 is 2:3, so twice its point; adult 0.75 is 3:1, three times its own.
    scores = patients(aged("children", 0.25, 0.4), aged("adults", 0.5, 0.75), aged("adults", 0.5, 0.4))
    assert scores.points == {"pneumonia": (0.25, 0.5)}
    assert steps_of(scores) == pytest.approx([math.log(2), math.log(3), math.log(2 / 3)])
    step = smallest_step(scores, 1, 1.0)
    assert step == pytest.approx(math.log(2))
    assert proposed(scores, step) == {"pneumonia": 0.6667}  # 2:1, of the higher; the settings have one for both
    assert list(flagged_by(scores, "pneumonia", 0.6667)) == [False, True, False]


def test_the_threshold_said_last_for_an_age_group_is_the_one_in_force_for_all_of_it() -> None:
    scores = patients(aged("children", 0.25, 0.4), aged("children", 0.5, 0.6))
    assert scores.points == {"pneumonia": (0.5,)}
    assert list(steps_of(scores) >= 0.0) == [False, True]


# --- the command ---


@pytest.fixture
def story(settings: Settings) -> Iterator[Story]:
    """Six days with three flagged studies each: 0.6, 0.7, 0.8."""
    ledger = open_ledger(settings)
    made, today = Story(ledger), date.today()
    for day in range(6):
        noon = datetime.combine(today - timedelta(days=10 - day), time(12)).timestamp()  # whenever this runs
        for n, probability in enumerate((0.6, 0.7, 0.8)):
            uid = f"1.2.{day}.{n}"
            made.image(said(probability), study=uid)
            with transaction(ledger._engine, write=True) as connection:
                connection.execute(
                    text("UPDATE studies SET first_received_at = :noon WHERE study_uid = :uid"),
                    {"noon": noon, "uid": uid},
                )
    yield made
    ledger.close()


def test_one_adult_with_a_finding_does_not_end_the_command(site: Path, story: Story, tmp_path: Path) -> None:
    story.image(aged("adults", 0.2857, 0.9, may_raise=False), study="1.3")
    done = run(site, "--per-day", "1", "--out", str(tmp_path / "out.csv"))
    assert done.exit_code == 0, done.output
    assert "pneumonia = 0.8001" in done.output
    assert rows(tmp_path / "out.csv")["all", "in force"]["most"] == "3"


def test_thresholds_of_several_ages_are_all_named_and_one_is_proposed(
    site: Path, settings: Settings, tmp_path: Path
) -> None:
    ledger = open_ledger(settings)
    for n, one in enumerate([aged("children", 0.25, 0.4), aged("adults", 0.5, 0.75), aged("adults", 0.5, 0.9)]):
        Story(ledger).image(one, study=f"1.4.{n}")
    ledger.close()
    site.write_text(site.read_text() + '\n[decide]\ndoubt_priority = "LOW"\n')
    done = run(site, "--per-day", "1", "--out", str(tmp_path / "out.csv"))
    found = rows(tmp_path / "out.csv")
    assert (found["pneumonia", "in force"]["threshold"], found["pneumonia", "in force"]["flagged"]) == (
        "0.25, 0.5",
        "3",
    )
    assert (found["pneumonia", "budget"]["threshold"], found["pneumonia", "budget"]["lost"]) == ("0.7501", "2")
    assert "pneumonia = 0.7501" in done.output


def run(site: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["alert-budget", *words, "-c", str(site)])


def rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    return {(row["finding"], row["what"]): row for row in csv.DictReader(path.read_text().splitlines()) if row["what"]}


def test_the_command_says_what_to_write_and_what_it_would_have_missed(site: Path, story: Story, tmp_path: Path) -> None:
    table = tmp_path / "truth.csv"
    lines = [f"1.2.{day}.{n},{int(n != 1)}" for day in range(6) for n in range(3)]
    table.write_text("study_instance_uid,pneumonia\n" + "\n".join(lines))
    done = run(site, "--per-day", "1", "--labels", str(table), "--out", str(tmp_path / "out.csv"))
    assert done.exit_code == 0, done.output
    assert "pneumonia = 0.8001" in done.output  # doubt_margin: 0.7 flags up to 0.8
    assert "days looked at: 4; flagged studies: " in done.output
    found = rows(tmp_path / "out.csv")
    assert found["all", "in force"]["mean"] == "3.0"
    assert found["all", "budget"]["mean"] == "1.0"
    assert found["pneumonia", "budget"]["lost"] == "12"
    assert found["pneumonia", "in force"]["sensitivity"].startswith("1.000 (0.757 to 1.000; 12 of 12)")
    assert found["pneumonia", "budget"]["sensitivity"].startswith("0.500 (0.254 to 0.746; 6 of 12)")
    assert found["pneumonia", "budget"]["ppv"].startswith("1.000")


def test_what_readers_said_counts_where_no_table_is_given(site: Path, story: Story, tmp_path: Path) -> None:
    [item] = story.ledger.study_instances("1.2.2.2")
    key = Judged("1.2.2.2", item.instance.instance_id, "chest-pneumonia", "1.0.0", "pneumonia")
    assert story.ledger.give_opinion(key, True, "anna")
    run(site, "--per-day", "1", "--out", str(tmp_path / "out.csv"))
    assert "(0.206 to 1.000; 1 of 1)" in rows(tmp_path / "out.csv")["pneumonia", "budget"]["sensitivity"]


def test_a_budget_that_is_kept_asks_for_nothing(site: Path, story: Story) -> None:
    assert "in force keep 5 flags a day" in run(site, "--per-day", "5").output.replace("\n", " ")
    nothing = run(site, "--per-day", "5", "--since", "1h")
    assert nothing.exit_code == 1
    assert "no stored study since then" in nothing.output

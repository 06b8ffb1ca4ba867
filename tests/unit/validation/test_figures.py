"""Figures of one label: what was not looked at is an error, the worst group is named, floors speak in sentences."""

from typing import Any

import numpy as np
import pytest

from validation.advice import ORDER, advise
from validation.checks import checked, status
from validation.figures import Evidence, from_present, label_figures
from validation.floors import FLOORS, Floor, overridden
from validation.groups import subgroups
from validation.judge import Judged


def evidence(n: int = 400, refused: int = 20, bad_site: float = 0.0, seed: int = 0) -> Evidence:
    """Half with the finding; found and left alone with 0.95; in site B `bad_site` of the findings are missed more."""
    rng = np.random.default_rng(seed)
    truth = (np.arange(n) % 2).astype(float)
    site = np.where(np.arange(n) % 4 < 2, "A", "B")
    right = rng.random(n) > np.where((site == "B") & (truth > 0), 0.05 + bad_site, 0.05)
    present = (truth > 0.5) == right
    probability = np.where(present, rng.uniform(0.5, 1.0, n), rng.uniform(0.0, 0.5, n))
    unseen = np.arange(n) < refused
    probability = np.where(unseen, np.nan, probability)
    sd = np.where(unseen, np.nan, np.where(right, 0.02, 0.2) + rng.uniform(0, 0.05, n))
    judged = Judged(
        score=probability, probability=probability, sd=sd, mutual_information=sd / 2, distance=np.full(n, np.nan),
        operating_point=np.where(unseen, np.nan, 0.5), present=present & ~unseen,
        reasons=tuple("outside_distribution" if u else "" for u in unseen),
    )  # fmt: skip
    return Evidence("pneumonia", truth, judged, tuple(str(i // 2) for i in range(n)), {"site": tuple(site)})


def whole(one: Evidence, **floors: float) -> dict[str, Any]:
    """validation.json as far as the advice needs it."""
    bounds = overridden(f"{name}={value}" for name, value in floors.items())
    part = label_figures(one, draws=100)
    part |= {"floors": checked(part, bounds), "groups": subgroups(one)}
    full = {"value": 1.0, "hits": 1, "n": 1, "wilson95": [0.2, 1.0]}
    figures: dict[str, Any] = {
        "labels": {"pneumonia": part},
        "images": {"read": full, "looked_at": full},
        "table": {
            "has_patients": True,
            "rows_without_patient": 0,
            "traits": ["age", "sex", "view", "site"],
            "labels_without_truth": [],
        },
    }
    return figures | {"recommendations": advise(figures, bounds)}


def test_what_was_not_looked_at_is_an_error_and_stands_apart():
    one = evidence(refused=20)
    counted = from_present(one.judged, one.truth)
    cells = counted["confusion"]
    assert sum(cells.values()) == 400
    assert (cells["refused_with"], cells["refused_without"]) == (10, 10)
    assert counted["sensitivity"]["n"] == counted["specificity"]["n"] == 200
    figures = label_figures(one, draws=50)
    assert figures["sensitivity"]["value"] < figures["of_those_looked_at"]["sensitivity"]["value"]
    assert figures["of_those_looked_at"]["accuracy"]["n"] == figures["auc_of_those_looked_at"]["n"] == 380
    assert figures["accuracy"]["n"] == 400
    assert figures["f1"] < figures["of_those_looked_at"]["f1"]


def test_nobody_looked_at_gives_counts_and_no_ranking():
    figures = label_figures(evidence(refused=400), draws=50)
    assert figures["sensitivity"]["value"] == 0.0
    assert "auc_of_those_looked_at" not in figures
    assert figures["of_those_looked_at"]["sensitivity"]["value"] is None


def test_an_ordering_that_is_not_there_is_not_compared():
    doubt = label_figures(evidence(), draws=50)["doubt"]
    assert "distance" not in doubt["orderings"]
    assert doubt["winner"] == "sd"
    assert doubt["orderings"]["sd"]["against_plain"] == "better"
    assert "entropy" not in doubt["orderings"], "it would compete with maximum probability, whose order is the same"


def test_the_group_that_is_failed_is_named_worst_and_advised_against():
    figures = whole(evidence(bad_site=0.5))
    groups = figures["labels"]["pneumonia"]["groups"]
    assert groups["traits"]["site"]["worst"] == "B"
    assert (groups["worst"]["trait"], groups["worst"]["group"]) == ("site", "B")
    texts = [advice["text"] for advice in figures["recommendations"] if advice["figure"] == "group_sensitivity"]
    assert len(texts) == 1
    assert "site B" in texts[0]
    assert "site A" not in texts[0]


def test_a_small_group_that_is_failed_is_named_worst_with_its_numbers_and_marked():
    one = evidence(refused=0, bad_site=0.3)
    names = np.where(np.arange(400) < 10, "C", np.array(one.traits["site"]))
    present = one.judged.present & (names != "C")
    judged = Judged(**{**vars(one.judged), "present": present})
    groups = subgroups(Evidence("pneumonia", one.truth, judged, one.patients, {"site": tuple(names)}))
    assert groups["traits"]["site"]["worst"] == "C"
    worst = groups["worst"]
    assert (worst["group"], worst["small"], worst["images"], worst["sensitivity"]["value"]) == ("C", True, 10, 0.0)
    assert worst["sensitivity"]["wilson95"] == [0.0, 0.4345]
    assert groups["worst_not_small"]["group"] == "B", "chance alone must not hide a large group that is failed"


def test_a_group_of_one_kind_only_can_be_the_worst():
    one = evidence(refused=0)
    names = np.where((np.arange(400) < 24) & (one.truth > 0.5), "C", np.array(one.traits["site"]))
    judged = Judged(**{**vars(one.judged), "present": one.judged.present & (names != "C")})
    worst = subgroups(Evidence("pneumonia", one.truth, judged, one.patients, {"site": tuple(names)}))["worst"]
    assert (worst["group"], worst["specificity"]["value"], worst["auc"]) == ("C", None, None)


def test_a_small_group_under_its_floor_is_advised_on_even_so():
    one = evidence(refused=0)
    names = np.where(np.arange(400) < 10, "C", np.array(one.traits["site"]))
    right = np.array([3, 4, 5]) if one.truth[3] else np.array([])
    present = np.where(names == "C", np.isin(np.arange(400), right), one.judged.present)
    judged = Judged(**{**vars(one.judged), "present": present})
    figures = whole(Evidence("pneumonia", one.truth, judged, one.patients, {"site": tuple(names)}))
    (advice,) = [one for one in figures["recommendations"] if one["figure"] == "group_sensitivity"]
    assert advice["severity"] == "too_few"
    assert "site C 0.400 (2 of 5; 95 % interval" in advice["text"]


@pytest.mark.parametrize(
    ("floors", "severity", "words"),
    [
        ({"sensitivity": 0.99}, "missed", "under its floor of 0.99"),
        ({"sensitivity": 0.93}, "reached_not_proven", "this many images cannot show"),
        ({"calibration_error": 0.0}, "missed", "over its ceiling of 0"),
        ({"images_with": 500}, "few_images", "Only 200 images with the finding (500 are asked for)"),
    ],
)
def test_a_figure_under_its_floor_is_a_sentence(floors: dict[str, float], severity: str, words: str):
    figures = whole(evidence(refused=0), **floors)
    (name,) = floors
    (advice,) = [one for one in figures["recommendations"] if one["figure"] == name]
    assert advice["severity"] == severity
    assert words in advice["text"]


def separated(n: int) -> Evidence:
    """n images with the finding and n without, all judged rightly and far apart."""
    truth = (np.arange(2 * n) % 2).astype(float)
    probability = 0.05 + 0.9 * truth + np.linspace(0, 0.04, 2 * n)
    judged = Judged(
        score=probability, probability=probability, sd=probability * 0, mutual_information=probability * 0,
        distance=truth * np.nan, operating_point=truth * 0 + 0.5, present=truth > 0.5, reasons=("",) * (2 * n),
    )  # fmt: skip
    return Evidence("pneumonia", truth, judged, tuple(str(i) for i in range(2 * n)), {})


@pytest.mark.parametrize(("n", "word"), [(6, "too_few"), (12, "reached_not_proven"), (60, "met")])
def test_perfect_separation_of_few_images_proves_no_floor(n: int, word: str):
    floors = whole(separated(n))["labels"]["pneumonia"]["floors"]
    assert {name: floors[name]["status"] for name in ("sensitivity", "specificity", "auc")} == {
        "sensitivity": word, "specificity": word, "auc": word,
    }  # fmt: skip
    assert floors["auc"]["interval95"][0] < floors["auc"]["value"] == 1.0
    assert floors["sensitivity_at_90_specificity"]["interval95"][0] < 1.0


@pytest.mark.parametrize(
    ("value", "interval", "patients", "word"),
    [
        (0.95, [0.91, 0.99], 50, "met"),
        (0.95, [0.89, 0.99], 50, "reached_not_proven"),
        (0.95, None, 50, "reached_not_proven"),
        (0.85, [0.80, 0.95], 50, "missed"),
        (0.95, [0.91, 0.99], 9, "too_few"),
        (0.85, [0.80, 0.95], 9, "too_few"),
        (0.30, [0.10, 0.60], 9, "missed"),
        (None, None, 0, "unknown"),
    ],
)
def test_a_floor_is_met_only_by_the_whole_interval(value: Any, interval: Any, patients: int, word: str):
    assert status(value, interval, Floor(0.9, "AUC"), patients) == word
    error, span = (
        (None if value is None else 1 - value),
        (None if interval is None else [1 - x for x in interval[::-1]]),
    )
    assert status(error, span, Floor(0.1, "Error", at_most=True), patients) == word


def test_no_other_operating_point_is_advised_where_refusals_are_the_cause():
    (advice,) = [one for one in whole(evidence(refused=150))["recommendations"] if one["figure"] == "sensitivity"]
    assert "not looked at" in advice["text"]
    assert "decide.thresholds" not in advice["text"]


def test_the_gravest_comes_first():
    order = [one["severity"] for one in whole(evidence(refused=150), images_with=500)["recommendations"]]
    assert order == sorted(order, key=ORDER.index)


@pytest.mark.parametrize("option", ["speed=1", "auc", "auc=high", "auc=1.5", "images_with=-1"])
def test_a_floor_that_is_none_is_refused_by_name(option: str):
    with pytest.raises(ValueError, match=f"--floor {option}"):
        overridden([option])


def test_floors_change_one_at_a_time():
    floors = overridden(["auc=0.95"])
    assert floors["auc"].value == 0.95
    assert {name for name in FLOORS if floors[name] != FLOORS[name]} == {"auc"}

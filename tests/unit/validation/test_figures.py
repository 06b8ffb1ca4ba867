"""Figures of one label: what was not looked at is an error, the worst group is named, floors speak in sentences."""

from typing import Any

import numpy as np
import pytest

from validation.advice import advise, checked
from validation.figures import Evidence, from_present, label_figures
from validation.floors import FLOORS, overridden
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
        "table": {"has_patients": True, "traits": ["age", "sex", "view", "site"], "labels_without_truth": []},
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
    assert doubt["orderings"]["entropy"]["aurc"] == doubt["orderings"]["max_probability"]["aurc"]


def test_the_group_that_is_failed_is_named_worst_and_advised_against():
    figures = whole(evidence(bad_site=0.5))
    groups = figures["labels"]["pneumonia"]["groups"]
    assert groups["traits"]["site"]["worst"] == "B"
    assert (groups["worst"]["trait"], groups["worst"]["group"]) == ("site", "B")
    texts = [advice["text"] for advice in figures["recommendations"] if advice["figure"] == "group_sensitivity"]
    assert len(texts) == 1
    assert "site B" in texts[0]
    assert "site A" not in texts[0]


def test_a_small_group_is_marked_and_never_named_worst():
    one = evidence(refused=0)
    names = np.where(np.arange(400) < 10, "C", np.array(one.traits["site"]))
    present = one.judged.present & (names != "C")
    judged = Judged(**{**vars(one.judged), "present": present})
    groups = subgroups(Evidence("pneumonia", one.truth, judged, one.patients, {"site": tuple(names)}))
    small = groups["traits"]["site"]["groups"][2]
    assert (small["group"], small["small"], small["sensitivity"]["value"]) == ("C", True, 0.0)
    assert groups["worst"]["group"] != "C"


@pytest.mark.parametrize(
    ("floors", "severity", "words"),
    [
        ({"sensitivity": 0.99}, "below", "under its floor of 0.99"),
        ({"sensitivity": 0.93}, "not_shown", "this many images cannot show"),
        ({"calibration_error": 0.0}, "below", "over its ceiling of 0"),
        ({"images_with": 500}, "not_shown", "Only 200 images with the finding (500 are asked for)"),
    ],
)
def test_a_figure_under_its_floor_is_a_sentence(floors: dict[str, float], severity: str, words: str):
    figures = whole(evidence(refused=0), **floors)
    (name,) = floors
    (advice,) = [one for one in figures["recommendations"] if one["figure"] == name]
    assert advice["severity"] == severity
    assert words in advice["text"]


def test_no_other_operating_point_is_advised_where_refusals_are_the_cause():
    (advice,) = [one for one in whole(evidence(refused=150))["recommendations"] if one["figure"] == "sensitivity"]
    assert "not looked at" in advice["text"]
    assert "decide.thresholds" not in advice["text"]


def test_the_gravest_comes_first():
    order = [one["severity"] for one in whole(evidence(refused=150), images_with=500)["recommendations"]]
    assert order == sorted(order, key=("below", "not_shown", "note").index)


@pytest.mark.parametrize("option", ["speed=1", "auc", "auc=high", "auc=1.5", "images_with=-1"])
def test_a_floor_that_is_none_is_refused_by_name(option: str):
    with pytest.raises(ValueError, match=f"--floor {option}"):
        overridden([option])


def test_floors_change_one_at_a_time():
    floors = overridden(["auc=0.95"])
    assert floors["auc"].value == 0.95
    assert {name for name in FLOORS if floors[name] != FLOORS[name]} == {"auc"}

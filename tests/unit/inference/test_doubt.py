"""Calibration by knots, the figures of doubt, and an abstention that never hides an alarm."""

import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from config.settings import DecideSettings, RecommendSettings
from inference.abstain import doubtful_labels, weighed
from inference.decide import Decision, decide
from inference.doubt import figure_of_doubt
from inference.errors import CannotLook
from inference.findings import calibrate, findings_of
from inference.manifest import Calibration, Doubt, Manifest, parse_manifest
from ledger.records import Finding, TriagePriority
from tests.support.packages import PASSES, label, write_package
from tests.unit.inference.test_decide import finding

SETTINGS = DecideSettings()
HIGH, MEDIUM, LOW = TriagePriority.HIGH, TriagePriority.MEDIUM, TriagePriority.LOW
KNOTS = ((0.1, 0.02), (0.4, 0.3), (0.5, 0.3), (0.9, 0.97))


# --- isotonic


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0.0, 0.02), (0.1, 0.02), (0.25, 0.16), (0.45, 0.3), (0.7, 0.635), (0.9, 0.97), (1.0, 0.97)],
)
def test_isotonic_is_linear_between_its_knots_and_level_beyond_them(score: float, expected: float) -> None:
    calibration = Calibration(method="isotonic", knots=KNOTS)
    assert calibrate(np.array([score], np.float32), calibration) == pytest.approx([expected], abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "isotonic"},
        {"method": "platt", "knots": KNOTS},
        {"method": "isotonic", "knots": ((0.4, 0.2), (0.4, 0.3))},
        {"method": "isotonic", "knots": ((0.1, 0.5), (0.4, 0.3))},
    ],
)
def test_knots_that_do_not_rise_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="knots"):
        Calibration(**wrong)


# --- figures of doubt

PASSES_OF = np.array([[0.1, 0.3], [0.5, 0.5], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("sd", [0.1, 0.0, 0.5]),
        ("max_probability", [0.2, 0.5, 0.5]),
        ("entropy", [-0.2 * math.log(0.2) - 0.8 * math.log(0.8), math.log(2), math.log(2)]),
        ("mutual_information", [0.5004024 - (0.3250830 + 0.6108643) / 2, 0.0, math.log(2)]),
        ("distance", [3.0, 1.0, 2.0]),
    ],
)
def test_each_figure_is_what_its_name_says(by: Doubt, expected: list[float]) -> None:
    assert figure_of_doubt(by, PASSES_OF, np.array([3.0, 1.0, 2.0])) == pytest.approx(expected, abs=1e-5)


def test_a_distance_that_is_not_there_is_not_made_up() -> None:
    with pytest.raises(ValueError, match="distance"):
        figure_of_doubt("distance", PASSES_OF)


def manifest(tmp_path: Path, by: str = "sd", threshold: float = 0.1, **options: Any) -> Manifest:
    rule = {"by": by, "threshold": threshold, "coverage": 0.95, "text": "tests"}
    folder = write_package(tmp_path, abstention=rule, **options)
    return parse_manifest((folder / "manifest.json").read_bytes())


def test_a_finding_carries_the_figures_that_the_rule_weighs(tmp_path: Path) -> None:
    scores = np.linspace(0.2, 0.6, PASSES, dtype=np.float32)[:, np.newaxis]
    spec = manifest(tmp_path)
    (found,) = findings_of(scores, None, spec, SETTINGS, (9, 9))
    passes = calibrate(scores[:, 0], spec.labels[0].calibration)
    figures: dict[Doubt, float] = {
        "sd": found.probability_sd,
        "entropy": found.entropy,
        "mutual_information": found.mutual_information,
        "max_probability": 1.0 - max(found.probability, 1.0 - found.probability),
    }
    for by, value in figures.items():
        assert float(figure_of_doubt(by, passes)) == pytest.approx(value)
    assert set(figures) | {"distance"} == set(get_args(Doubt))


# --- abstention


@pytest.mark.parametrize(("spread", "doubtful"), [(0.0, False), (0.15, False), (0.3, True)])
def test_beyond_the_threshold_a_label_is_doubtful(tmp_path: Path, spread: float, doubtful: bool) -> None:
    scores = np.linspace(0.3 - spread, 0.3 + spread, PASSES, dtype=np.float32)[:, np.newaxis]
    assert doubtful_labels(manifest(tmp_path), scores, None) == (frozenset({"pneumonia"}) if doubtful else frozenset())


def test_without_a_rule_nothing_is_doubtful(tmp_path: Path) -> None:
    plain = manifest(tmp_path).model_copy(update={"abstention": None})
    assert doubtful_labels(plain, np.array([[0.0], [1.0]], np.float32), 99.0) == frozenset()


@pytest.mark.parametrize(("distance", "doubtful"), [(2.0, False), (2.1, True), (math.nan, True)])
def test_a_distance_can_be_the_doubt(tmp_path: Path, distance: float, doubtful: bool) -> None:
    spec = manifest(tmp_path, "distance", 2.0, gate_threshold=9.0)
    assert bool(doubtful_labels(spec, np.full((PASSES, 1), 0.3, np.float32), distance)) is doubtful


def test_a_distance_without_a_gate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a gate"):
        manifest(tmp_path, "distance", 2.0)


def decided(*findings: Finding, may_raise: bool = True) -> Decision:
    return decide(findings, "CHEST", may_raise, SETTINGS, RecommendSettings())


def test_a_doubtful_nothing_found_is_an_abstention() -> None:
    with pytest.raises(CannotLook) as caught:
        weighed((finding("pneumonia", 0.1),), frozenset({"pneumonia"}), lambda found: decided(*found))
    assert caught.value.reason_code == "abstained"
    assert "cannot assess" in caught.value.reason


def test_what_is_not_doubtful_stands_as_it_is() -> None:
    found = (finding("pneumonia", 0.1), finding("fracture", 0.9))
    assert weighed(found, frozenset(), lambda found: decided(*found)) == (found, decided(*found))
    assert weighed(found[1:], frozenset({"pneumonia"}), lambda found: decided(*found)) == (found[1:], decided(found[1]))


def test_doubt_never_lowers_what_was_asked_for() -> None:
    """Every probability, sd, right to raise and doubt: a priority above LOW and a present finding survive."""
    for probability, sd, may_raise in product(np.linspace(0, 1, 41), (0.0, 0.1, 0.2), (True, False)):
        found = (finding("pneumonia", float(probability), sd=sd), finding("fracture", 0.05))
        before = decided(*found, may_raise=may_raise)
        stands = before.priority is not LOW or any(one.present for one in found)
        try:
            after, decision = weighed(found, frozenset({"pneumonia"}), lambda f: decided(*f, may_raise=may_raise))  # noqa: B023
        except CannotLook:
            assert not stands, (probability, sd, may_raise)
            continue
        assert stands
        assert decision.priority.rank <= before.priority.rank
        assert after[0].present is found[0].present


@pytest.mark.parametrize(("probability", "priority"), [(0.95, HIGH), (0.6, MEDIUM)])
def test_an_alarm_in_doubt_stays_and_says_so(probability: float, priority: TriagePriority) -> None:
    found = finding("pneumonia", probability)
    (marked,), decision = weighed((found,), frozenset({"pneumonia"}), lambda found: decided(*found))
    assert marked == replace(found, in_doubt=True)
    assert decision.priority is priority
    assert RecommendSettings().doubt in decision.recommendations


def test_an_age_group_may_have_a_rule_of_its_own(tmp_path: Path) -> None:
    own = {"by": "entropy", "threshold": 0.5, "coverage": 0.9, "text": "adults"}
    groups = [
        {"name": "children", "ages_years": [1, 6], "labels": [label()], "may_raise_priority": True},
        {"name": "adults", "ages_years": [18, 90], "labels": [label()], "may_raise_priority": False, "abstention": own},
    ]
    spec = manifest(tmp_path, reads={"ages_years": None}, age_groups=groups)
    rules = [spec.at_age(age).abstention for age in (3.0, 40.0, None)]
    assert [rule and rule.by for rule in rules] == ["sd", "entropy", "sd"]

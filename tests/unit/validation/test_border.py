"""Perfect separation of few images is no proof: intervals at the border have a width and cover as often as they say."""

from statistics import NormalDist

import numpy as np
import pytest

from validation.border import Kinds, honest_area, honest_share, newcombe, variance
from validation.roc import auc, auc_by_group, delong_interval, sensitivity_at


def separated(ill: int, well: int) -> tuple[np.ndarray, np.ndarray]:
    truth = np.r_[np.ones(ill), np.zeros(well)]
    return truth, truth + np.linspace(0.0, 0.1, ill + well)


@pytest.mark.parametrize("area", [0.0, 0.3, 0.8, 0.97, 1.0])
def test_the_ends_solve_the_equation_of_the_score_interval(area: float):
    """Newcombe 2006, method 5: (found - end)^2 = 1.96^2 V(end)."""
    kinds = Kinds(13, 43)
    for end in newcombe(area, kinds):
        if 0.0 < end < 1.0:
            assert (area - end) ** 2 == pytest.approx(1.959964**2 * variance(end, kinds), rel=0.02)
    low, high = newcombe(area, kinds)
    assert [1 - high, 1 - low] == pytest.approx(newcombe(1 - area, Kinds(43, 13)), abs=2e-4)
    assert low <= area <= high


def test_the_variance_is_hanley_and_mcneils_where_the_kinds_are_alike():
    a, n = 0.9, 20
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    theirs = (a * (1 - a) + (n - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (n * n)
    assert variance(a, Kinds(n, n)) == pytest.approx(theirs)


@pytest.mark.parametrize("true", [0.9, 0.98])
def test_ten_of_each_kind_are_covered_near_the_border_where_delong_is_not(true: float):
    rng, draws = np.random.default_rng(0), 300
    truth = np.r_[np.ones(10), np.zeros(10)]
    scores = truth * NormalDist().inv_cdf(true) * 2**0.5 + rng.normal(size=(draws, 20))
    found = [newcombe(auc(truth, score), Kinds(10, 10)) for score in scores]
    delong = [delong_interval(truth, score) or (1.0, 1.0) for score in scores]
    assert np.mean([low <= true <= high for low, high in found]) >= 0.94
    assert np.mean([low <= true <= high for low, high in delong]) < 0.9


def test_perfect_separation_has_a_lower_bound_that_rises_with_the_patients():
    lows = []
    for n in (5, 10, 30, 100):
        truth, score = separated(n, n)
        found = auc_by_group(truth, score, [str(i) for i in range(2 * n)], draws=50)
        assert found["bootstrap95_by_patient"] == [1.0, 1.0]
        assert found["delong95"] is None
        lows.append(found["interval95"][0])
    assert lows == sorted(lows)
    assert lows == pytest.approx([0.64, 0.80, 0.93, 0.98], abs=0.01)


def test_patients_count_and_not_their_images():
    truth, score = separated(40, 40)
    groups = [str(i // 8) for i in range(80)]
    assert auc_by_group(truth, score, groups, draws=50)["interval95"] == newcombe(1.0, Kinds(5, 5))
    assert Kinds.of(np.array([1.0, 0.0, 1.0]), ["a", "a", "b"]) == Kinds(2, 1)


def test_away_from_the_border_the_bootstrap_stands():
    rng = np.random.default_rng(1)
    truth = np.r_[np.ones(100), np.zeros(100)]
    found = auc_by_group(truth, truth + rng.normal(size=200), [str(i) for i in range(200)], draws=200)
    assert found["interval95"] == found["bootstrap95_by_patient"]
    assert found["interval_by"] == "patient bootstrap"


def test_few_patients_never_narrow_what_was_drawn():
    assert honest_area(0.8, [0.2, 0.99], Kinds(4, 50), "x")["interval95"][0] == 0.2
    assert honest_share(1.0, [1.0, 1.0], Kinds(10, 500), "x")["interval95"] == [0.7225, 1.0]
    assert honest_area(float("nan"), None, Kinds(0, 3), "x")["interval95"] is None


def test_sensitivity_at_a_specificity_has_a_width_too():
    truth, score = separated(12, 40)
    found = sensitivity_at(truth, score, [str(i) for i in range(52)], draws=50)
    assert found["value"] == 1.0
    assert found["interval95"] == [0.7575, 1.0]

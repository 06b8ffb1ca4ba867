"""Figures are what the literature says they are."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from validation.bootstrap import bootstrap, draws_of, image_weights
from validation.roc import auc, auc_by_group, curve, delong_covariance, delong_interval, delong_test, sensitivity_at
from validation.statistics import brier, expected_calibration_error, f1, proportion, reliability, wilson

RNG = np.random.default_rng


def readings(n: int = 120, seed: int = 0) -> tuple[Any, Any]:
    """Truth and a score with ties."""
    rng = RNG(seed)
    truth = (rng.random(n) < 0.4).astype(float)
    return truth, np.round(truth * 0.8 + rng.normal(size=n), 1)


def by_pairs(truth: Any, score: Any) -> float:
    """AUC as defined: every image with the finding against every one without."""
    ill, well = score[truth > 0.5], score[truth < 0.5]
    return float(((ill[:, None] > well) + 0.5 * (ill[:, None] == well)).mean())


def test_wilson_is_newcombes_published_example():
    """Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (hits, n), limits in published.items():
        assert wilson(hits, n) == pytest.approx(limits, abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert proportion(0, 0)["value"] is None


def test_the_area_is_the_share_of_pairs_in_order():
    truth, score = readings()
    assert auc(truth, score) == pytest.approx(by_pairs(truth, score), abs=1e-12)
    assert math.isnan(auc(np.ones(4), np.arange(4.0)))


def test_delong_is_the_formula_of_1988():
    """S10 and S01 of the paper, from the kernel over every pair, for two readers of the same images."""
    truth, one = readings()
    _, other = readings(seed=1)
    scores = np.stack([one, other])
    ill, well = scores[:, truth > 0.5], scores[:, truth < 0.5]
    kernel = (ill[:, :, None] > well[:, None, :]) + 0.5 * (ill[:, :, None] == well[:, None, :])
    m, n = kernel.shape[1:]
    s10, s01 = np.cov(kernel.mean(axis=2)), np.cov(kernel.mean(axis=1))
    areas, covariance = delong_covariance(truth, scores)
    assert areas == pytest.approx([by_pairs(truth, one), by_pairs(truth, other)], abs=1e-12)
    assert covariance == pytest.approx(s10 / m + s01 / n, abs=1e-12)


def test_delongs_test_finds_a_difference_and_finds_none():
    rng = RNG(2)
    truth = (rng.random(600) < 0.5).astype(float)
    good, poor = truth * 2 + rng.normal(size=600), truth * 0.4 + rng.normal(size=600)
    twin = good * 3 - 1
    assert delong_test(truth, good, poor)["p"] < 1e-6
    assert delong_test(truth, good, twin) == {"difference": 0.0, "z": None, "p": 1.0}


def test_delong_covers_the_true_area_about_95_times_of_100():
    """Two normal distributions one sd apart: the area is Phi(1 / sqrt 2) = 0.7602."""
    rng, inside = RNG(3), 0
    for _ in range(300):
        truth = np.r_[np.ones(60), np.zeros(60)]
        low, high = delong_interval(truth, truth + rng.normal(size=120)) or (1.0, 0.0)
        inside += low <= 0.7602 <= high
    assert 0.91 <= inside / 300 <= 0.98


def test_a_weighted_draw_is_the_area_of_the_drawn_images():
    truth, score = readings(40)
    groups = [str(i // 3) for i in range(40)]
    seen: list[float] = []

    def watch(weights: Any) -> Any:
        from validation.roc import _WeightedAuc

        found = _WeightedAuc(truth, score)(weights)
        for row, value in zip(weights, found, strict=True):
            drawn = np.repeat(np.arange(40), row.astype(int))
            seen.append(abs(value - by_pairs(truth[drawn], score[drawn])))
        return found

    bootstrap(watch, groups, draws=25)
    assert len(seen) == 25
    assert max(seen) < 1e-12


def test_a_draw_takes_all_images_of_a_patient_or_none():
    groups = ["a", "b", "a", "c", "b", "a"]
    weights = np.concatenate(list(image_weights(groups, 50, seed=5)))
    assert weights.shape == (50, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 5]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert (draws_of(7, 9, 1).sum(axis=1) == 7).all()


def test_copies_of_an_image_make_no_interval_narrower():
    truth, score = readings(80)
    groups = [str(i) for i in range(80)]
    once = auc_by_group(truth, score, groups)["bootstrap95_by_patient"]
    five = auc_by_group(np.tile(truth, 5), np.tile(score, 5), groups * 5)["bootstrap95_by_patient"]
    assert five[1] - five[0] == pytest.approx(once[1] - once[0], rel=0.1)


def test_large_sets_are_drawn_in_blocks_and_say_the_same(monkeypatch: pytest.MonkeyPatch):
    truth, score = readings(200)
    groups = [str(i) for i in range(200)]
    whole = auc_by_group(truth, score, groups, draws=600)["bootstrap95_by_patient"]
    monkeypatch.setattr("validation.bootstrap.BLOCK", 5000)
    cut = auc_by_group(truth, score, groups, draws=600)["bootstrap95_by_patient"]
    assert cut == pytest.approx(whole, abs=0.03)


def test_sensitivity_at_a_specificity_is_the_best_threshold_that_keeps_it():
    truth, score = readings(300)
    found = sensitivity_at(truth, score, [str(i) for i in range(300)], 0.9)
    ill, well = score[truth > 0.5], score[truth < 0.5]
    best = max((ill >= t).mean() for t in np.unique(score) if (well < t).mean() >= 0.9)
    assert found["value"] == pytest.approx(best, abs=1e-4)
    assert (well < found["threshold"]).mean() >= 0.9
    low, high = found["bootstrap95_by_patient"]
    assert low <= best <= high


def test_curves_end_with_everything_called():
    truth, score = readings(50)
    points = curve(truth, score)
    assert points["hits"][-1] == truth.sum()
    assert points["false_alarms"][-1] == (1 - truth).sum()
    assert (np.diff(points["threshold"]) < 0).all()


def test_the_honest_is_calibrated_and_the_boaster_is_not():
    rng = RNG(4)
    said = rng.random(20000)
    truth = (rng.random(20000) < said).astype(float)
    assert expected_calibration_error(truth, said) < 0.02
    assert expected_calibration_error(truth, np.where(said > 0.5, 0.99, 0.01)) == pytest.approx(0.24, abs=0.02)
    assert brier(truth, np.full(20000, 0.5)) == pytest.approx(0.25)
    bins = reliability(truth, said)
    assert sum(row["observed"]["n"] for row in bins) == 20000
    assert all(abs(row["stated"] - row["observed"]["value"]) < 0.05 for row in bins)


@pytest.mark.parametrize(("counts", "value"), [((8, 2, 2), 0.8), ((0, 3, 0), 0.0), ((0, 0, 0), None), ((3, 0, 0), 1.0)])
def test_f1(counts: tuple[int, int, int], value: float | None):
    assert f1(*counts) == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    "figure",
    [
        lambda t, s, g: auc_by_group(t, s, g)["value"],
        lambda t, s, g: sensitivity_at(t, s, g)["value"],
        lambda t, s, g: delong_interval(t, s),
        lambda t, s, g: auc_by_group(t, s, g)["bootstrap95_by_patient"],
    ],
)
def test_one_kind_of_image_alone_gives_no_figure(figure: Callable[..., object]):
    assert figure(np.zeros(5), np.arange(5.0), list("abcde")) is None
    assert figure(np.zeros(0), np.zeros(0), []) is None

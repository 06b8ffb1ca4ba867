"""Calibration, operating point, gate and statistics do what their words say."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.packaging.baseline import ALPHAS, thumbnail_scores
from training.packaging.calibrate import TARGET_SENSITIVITY, Scaling, choose_point, fit_scaling
from training.packaging.gate_fit import choose_threshold, fit_distribution
from validation.statistics import (
    auc_by_group,
    brier,
    expected_calibration_error,
    proportion,
    wilson,
)


def test_a_temperature_that_was_put_in_is_found_again():
    rng = np.random.default_rng(0)
    true_logit = rng.normal(0, 2.0, 4000)
    truth = (rng.random(4000) < 1 / (1 + np.exp(-true_logit))).astype(float)
    scores = 1 / (1 + np.exp(-(true_logit[:, None] * 2.5 + 0.8)))  # too sure by 2.5, and shifted
    scaling = fit_scaling(np.repeat(scores, 3, axis=1), truth)
    assert scaling.temperature == pytest.approx(2.5, rel=0.12)
    assert scaling.bias == pytest.approx(-0.8 / 2.5, abs=0.12)
    calibrated = scaling.apply(scores)[:, 0]
    assert brier(truth, calibrated) < brier(truth, scores[:, 0])


def test_each_pass_is_calibrated_before_the_mean():
    scores = np.array([[0.2, 0.9]])
    passes = Scaling(0.5, 0.0).apply(scores)
    assert passes.mean() != pytest.approx(Scaling(0.5, 0.0).apply(scores.mean(axis=1)).item(), abs=1e-3)


def test_the_point_is_the_highest_that_finds_enough():
    rng = np.random.default_rng(1)
    truth = np.r_[np.ones(300), np.zeros(300)]
    easy = np.r_[rng.uniform(0.6, 1.0, 300), rng.uniform(0.0, 0.4, 300)]
    assert choose_point(easy, truth).threshold == 0.5
    hard = np.r_[rng.uniform(0.22, 1.0, 300), rng.uniform(0.0, 0.6, 300)]
    point = choose_point(hard, truth)
    assert point.threshold < 0.34
    assert point.sensitivity >= TARGET_SENSITIVITY
    assert point.specificity == pytest.approx((hard[300:] < point.threshold).mean(), abs=1e-4)


def test_the_gate_refuses_its_share_and_what_lies_elsewhere():
    rng = np.random.default_rng(2)
    axes = rng.normal(size=(5, 40))
    train, held_out = (rng.normal(size=(n, 5)) @ axes + rng.normal(scale=0.1, size=(n, 40)) for n in (600, 400))
    distribution = fit_distribution(train.astype(np.float32), held_out.astype(np.float32), components=5)
    distance = distribution.distance(held_out.astype(np.float32))
    threshold = choose_threshold(distance, 0.01)
    assert (distance > threshold).mean() == pytest.approx(0.01, abs=0.0051)
    far_along = (6.0 * axes[0])[None].astype(np.float32)
    off_axis = rng.normal(scale=2.0, size=(1, 40)).astype(np.float32)
    assert distribution.distance(far_along)[0] > threshold
    assert distribution.distance(off_axis)[0] > threshold


def test_wilson_matches_a_published_example():
    """Newcombe 1998: 81 of 263 gives 0.2553 to 0.3662."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == pytest.approx(1.0)
    assert proportion(3, 4)["value"] == 0.75


def test_the_bootstrap_draws_whole_patients():
    """Copies of a patient's image add nothing: the interval stays that of the patients."""
    rng = np.random.default_rng(3)
    truth = np.r_[np.ones(40), np.zeros(40)]
    score = truth + rng.normal(0, 1.0, 80)
    groups = [str(i) for i in range(80)]
    single = auc_by_group(truth, score, groups, draws=300)
    copied = auc_by_group(np.tile(truth, 5), np.tile(score, 5), groups * 5, draws=300)
    (a, b), (c, d) = single["bootstrap95_by_patient"], copied["bootstrap95_by_patient"]
    assert d - c == pytest.approx(b - a, rel=0.25)


def test_calibration_error_of_the_honest_is_small_and_of_the_boaster_large():
    rng = np.random.default_rng(4)
    probability = rng.random(5000)
    truth = (rng.random(5000) < probability).astype(float)
    assert expected_calibration_error(truth, probability) < 0.03
    assert expected_calibration_error(truth, np.where(probability > 0.5, 0.99, 0.01)) > 0.15


def test_the_thumbnail_baseline_sees_brightness_alone():
    rng = np.random.default_rng(5)
    truth = (rng.random(200) < 0.5).astype(float)
    pixels = (rng.random((200, 32, 32)) * 60 + truth[:, None, None] * 60).astype(np.uint8)
    scores = thumbnail_scores(pixels[:100], truth[:100], pixels[100:])
    assert (scores[truth[100:] > 0.5].min()) > scores[truth[100:] < 0.5].max()


def test_the_ridge_is_that_of_scikit_learn():
    from sklearn.linear_model import RidgeCV

    rng = np.random.default_rng(6)
    truth = (rng.random(150) < 0.6).astype(float)
    pixels = (rng.random((150, 8, 8)) * 200 + truth[:, None, None] * 30).astype(np.uint8)
    rows = pixels.reshape(150, -1) / 255.0
    theirs = RidgeCV(alphas=ALPHAS).fit(rows[:100], truth[:100]).predict(rows[100:])
    assert thumbnail_scores(pixels[:100], truth[:100], pixels[100:]) == pytest.approx(theirs, abs=1e-9)


def test_areas_are_those_of_scikit_learn_and_p_that_of_scipy():
    from scipy.stats import norm, rankdata
    from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

    from validation.roc import auc, average_precision, curve, midranks, p_of

    rng = np.random.default_rng(7)
    truth = (rng.random(500) < 0.3).astype(float)
    score: NDArray[np.float64] = np.clip(np.round(0.3 * truth + rng.normal(0.4, 0.2, 500), 2), 0.0, 1.0)  # with ties
    assert auc(truth, score) == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert average_precision(truth, score) == pytest.approx(average_precision_score(truth, score), abs=1e-12)
    assert brier(truth, score) == pytest.approx(brier_score_loss(truth, score), abs=1e-12)
    assert midranks(score) == pytest.approx(rankdata(score), abs=0)
    assert p_of(-1.7) == pytest.approx(2 * norm.sf(1.7), abs=1e-12)
    false, true, _ = roc_curve(truth, score, drop_intermediate=False)
    ours = curve(truth, score)
    assert ours["hits"] / truth.sum() == pytest.approx(true[1:])
    assert ours["false_alarms"] / (1 - truth).sum() == pytest.approx(false[1:])


def test_a_point_that_misses_its_target_says_so():
    truth = np.r_[np.ones(100), np.zeros(100)]
    unseen = np.r_[np.full(10, 0.01), np.full(90, 0.9), np.full(100, 0.02)]  # a tenth of the cases lies with the well
    point = choose_point(unseen, truth)
    assert (point.threshold, point.sensitivity) == (0.05, 0.9)
    assert "none of" in point.chosen_on
    assert "none of" not in choose_point(unseen, truth, 0.9).chosen_on

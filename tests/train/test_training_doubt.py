"""Which calibration, which figure of doubt and which threshold the calibration split chooses."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from inference.abstain import doubtful_labels
from inference.findings import calibrate
from inference.manifest import Calibration, CodeSpec, LabelSpec, OperatingPoint
from training.packaging.abstain import choose_abstention, threshold_at
from training.packaging.calibrate import choose_calibration, fit_calibration, folds, held_out_loss
from training.packaging.isotonic import MOST_KNOTS
from validation.doubt import aurc

pytestmark = pytest.mark.train


def sample(n=900, seed=0, bend=None):
    """Passes (n, 3) of a model, truth (n,), patients of three images each."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0.0, 1.5, n)
    truth = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(float)
    said = logit if bend is None else bend(logit)
    scores = 1 / (1 + np.exp(-(said[:, None] + rng.normal(0, 0.05, (n, 3)))))
    return scores, truth, [f"p{i // 3}" for i in range(n)]


@pytest.mark.parametrize(
    ("bend", "method"),
    [
        (lambda logit: 3.0 * logit, "temperature"),
        (lambda logit: 2.0 * logit + 3.0, "platt"),
        (lambda logit: np.where(logit > 0, 8.0, -0.5) + 0.05 * logit, "isotonic"),
    ],
    ids=["too sure", "shifted", "two steps"],
)
def test_the_method_that_the_scores_need_is_chosen_and_says_why(bend, method):
    chosen = choose_calibration(*sample(bend=bend))
    assert chosen.method == method
    assert "5 folds by patient, n=900" in chosen.chosen_on
    assert all(name in chosen.chosen_on for name in ("temperature", "platt", "isotonic"))


def test_few_patients_are_not_compared():
    scores, truth, _ = sample(60)
    chosen = choose_calibration(scores, truth, [f"p{i % 9}" for i in range(60)])
    assert (chosen.method, "not compared" in chosen.chosen_on) == ("platt", True)


def test_knots_are_few_rise_and_claim_no_certainty():
    scores, truth, _ = sample(bend=lambda logit: logit**3)
    fitted = fit_calibration("isotonic", scores, truth)
    assert 2 <= len(fitted.knots) <= MOST_KNOTS
    values = calibrate(np.linspace(0, 1, 999), fitted)
    assert (np.diff(values) >= 0).all()
    assert 0.0 < values[0] < values[-1] < 1.0


def test_a_constant_score_still_gives_knots():
    truth = np.r_[np.zeros(20), np.ones(20)]
    fitted = fit_calibration("isotonic", np.full((40, 2), 0.3), truth)
    assert calibrate(np.array([0.1, 0.3, 0.9]), fitted) == pytest.approx(0.5)


def test_no_patient_is_in_two_folds_and_both_classes_are_in_each():
    _, truth, groups = sample(300)
    fold = folds(groups, truth)
    assert all(len(set(fold[np.array(groups) == group])) == 1 for group in groups)
    assert all({0.0, 1.0} == set(truth[fold == k]) for k in range(5))


def test_a_patient_is_judged_by_what_others_taught():
    """Labels by coin: a method that follows every step of its images looks good only where it has seen them."""
    rng = np.random.default_rng(5)
    scores, truth = rng.random((200, 1)), (rng.random(200) < 0.5).astype(float)
    groups = [str(i) for i in range(200)]
    assert (
        held_out_loss("isotonic", scores, truth, groups).mean() > held_out_loss("platt", scores, truth, groups).mean()
    )


# --- abstention


def spec(threshold=0.5):
    point = OperatingPoint(threshold=threshold, sensitivity=0.9, specificity=0.9, chosen_on="tests")
    code = CodeSpec(value="1", scheme="99TEST", meaning="pneumonia")
    return LabelSpec(label="pneumonia", code=code, operating_point=point, calibration=Calibration(method="none"))


def answers(n=600, seed=1):
    """Errors lie where the passes disagree; the mean probability knows nothing of them."""
    rng = np.random.default_rng(seed)
    says = rng.random(n) < 0.5
    wrong = rng.random(n) < 0.1
    spread = np.where(wrong, 0.2, 0.02) * rng.uniform(0.8, 1.2, n)
    mean = np.where(says, 0.75, 0.25)
    scores = mean[:, None] + spread[:, None] * np.linspace(-1, 1, 9)
    truth = (says ^ wrong).astype(np.float32)
    return scores[..., None].astype(np.float32), truth[:, None], [f"p{i // 2}" for i in range(n)]


def test_the_figure_that_finds_the_errors_wins():
    scores, truth, groups = answers()
    chosen = choose_abstention([spec()], scores, truth, groups, None, 0.9, draws=50)
    assert chosen.rule.by in ("sd", "mutual_information")
    assert (
        chosen.evidence["orderings"][chosen.rule.by]["aurc"] < chosen.evidence["orderings"]["max_probability"]["aurc"]
    )
    wrong = (scores[..., 0].mean(axis=1) >= 0.5) != (truth[:, 0] > 0.5)
    sd = calibrate(scores[..., 0], Calibration(method="none")).std(axis=1)
    assert chosen.evidence["orderings"]["sd"]["aurc"] == pytest.approx(aurc(wrong, sd), abs=1e-6)


def test_a_distance_wins_when_it_is_the_distance_that_knows():
    scores, truth, groups = answers()
    wrong = (scores[..., 0].mean(axis=1) >= 0.5) != (truth[:, 0] > 0.5)
    flat = np.repeat(scores.mean(axis=1, keepdims=True), 9, axis=1)
    chosen = choose_abstention([spec()], flat, truth, groups, np.where(wrong, 3.0, 1.0), 0.9, draws=50)
    assert chosen.rule.by == "distance"


def test_without_an_error_plain_maximum_probability_is_taken_and_says_so():
    scores, _, groups = answers()
    truth = (scores[..., 0].mean(axis=1, keepdims=True) >= 0.5).astype(np.float32)
    rule = choose_abstention([spec()], scores, truth, groups, None, 0.9, draws=50).rule
    assert rule.by == "max_probability"
    assert "nothing to choose by" in rule.text


def test_the_threshold_and_the_coverage_are_those_of_the_nodes_own_rule():
    scores, truth, groups = answers()
    rule = choose_abstention([spec()], scores, truth, groups, None, 0.9, draws=50).rule
    from inference.manifest import Manifest

    manifest = Manifest.model_construct(labels=(spec(),), abstention=rule)
    doubtful = np.array([bool(doubtful_labels(manifest, one, None)) for one in scores])
    present = scores[..., 0].mean(axis=1) >= 0.5
    assert doubtful.mean() == pytest.approx(0.1, abs=2 / 600)
    assert rule.coverage == pytest.approx(1.0 - (doubtful & ~present).mean(), abs=1e-4)
    assert f"{int(doubtful.sum())} lie beyond the threshold, of which {int((doubtful & present).sum())}" in rule.text


@pytest.mark.parametrize("undoubted", [0.5, 0.9, 0.95, 1.0])
def test_a_threshold_leaves_at_least_the_stated_share(undoubted):
    doubt = np.random.default_rng(3).random(377)
    assert undoubted <= (doubt <= threshold_at(doubt, undoubted)).mean() <= undoubted + 1 / 377 + 1e-9

"""Which calibration, which figure of doubt and which threshold the calibration split chooses."""

import numpy as np
import pytest
from PIL import Image

from config.settings import DecideSettings, RecommendSettings
from inference.abstain import doubtful_labels, weighed
from inference.analyser import Source
from inference.decide import decide
from inference.doubt import figure_of_doubt
from inference.errors import CannotLook
from inference.findings import calibrate, findings_of
from inference.gate import check_features
from inference.manifest import (
    Abstention,
    AgeGroup,
    Calibration,
    CodeSpec,
    GateSpec,
    InputSpec,
    LabelSpec,
    Manifest,
    OperatingPoint,
    read_manifest,
)
from tests.support.packages import repin, tiny_model, write_package
from training.packaging.abstain import Calibrated, choose_abstention, choose_rules, threshold_at
from training.packaging.calibrate import choose_calibration, fit_calibration, folds, held_out_loss
from training.packaging.isotonic import MOST_KNOTS
from training.packaging.look import Model
from validation.doubt import aurc
from validation.judge import Judge


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


def package(*labels, gate=None, ages=(), may_raise=False):
    """A manifest of which only what the rules need is there. ages: (name, from, to, operating point) of each group."""
    groups = tuple(
        AgeGroup(name=name, ages_years=(low, high), labels=(spec(at),), may_raise_priority=may_raise)
        for name, low, high, at in ages
    )
    return Manifest.model_construct(
        labels=labels or (spec(),),
        input=InputSpec(height=16, width=16, fit="squash", window="header", percentiles=None, value_range=(0, 1)),
        gate=GateSpec(file="gate.npz", threshold=gate, text="tests") if gate else None,
        age_groups=groups,
        abstention=None,
        segmentation=None,
        may_raise_priority=may_raise,
    )


def answers(n=600, seed=1):
    """Errors lie where the passes disagree; the mean probability knows nothing of them."""
    rng = np.random.default_rng(seed)
    says = rng.random(n) < 0.5
    wrong = rng.random(n) < 0.1
    spread = np.where(wrong, 0.2, 0.02) * rng.uniform(0.8, 1.2, n)
    mean = np.where(says, 0.75, 0.25)
    scores = mean[:, None] + spread[:, None] * np.linspace(-1, 1, 9)
    truth = (says ^ wrong).astype(np.float32)
    return Calibrated(scores[..., None].astype(np.float32), truth[:, None], [f"p{i // 2}" for i in range(n)], None)


def adults(n=73, seed=4):
    """As the chest package meets adults, at an operating point of 0.25: what is near one half is an alarm."""
    rng = np.random.default_rng(seed)
    mean = rng.beta(2.0, 2.5, n)
    truth = (rng.random(n) < mean).astype(np.float32)
    scores = np.clip(mean[:, None] + rng.normal(0.0, 0.02, (n, 9)), 0.01, 0.99)
    return Calibrated(scores[..., None].astype(np.float32), truth[:, None], [f"a{i}" for i in range(n)], None)


def withheld(manifest, seen):
    """(N,): what the node itself would withhold."""
    out = []
    for i, scores in enumerate(seen.scores):
        distance = None if seen.distance is None else float(seen.distance[i])
        try:
            if distance is not None:
                check_features(distance, manifest)
        except CannotLook:
            out.append(False)
            continue
        findings = findings_of(scores, None, manifest, DecideSettings(), (16, 16))
        doubtful = doubtful_labels(manifest, scores, distance)
        try:
            weighed(
                findings,
                doubtful,
                lambda f: decide(f, "CHEST", manifest.may_raise_priority, DecideSettings(), RecommendSettings()),
            )
            out.append(False)
        except CannotLook as refusal:
            out.append(refusal.reason_code == "abstained")
    return np.array(out)


def test_the_figure_that_finds_the_misses_wins():
    seen = answers()
    chosen = choose_abstention(package(), seen, 0.9, draws=50)
    rows = chosen.evidence["orderings"]
    assert chosen.rule.by in ("sd", "mutual_information")
    assert rows[chosen.rule.by]["aurc"] < rows["max_probability"]["aurc"]
    silent = seen.scores[..., 0].mean(axis=1) < 0.5
    sd = calibrate(seen.scores[..., 0], Calibration(method="none")).std(axis=1)
    assert rows["sd"]["aurc"] == pytest.approx(aurc(seen.truth[silent, 0] > 0.5, sd[silent]), abs=1e-6)


def test_a_distance_wins_when_it_is_the_distance_that_knows():
    seen = answers()
    wrong = (seen.scores[..., 0].mean(axis=1) >= 0.5) != (seen.truth[:, 0] > 0.5)
    flat = np.repeat(seen.scores.mean(axis=1, keepdims=True), 9, axis=1)
    seen = Calibrated(flat, seen.truth, seen.groups, np.where(wrong, 3.0, 1.0))
    assert choose_abstention(package(), seen, 0.9, draws=50).rule.by == "distance"


def test_without_a_miss_plain_maximum_probability_is_taken_and_says_so():
    seen = adults()
    truth = (seen.scores[..., 0].mean(axis=1, keepdims=True) >= 0.25).astype(np.float32)
    seen = Calibrated(seen.scores, truth, seen.groups, None)
    rule = choose_abstention(package(spec(0.25)), seen, 0.8, draws=50).rule
    assert rule.by == "max_probability"
    assert "nothing to choose by" in rule.text


@pytest.mark.parametrize("may_raise", [True, False])
@pytest.mark.parametrize("gate", [None, 1.5])
def test_the_node_withholds_just_what_training_counted(may_raise, gate):
    plain, seen = package(spec(0.25), gate=gate, may_raise=may_raise), adults(400)
    if gate:
        far = np.random.default_rng(2).uniform(0.0, 1.6, 400)
        seen = Calibrated(seen.scores, seen.truth, seen.groups, far)
    chosen = choose_abstention(plain, seen, 0.9, draws=50)
    found = withheld(plain.model_copy(update={"abstention": chosen.rule}), seen)
    assert chosen.withheld == found.sum() > 0
    assert chosen.withheld_missed == (found & (seen.truth[:, 0] > 0.5)).sum()
    assert chosen.withheld == pytest.approx(0.1 * chosen.silent, abs=1)
    assert chosen.answered == (400 if gate is None else (far <= gate).sum())
    assert chosen.rule.coverage == pytest.approx(1.0 - found.sum() / chosen.answered, abs=1e-4)
    assert f"of {chosen.silent} answers that nothing was found {chosen.withheld} lie beyond" in chosen.rule.text


def test_an_operating_point_below_one_half_leaves_a_rule_that_fires():
    """Among all answers maximum probability doubts alarms alone, and no abstention may replace an alarm."""
    seen = adults()
    chosen = choose_abstention(package(spec(0.25)), seen, 0.9, draws=50)
    doubt = figure_of_doubt("max_probability", seen.scores[..., 0].astype(np.float64))
    of_all = Abstention(by="max_probability", threshold=threshold_at(doubt, 0.95), coverage=1.0, text="as it was")
    assert not withheld(package(spec(0.25)).model_copy(update={"abstention": of_all}), seen).any()
    assert (
        withheld(package(spec(0.25)).model_copy(update={"abstention": chosen.rule}), seen).sum() == chosen.withheld > 0
    )


def test_a_rule_that_would_withhold_nothing_is_not_shipped_and_says_so():
    seen = adults()
    chosen = choose_abstention(package(spec(0.25)), seen, 0.99, draws=50)
    assert chosen.rule is None
    assert chosen.withheld == 0
    assert chosen.text.startswith(f"none: no threshold that leaves 99% of the {chosen.silent} answers")
    loud = choose_abstention(package(spec(0.001)), seen, 0.5, draws=50)
    assert (loud.rule, loud.silent, "nothing was found" in loud.text) == (None, 0, True)


def test_a_group_without_a_rule_is_not_given_one_that_was_not_chosen_among_its_answers():
    seen, who = adults(), np.arange(73) < 40
    plan = package(ages=[("young", 1, 6, 0.5), ("old", 18, 99, 0.001)])
    manifest, chosen = choose_rules(plan, seen, [who, ~who], 0.5, draws=50)
    assert (chosen["young"].rule is None, chosen["old"].rule, chosen[""].rule) == (False, None, None)
    assert "stand in for a rule of old" in chosen[""].text
    assert [manifest.at_age(age).abstention for age in (3.0, 40.0, None)] == [chosen["young"].rule, None, None]


def test_each_group_has_a_rule_of_its_own_answers_and_the_package_one_of_all():
    seen, who = adults(), np.arange(73) < 40
    plan = package(ages=[("young", 1, 6, 0.5), ("old", 18, 99, 0.25)])
    manifest, chosen = choose_rules(plan, seen, [who, ~who], 0.5, draws=50)
    for age, part, name in ((3.0, who, "young"), (40.0, ~who, "old"), (None, who | ~who, "")):
        assert withheld(manifest.at_age(age), seen.where(part)).sum() == chosen[name].withheld > 0


def test_through_the_nodes_analyser_a_chosen_rule_withholds_what_it_said(tmp_path):
    """Pictures in, results out: the shipped graph, the rule chosen on what it gave, and the node with that rule."""
    folder = write_package(tmp_path / "models", model=tiny_model(offset=-0.5, spread=0.3))
    plain, rng = read_manifest(folder), np.random.default_rng(3)
    pictures = [np.full((160, 160), level) + rng.normal(0, 0.02, (160, 160)) for level in np.linspace(0.02, 0.9, 40)]
    files = [tmp_path / f"{i}.png" for i in range(len(pictures))]
    for picture, file in zip(pictures, files, strict=True):
        Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)).save(file)
    scores = Model(folder / "model.onnx", plain.input, 1).look(files).scores
    truth = np.r_[np.zeros(15), np.ones(25)].astype(np.float32)[:, None]
    chosen = choose_abstention(plain, Calibrated(scores, truth, [file.name for file in files], None), 0.8, draws=20)
    assert 0 < chosen.withheld < chosen.silent < chosen.answered == 40
    repin(folder, abstention=chosen.rule.model_dump())
    judge = Judge(folder, threads=1)
    try:
        said = [result.reason_code for result in judge.look([Source(file, "chest-xray", 3.0) for file in files])]
    finally:
        judge.close()
    assert said.count("abstained") == chosen.withheld


@pytest.mark.parametrize("undoubted", [0.5, 0.9, 0.95, 1.0])
def test_a_threshold_leaves_at_least_the_stated_share(undoubted):
    doubt = np.random.default_rng(3).random(377)
    assert undoubted <= (doubt <= threshold_at(doubt, undoubted)).mean() <= undoubted + 1 / 377 + 1e-9

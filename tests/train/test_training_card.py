"""What a classification card says of its own figures, against the model where they are."""

from types import SimpleNamespace

import numpy as np
import pytest

from inference.abstain import CODE
from inference.manifest import Abstention, Manifest, read_manifest
from tests.support.packages import label, write_package
from training.packaging.card import card
from training.packaging.group_card import not_better, of_group
from training.packaging.validate import say_against
from validation.figures import Evidence, label_figures
from validation.judge import Judged
from validation.statistics import proportion


def group(probability, truth, baseline=(0.9, 0.9), name="adults", withheld=0):
    """As validate gives it, of images with these probabilities; baseline: the thumbnail's two shares of 100."""
    probability, truth = np.asarray(probability, float), np.asarray(truth, float)
    n = len(truth)
    sd = np.linspace(0.01, 0.1, n)
    reasons = (CODE,) * withheld + ("",) * (n - withheld)
    present = (probability >= 0.5) & (np.arange(n) >= withheld)
    judged = Judged(probability, probability, sd, sd, sd, np.full(n, 0.5), present, reasons)
    patients = tuple(f"p{i}" for i in range(n))
    sensitivity, specificity = (proportion(round(100 * one), 100) for one in baseline)
    area = {"value": 0.8, "bootstrap95_by_patient": [0.7, 0.9], "n": n, "patients": n}
    return {
        "name": name,
        "may_raise_priority": None,
        "operating_point": {"threshold": 0.5, "chosen_on": "tests"},
        "calibration": {"method": "platt", "temperature": 1.0, "bias": 0.0},
        "test": label_figures(Evidence("pneumonia", truth, judged, patients, {}), draws=20),
        "abstained": proportion(withheld, n),
        "subgroups": {"traits": {}},
        "baseline_8x8_thumbnail": {
            "auc": area,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "auc_by_domain": {},
        },
    }


HALF = ([0.9] * 40 + [0.02] * 60, [1] * 40 + [0] * 50 + [1] * 10)  # sensitivity 0.8, specificity 1


def test_a_bin_that_the_images_contradict_is_named():
    text = of_group(group(*HALF), "pneumonia")
    assert "| 0.020 | 0.167 (0.093 to 0.280; 10 of 60) |" in text
    assert "In 2 of 2 bins the stated probability lies outside" in text
    assert "2.0% stated, 16.7% observed (9.3% to 28.0%)" in text
    assert "50% have the finding" in text


def test_bins_that_hold_are_said_to():
    text = of_group(group([0.1] * 50 + [0.9] * 50, [1] * 5 + [0] * 45 + [1] * 45 + [0] * 5), "pneumonia")
    assert "In every bin the stated probability lies within the interval" in text


@pytest.mark.parametrize(("baseline", "says"), [((0.9, 0.9), True), ((0.9, 0.91), True), ((0.9, 0.8), False)])
def test_a_model_no_better_than_the_thumbnail_says_so(baseline, says):
    sentence = not_better(group(*HALF, baseline))
    assert bool(sentence) is says
    assert ("not better for" in of_group(group(*HALF, baseline), "pneumonia")) is says
    if says:
        assert "not better for adults" in sentence
        assert f"sum to 1.800, the thumbnail's to {sum(baseline):.3f}" in sentence


def test_the_intended_use_ends_with_it_once_however_often_it_is_measured(tmp_path):
    folder = write_package(tmp_path)
    recipe = SimpleNamespace(shipped=lambda: SimpleNamespace(intended_use="Triage."))
    figures = {"groups": [group(*HALF), group(*HALF, (0.1, 0.1), name="children")]}
    for _ in range(2):
        say_against(recipe, folder, figures)
    use = read_manifest(folder).intended_use
    assert use.startswith("Triage. At its operating point the model is not better for adults")
    assert (use.count("not better"), "children" in use) == (1, False)


def test_two_names_of_one_order_are_said_to_be_one():
    assert "Of a single label predictive entropy orders images as maximum probability does" in of_group(
        group(*HALF), "pneumonia"
    )


def shipped(tmp_path, **rules) -> Manifest:
    aged = [
        {"name": name, "ages_years": ages, "labels": [label()], "may_raise_priority": False}
        | ({"abstention": rules[name].model_dump()} if name in rules else {})
        for name, ages in (("children", [1, 6]), ("adults", [18, 90]))
    ]
    return read_manifest(write_package(tmp_path, reads={"ages_years": None}, age_groups=aged))


def test_each_rule_of_abstention_or_the_want_of_one_stands_on_the_card(tmp_path):
    rule = Abstention(by="max_probability", threshold=0.2, coverage=0.9, text="why it is")
    manifest = shipped(tmp_path, children=rule)
    figures = {
        "label": "pneumonia",
        "splits": {},
        "groups": [group(*HALF, name="children", withheld=3), group(*HALF, name="adults")],
        "refused": [],
        "no_abstention": {"adults": "none: nothing to withhold", "": "none: stands in"},
    }
    text = card(manifest, figures, "training")
    assert "Abstention, children: maximum probability beyond 0.2. Why it is. Of the held-out images: 0.030" in text
    assert "Abstention, adults: none: nothing to withhold. No answer of theirs is withheld for doubt." in text
    assert "Abstention, patients of unknown age: none: stands in." in text

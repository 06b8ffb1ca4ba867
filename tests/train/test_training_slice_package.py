"""A slice model's package: loads, replays, says what cannot be claimed, and counts false runs as a reader would."""

import json

import numpy as np
import pytest
import torch

from inference.manifest import read_manifest
from inference.verify import verify
from tests.train.slices import make_slices, tiny_recipe
from training.data.brain import MarkedSlices
from training.drawing.contours import GREYS, Panel, edge, outlined
from training.fitting.segment import build_resunet
from training.packaging.segmenter import label_spec
from training.packaging.segmenter_package import FIGURES, package_segmenter
from training.packaging.slice_figures import run_figures

PLACE = "tiny-brain/0.1.0"
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A fold and the package that quotes it, of a network that was never trained."""
    root = tmp_path_factory.mktemp("brain")
    data, recipe = make_slices(root, {"CS": 4, "DU": 9, "EZ": 1}), tiny_recipe(root)
    for run in ("fold", "final"):
        (root / run).mkdir()
        torch.manual_seed(0)
        torch.save(build_resunet(recipe).state_dict(), root / run / "weights.pt")
    package_segmenter(recipe, data, root / "fold", root / "fold" / PLACE, "CS", (), 1, draws=20)
    folds = (root / "fold",)
    figures = package_segmenter(recipe, data, root / "final", root / PLACE, None, folds, 1, draws=20)
    return root, figures


def test_the_package_verifies_and_may_not_raise_a_priority(made):
    root, _ = made
    assert verify(root / PLACE) == []
    manifest = read_manifest(root / PLACE)
    assert manifest.task == "segmentation"
    assert not manifest.may_raise_priority
    assert manifest.input.test_time == ("as_is", "mirrored")
    assert manifest.licence.non_commercial
    assert manifest.labels[0].operating_point.threshold == 0.5
    assert "by-nc-sa" in (root / PLACE / "LICENSE").read_text()


def test_the_card_says_what_cannot_be_claimed_and_quotes_the_fold(made):
    root, figures = made
    text = (root / PLACE / "MODEL_CARD.md").read_text()
    assert "Everybody in the set has a tumour" in text
    assert "lower-grade" in text.lower()
    assert "8-bit" in text
    assert "no rule was fitted, so no answer is withheld for doubt" in text
    assert f"of {figures['splits']['calibration']['patients']} patients, are too few" in text
    assert "| CS left out | mean dice over patients | 0.85 |" in text
    assert "**not reached**" in text
    assert list(figures["leave_one_institution_out"]) == ["CS"]
    assert (root / "final" / "slices.png").stat().st_size > 0


def test_every_held_out_slice_is_counted_and_no_patient_is_named(made):
    root, figures = made
    slices = figures["test"]["slices"]
    assert slices["images"] == figures["splits"]["test"]["slices"]
    assert sum(slices["confusion"].values()) == slices["images"]
    text = (root / "final" / FIGURES).read_text()
    assert "CS_0" not in text
    assert json.loads((root / PLACE / "validation.json").read_text())["test"]["dice"] == figures["test"]["dice"]


def test_a_run_of_an_unfinished_fold_is_not_quoted(made):
    root, _ = made
    recipe = tiny_recipe(root)
    with pytest.raises(ValueError, match="no institution was left out"):
        package_segmenter(recipe, root, root / "final", root / "other", None, (root / "final",), 1)


def slices(marked: list[list[int]]) -> MarkedSlices:
    """One patient a list: 1 where the person marked."""
    flat = [one for patient in marked for one in patient]
    masks = np.array(flat, np.uint8).reshape(-1, 1, 1)
    owners = tuple(f"p{i}" for i, patient in enumerate(marked) for _ in patient)
    positions = tuple(k for patient in marked for k in range(len(patient)))
    return MarkedSlices(tuple(map(str, range(len(flat)))), masks, masks, owners, ("X",) * len(flat), positions)


def test_false_runs_are_those_that_meet_no_tumour_and_are_long_enough():
    truth = slices([[0, 0, 1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0]])
    counts = np.array([0, 0, 1, 1, 1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0], bool)
    figures = run_figures(counts, truth, min_slices=2)
    assert figures["patients_found"]["hits"] == 1, "one marked slice alone is no find"
    assert figures["patients_with_a_false_run"]["hits"] == 1
    assert figures["false_runs"] == 1
    assert figures["false_marks_too_short_to_count"] == 1


def test_a_missing_slice_ends_a_run():
    whole = slices([[0, 0, 0, 0]])
    gap = MarkedSlices(whole.names, whole.pixels, whole.masks, whole.patients, whole.institutions, (0, 1, 3, 4))
    counts = np.array([False, True, True, False])
    assert run_figures(counts, whole, 2)["false_runs"] == 1
    assert run_figures(counts, gap, 2)["false_runs"] == 0


def test_the_operating_point_is_even_odds_of_a_calibration_that_weighs_both_kinds_alike(tmp_path):
    rng = np.random.default_rng(0)
    truth = np.arange(300) % 3 == 0
    raw = 1 / (1 + np.exp(-(rng.normal(truth * 2.0, 1.0) - 3.0)))  # says far too little
    spec = label_spec(tiny_recipe(tmp_path), np.repeat(raw[:, None], 4, axis=1), truth)
    assert abs(spec.operating_point.sensitivity - spec.operating_point.specificity) < 0.08
    assert spec.operating_point.sensitivity > 0.75
    assert spec.calibration.bias > 1.0


def test_outlines_are_drawn_around_masks_and_nothing_else():
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    assert edge(mask).sum() == 12
    drawn = outlined(Panel("", np.full((8, 8), 0.5, np.float32), mask, np.zeros((8, 8), bool)))
    assert np.array_equal(drawn >= GREYS, edge(mask))

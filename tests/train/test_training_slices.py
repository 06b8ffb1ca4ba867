"""Slices and masks stay together, patients stay on their side of a split, a run can be interrupted."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.fit_input import stretch
from tests.support.realdata import need_data
from tests.train.slices import make_slices, tiny_recipe
from training.data.brain import MarkedSlices, as_the_node_sees, read_brain_flair, split_patients
from training.fitting import segment
from training.fitting.augment_slices import augment_slices, stretch_batch
from training.fitting.segment import (
    dice_by_patient,
    draw_epoch,
    fit_segmentation,
    loss_of,
    read_slice_curve,
)
from training.recipe import RecipeError
from training.recipe_file import task_of
from training.segmentation_recipe import read_segmentation_recipe

SHARES = {"calibration": 0.12, "test": 0.2}


def cohort() -> tuple[list[str], list[str]]:
    patients = [f"{home}-{i}" for home, n in (("CS", 16), ("DU", 45), ("EZ", 1)) for i in range(n) for _ in range(3)]
    return patients, [patient[:2] for patient in patients]


def test_no_patient_is_on_two_sides_and_every_institution_gives_its_share():
    patients, homes = cohort()
    parts = split_patients(patients, homes, SHARES, "brain")
    assert sum(map(len, parts.values())) == len(set(patients)) == len(set.union(*parts.values()))
    assert {home: sum(p.startswith(home) for p in parts["test"]) for home in ("CS", "DU", "EZ")} == {
        "CS": 3,
        "DU": 9,
        "EZ": 0,
    }


def test_an_institution_left_out_is_the_whole_test_and_in_nothing_else():
    patients, homes = cohort()
    parts = split_patients(patients, homes, SHARES, "brain", leave_out="CS")
    assert parts["test"] == {patient for patient in patients if patient.startswith("CS")}
    assert not any(patient.startswith("CS") for patient in parts["train"] | parts["calibration"])
    assert len(parts["calibration"]) == 5
    assert parts["train"].isdisjoint(parts["calibration"])
    with pytest.raises(RecipeError, match="XY"):
        split_patients(patients, homes, SHARES, "brain", leave_out="XY")


def test_no_patient_of_the_real_set_crosses_a_split():
    with need_data("brain_flair/labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [row["patient"] for row in rows], [row["institution"] for row in rows]
    for left_out in (None, "CS", "DU"):
        parts = split_patients(*columns, SHARES, "brain-tumour-flair", left_out)
        assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 62


def test_a_slice_of_one_grey_is_not_read_and_a_missing_mask_is_an_empty_one(tmp_path):
    folder = make_slices(tmp_path, {"CS": 1})
    read = read_brain_flair(folder / "brain")
    with (folder / "brain" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(read) == len(rows) - 1, "one slice of each invented patient is empty"
    assert sorted(read.positions) == list(read.positions)
    marked = {row["image"]: bool(row["mask"]) for row in rows}
    assert [bool(mark) for mark in read.marked] == [marked[name] for name in read.names]


def test_augmentation_moves_the_mask_with_the_picture():
    """A bright square on dark is its own mask; after every change it still is."""
    masks = torch.zeros(24, 1, 64, 64)
    masks[:, :, 10:26, 34:54] = 1.0
    images = 0.2 + 0.6 * masks
    moved, moved_masks = augment_slices(images, masks, 64, (0.5, 99.5), torch.Generator().manual_seed(0))
    for picture, mask in zip(moved[:, 0], moved_masks[:, 0], strict=True):
        if mask.sum() < 40:
            continue
        inside, outside = picture[mask > 0.5].mean(), picture[mask < 0.5].mean()
        assert inside - outside > 0.25
    centres = [float(mask.nonzero()[:, 1].float().mean()) for mask in moved_masks[:, 0] if mask.sum() > 40]
    assert min(centres) < 32 < max(centres), "some heads are mirrored"
    assert moved.min() >= 0.0
    assert moved.max() <= 1.0
    assert set(moved_masks.unique().tolist()) == {0.0, 1.0}


def test_augmentation_follows_its_seed():
    images, masks = torch.rand(4, 1, 64, 64), torch.zeros(4, 1, 64, 64)
    one, again, other = (
        augment_slices(images, masks, 32, (0.5, 99.5), torch.Generator().manual_seed(seed))[0] for seed in (3, 3, 4)
    )
    assert one.shape == (4, 1, 32, 32)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_training_stretches_as_the_node_does():
    picture = np.random.default_rng(0).gamma(2.0, 0.1, (256, 256)).astype(np.float32)
    theirs = stretch(picture, 0.5, 99.5)
    ours = stretch_batch(torch.from_numpy(picture)[None, None], (0.5, 99.5))[0, 0].numpy()
    assert np.abs(ours - theirs).mean() < 0.03
    seen = as_the_node_sees((picture * 200).clip(0, 255).astype(np.uint8)[None], 64, "letterbox", (0.5, 99.5))
    assert seen.shape == (1, 64, 64)
    assert seen.min() == 0.0
    assert seen.max() == 1.0


def test_an_epoch_holds_the_marked_share_and_favours_patients_with_few_marked_slices(tmp_path):
    patients = ("few",) * 2 + ("many",) * 50 + ("none",) * 30
    masks = np.zeros((82, 4, 4), np.uint8)
    masks[:52, 0, 0] = 1
    slices = MarkedSlices(tuple(map(str, range(82))), masks, masks, patients, ("X",) * 82, tuple(range(82)))
    options = tiny_recipe(tmp_path).fit.model_copy(update={"epoch_slices": 500, "marked_share": 0.6})
    drawn = draw_epoch(slices, options, np.random.default_rng(0))
    assert len(drawn) == 500
    assert slices.marked[drawn].sum() == 300
    assert np.isin(drawn, (0, 1)).sum() > 2 * 300 * 2 / 52


def test_dice_is_of_a_patient_not_of_a_slice():
    truth = np.zeros((3, 2, 2), bool)
    truth[0] = truth[2] = True
    marked = truth.copy()
    marked[0] = False
    assert dice_by_patient(marked, truth, ("a", "a", "b")) == {"a": 0.0, "b": 1.0}
    assert dice_by_patient(marked[1:], truth[1:], ("a", "a")) == {"a": 1.0}
    truth[1, 0, 0] = True
    marked[0, 0] = True
    assert dice_by_patient(marked[:2], truth[:2], ("a", "a"))["a"] == pytest.approx(2 * 2 / (2 + 5))


def test_the_loss_falls_with_the_mask_and_with_the_slice(tmp_path):
    options = tiny_recipe(tmp_path).fit
    truth = torch.zeros(2, 1, 8, 8)
    truth[0, :, 2:6, 2:6] = 1.0
    right, unsure = (truth * 2 - 1) * 8, torch.zeros(2, 1, 8, 8)
    slices = torch.tensor([[8.0], [-8.0]])
    best = loss_of(right, slices, truth, options)
    assert best < loss_of(unsure, slices, truth, options)
    assert best < loss_of(right, -slices, truth, options)
    assert best < 0.05


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    data, recipe = make_slices(tmp_path, {"CS": 4, "DU": 4}), tiny_recipe(tmp_path)
    stages = {"stages": (recipe.fit.stages[0], recipe.fit.stages[0])}
    longer = recipe.model_copy(update={"fit": recipe.fit.model_copy(update=stages)})
    whole = fit_segmentation(longer, data, tmp_path / "whole")
    really = segment._note

    def pulled_out(path, line):
        really(path, line)
        if line[0] == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(segment, "_note", pulled_out)
    with pytest.raises(KeyboardInterrupt):
        fit_segmentation(longer, data, tmp_path / "cut")
    monkeypatch.setattr(segment, "_note", really)
    again = fit_segmentation(longer, data, tmp_path / "cut")
    curve = read_slice_curve(tmp_path / "cut" / "curve.csv")
    assert [line["epoch"] for line in curve] == ["0", "1"]
    for one, other in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_recipe_is_checked_at_the_door(tmp_path):
    recipe = tiny_recipe(tmp_path)
    path = tmp_path / "recipe.toml"
    assert task_of(path) == "segmentation"
    assert recipe.package.non_commercial
    path.write_text(path.read_text().replace("epoch_slices", "epoch_slides"))
    with pytest.raises(RecipeError, match="epoch_slides"):
        read_segmentation_recipe(path)


def test_a_part_keeps_every_column_in_step():
    slices = MarkedSlices(
        ("a", "b", "c"),
        np.arange(3, dtype=np.uint8).reshape(3, 1, 1),
        np.zeros((3, 1, 1), np.uint8),
        ("p", "q", "r"),
        ("X", "Y", "Z"),
        (7, 8, 9),
    )
    part = slices.where(np.array([False, True, True]))
    assert (part.names, part.patients, part.institutions, part.positions) == (
        ("b", "c"),
        ("q", "r"),
        ("Y", "Z"),
        (8, 9),
    )
    assert part.pixels.ravel().tolist() == [1, 2]
    assert replace(part, names=("d", "e")).names == ("d", "e")

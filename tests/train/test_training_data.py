"""No patient crosses a split; augmentation keeps a picture a picture."""

import numpy as np
import pytest
import torch

from inference.fit_input import resize, stretch
from tests.support.realdata import need_data
from training.data.images import LabelledImages, split, split_of
from training.fitting.augment import augment

SHARES = {"train": 0.75, "calibration": 0.10, "test": 0.15}


def labelled(groups: list[str]) -> LabelledImages:
    n = len(groups)
    return LabelledImages(
        tuple(f"{i}.png" for i in range(n)),
        np.zeros((n, 8, 8), np.uint8),
        np.zeros((n, 1), np.float32),
        tuple(groups),
    )


def test_no_patient_crosses_a_split():
    data = labelled([f"patient-{i % 400}" for i in range(2000)])
    parts = split(data, SHARES, "chest-pneumonia")
    seen = [set(part.groups) for part in parts.values()]
    assert all(a.isdisjoint(b) for i, a in enumerate(seen) for b in seen[i + 1 :])
    assert sum(len(part) for part in parts.values()) == len(data)
    assert len(seen[0]) == pytest.approx(300, abs=40)


def test_a_patient_stays_in_its_split_when_others_come():
    assert split_of("IM-0115", SHARES, "chest-pneumonia") == split_of("IM-0115", SHARES, "chest-pneumonia")
    first = split(labelled(["a", "b", "c"]), SHARES, "x")
    more = split(labelled(["a", "b", "c", *map(str, range(50))]), SHARES, "x")
    for name, part in first.items():
        assert set(part.groups) <= set(more[name].groups)


def test_no_patient_of_the_real_set_crosses_a_split():
    labels = need_data("chest_pneumonia/labels.csv").read_text().splitlines()[1:]
    groups = [line.split(",")[3] for line in labels]
    parts = split(labelled(groups), SHARES, "chest-pneumonia")
    seen = [set(part.groups) for part in parts.values()]
    assert all(a.isdisjoint(b) for i, a in enumerate(seen) for b in seen[i + 1 :])


def test_augmentation_keeps_shape_and_range_and_follows_its_seed():
    batch = torch.rand(8, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    out = augment(batch.clone(), 64, torch.Generator().manual_seed(5))
    again = augment(batch.clone(), 64, torch.Generator().manual_seed(5))
    other = augment(batch.clone(), 64, torch.Generator().manual_seed(6))
    assert out.shape == (8, 1, 64, 64)
    assert out.min() >= 0.0
    assert out.max() <= 1.0
    assert torch.equal(out, again)
    assert not torch.equal(out, other)


def test_augmentation_never_mirrors_a_chest():
    """The left half stays the darker one, whatever else is done to it."""
    batch = torch.ones(32, 1, 64, 64)
    batch[:, :, :, :32] = 0.3
    out = augment(batch, 64, torch.Generator().manual_seed(1))
    left, right = out[:, :, 16:48, 8:24].mean(dim=(1, 2, 3)), out[:, :, 16:48, 40:56].mean(dim=(1, 2, 3))
    assert (left < right).all()


def test_training_sees_what_the_node_sees():
    """Training keeps pictures as 8 bit; the node does not. They differ by rounding alone."""
    picture = np.random.default_rng(0).random((300, 200)).astype(np.float32)
    fitted = stretch(resize(picture, 64, 64, "squash"), 0.5, 99.5)
    assert np.abs(np.round(fitted * 255.0) / 255.0 - fitted).max() <= 0.5 / 255.0 + 1e-6

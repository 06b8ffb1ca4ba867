"""Each change can be switched off, and does what its name says and no more."""

import pytest
import torch

from training.fitting.acquisition import background_of, match_histograms, randomise_background
from training.fitting.augment import augment
from training.recipe import AugmentPlan

OFF = {
    "rotation_deg": 0.0,
    "scale": (1.0, 1.0),
    "shift": 0.0,
    "gamma": (1.0, 1.0),
    "contrast": (1.0, 1.0),
    "brightness": 0.0,
    "blur": 0.0,
    "noise": 0.0,
    "erase_corners": 0.0,
}
ALONE = {
    "rotation_deg": 10.0,
    "scale": (0.8, 0.9),
    "shift": 0.1,
    "border_crop": 0.2,
    "lung_crop": (0.6, 0.8),
    "gamma": (0.5, 0.8),
    "contrast": (0.5, 0.8),
    "brightness": 0.2,
    "blur": 1.0,
    "noise": 0.05,
    "erase_corners": 1.0,
    "histogram_match": 1.0,
    "background": 1.0,
    "invert": 1.0,
    "mirror": 1.0,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def chests():
    """(8, 1, 64, 64): a bright body with two dark lungs before a black background; a letter in a corner."""
    batch = torch.zeros(8, 1, 64, 64)
    batch[:, :, 6:, 12:52] = 0.7
    batch[:, :, 16:48, 18:28] = 0.05
    batch[:, :, 16:48, 36:46] = 0.05
    batch[:, :, 2:6, 2:5] = 1.0
    grain = torch.rand(batch.shape, generator=seeded(9)) * 0.02
    return (batch + torch.arange(8).view(-1, 1, 1, 1) * 0.01 + grain).clamp(0.0, 1.0)


def test_with_everything_off_a_picture_stays_as_it_is(chests):
    out = augment(chests, 64, seeded(), AugmentPlan(**OFF), torch.arange(8) % 2)
    torch.testing.assert_close(out, chests, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ALONE)
def test_each_option_alone_changes_something_follows_its_seed_and_keeps_the_range(chests, name):
    plan, domains = AugmentPlan(**OFF | {name: ALONE[name]}), torch.arange(8) % 2
    chests[domains == 1] = chests[domains == 1].sqrt()
    out = augment(chests.clone(), 64, seeded(3), plan, domains)
    assert torch.equal(out, augment(chests.clone(), 64, seeded(3), plan, domains))
    assert out.min() >= 0.0
    assert out.max() <= 1.0
    assert (out - chests).abs().amax(dim=(1, 2, 3)).max() > 0.02


def test_a_matched_picture_takes_the_tone_of_another_domain():
    dark, bright = (
        torch.rand(4, 1, 64, 64, generator=seeded(1)) * 0.4,
        torch.rand(4, 1, 64, 64, generator=seeded(2)) * 0.4 + 0.6,
    )
    batch, domains = torch.cat([dark, bright]), torch.tensor([0] * 4 + [1] * 4)
    out = match_histograms(batch, domains, torch.tensor([True] * 4 + [False] * 4), seeded())
    assert (out[:4].mean(dim=(1, 2, 3)) > 0.45).all()
    assert torch.equal(out[4:], batch[4:])
    flat, before = out[0].flatten(), batch[0].flatten()
    order = before.argsort()
    assert (flat[order].diff() >= -1e-5).all()  # a tone curve never turns greys round


def test_without_another_domain_nothing_is_matched(chests):
    out = match_histograms(chests, torch.zeros(8), torch.ones(8, dtype=torch.bool), seeded())
    assert torch.equal(out, chests)


def test_the_background_is_what_is_dark_and_reaches_the_border(chests):
    found = background_of(chests[:1])[0, 0]
    assert found[30:60, 0:10].mean() > 0.95
    assert found[16:48, 18:46].max() == 0.0  # lungs
    assert found[8:, 14:50].max() < 0.05  # body


def test_a_random_background_leaves_the_body_alone(chests):
    out = randomise_background(chests, torch.tensor([True] * 4 + [False] * 4), seeded())
    torch.testing.assert_close(out[:, :, 10:, 14:50], chests[:, :, 10:, 14:50], atol=0.05, rtol=0)
    assert torch.equal(out[4:], chests[4:])
    means = out[:4, :, 30:60, 0:10].mean(dim=(1, 2, 3))
    assert means.min() > 0.05
    assert means.std() > 0.02


def test_a_mirrored_picture_is_the_other_way_round_only_when_asked(chests):
    chests[:, :, 50:60, 14:20] = 0.2
    mirrored = augment(chests, 64, seeded(), AugmentPlan(**OFF | {"mirror": 1.0}))
    torch.testing.assert_close(mirrored, chests.flip(3), atol=1e-4, rtol=0)


def test_a_cropped_border_is_gone():
    batch = torch.full((16, 1, 64, 64), 0.5)
    batch[:, :, :3], batch[:, :, :, :3] = 1.0, 1.0
    plan = AugmentPlan(**OFF | {"border_crop": 0.2})
    out = augment(batch, 64, seeded(), plan)
    gone = (out[:, :, :, 0].mean(dim=(1, 2)) < 0.6).float().mean()
    assert 0.5 < gone < 1.0
    assert (out >= 0.5 - 1e-5).all()  # what is left fills the picture, no black edge comes in

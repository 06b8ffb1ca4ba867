"""What the architecture promises: seeded masks, a map that adds up to the logit, features for the gate."""

import pytest
import torch

from training.networks.densenet import (
    FEATURE_CHANNELS,
    GATE_FEATURES,
    AttentionDenseNet,
    McConfig,
    McTriageNet,
    mask_bank,
)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(2)
    return McTriageNet(AttentionDenseNet(2)).eval()


def test_the_same_seed_draws_the_same_masks_and_another_seed_does_not():
    assert torch.equal(mask_bank(McConfig(), 0.5), mask_bank(McConfig(), 0.5))
    assert not torch.equal(mask_bank(McConfig(), 0.5), mask_bank(McConfig(seed=1), 0.5))


def test_masks_drop_their_share_and_keep_the_mean():
    masks = mask_bank(McConfig(passes=200), 0.25)
    assert masks.shape == (200, FEATURE_CHANNELS)
    assert sorted(masks.unique().tolist()) == pytest.approx([0.0, 4 / 3])
    assert masks.mean().item() == pytest.approx(1.0, abs=0.01)


def test_the_mean_of_the_map_plus_the_bias_is_the_logit(net):
    image = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        _, cam, _ = net(image)
        logits = net.net(image)
    torch.testing.assert_close(cam.mean(dim=(2, 3)) + net.net.classifier.bias, logits, atol=1e-4, rtol=1e-4)


def test_the_passes_are_dropout_in_the_head(net):
    """One pass of the graph is the classifier on the attended features under that pass's mask."""
    image = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        scores, _, _ = net(image)
        pooled = net.net.feature_maps(image).mean(dim=(2, 3))
        attended = pooled * net.net.attention(pooled)
        wanted = torch.sigmoid(net.net.classifier(attended * net.masks[7]))
    torch.testing.assert_close(scores[:, 7], wanted, atol=1e-5, rtol=1e-5)


def test_features_are_standardised_with_equal_weight_for_stem_and_last_block():
    torch.manual_seed(3)
    net = McTriageNet(AttentionDenseNet(1)).eval()
    images = torch.randn(24, 1, 64, 64)
    with torch.inference_mode():
        stem, maps = net.net.stem_and_maps(images)
        net.standardise(net.raw_features(stem, maps.mean(dim=(2, 3))))
        features = net(images)[2]
    assert features.shape == (24, GATE_FEATURES)
    assert features.mean(dim=0).abs().max() < 1e-3
    energy = features.var(dim=0)
    stem_part, last_part = energy[:-FEATURE_CHANNELS].sum(), energy[-FEATURE_CHANNELS:].sum()
    assert 0.5 < stem_part <= 1.05
    assert 0.5 < last_part <= 1.05


def test_upside_down_is_seen_in_the_stem(net):
    """The grid of the stem knows where things lie; a global mean could not."""
    image = torch.zeros(1, 1, 64, 64)
    image[:, :, :32] = 1.0
    with torch.inference_mode():
        upright, turned = net(image)[2], net(image.flip(2))[2]
    assert (upright - turned)[:, :-FEATURE_CHANNELS].abs().max() > 0.05

"""What the slice model promises: one encoder for masks and slices, masked heads, a graph that says what torch says."""

import numpy as np
import onnxruntime
import pytest
import torch

from inference.onnx_check import onnx_problems
from training.networks.monte_carlo import STEM_GRID, McConfig
from training.networks.resunet import CONTRACTIONS, McSegNet, ResUNet
from training.packaging.export import export, halve_weights

pytestmark = pytest.mark.filterwarnings("ignore")
SIZE, WIDTHS = 64, (4, 4, 8, 8, 16)
NAMES = ("scores", "masks", "features")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(1)
    net = McSegNet(ResUNet(1, WIDTHS), McConfig(passes=12)).eval()
    torch.nn.init.normal_(net.net.classifier.weight, std=0.5)  # a random start would say 0.5 to everything
    with torch.inference_mode():
        net.standardise(net.raw_features(net.net.encode(torch.rand(16, 1, SIZE, SIZE))))
    return net


@pytest.fixture(scope="module")
def image():
    return torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def test_four_contractions_and_a_bottleneck_halve_the_side_each(net, image):
    encoded = net.net.encode(image)
    assert len(encoded.skips) == CONTRACTIONS == 4
    assert [skip.shape[-1] for skip in encoded.skips] == [32, 16, 8, 4]
    assert encoded.deep.shape == (3, 16, 2, 2)


def test_masks_have_every_pixel_of_the_input(net, image):
    with torch.inference_mode():
        scores, masks, features = net(image)
    assert scores.shape == (3, 12, 1)
    assert masks.shape == (3, 1, SIZE, SIZE)
    assert features.shape == (3, WIDTHS[0] * STEM_GRID**2 + net.net.pooled_channels)
    for part in (scores, masks):
        assert part.min() > 0.0
        assert part.max() < 1.0


def test_what_the_contracting_path_saw_reaches_the_mask(net, image):
    """Without the finest skip the mask is another one."""
    with torch.inference_mode():
        encoded = net.net.encode(image)
        blind = encoded._replace(skips=[torch.zeros_like(encoded.skips[0]), *encoded.skips[1:]])
        assert (net.net.decode(encoded) - net.net.decode(blind)).abs().max() > 1e-3


def test_the_slice_classifier_teaches_the_shared_encoder():
    net = ResUNet(1, WIDTHS).train()
    _, logits = net(torch.rand(4, 1, SIZE, SIZE))
    logits.sum().backward()
    assert net.contract[0].conv1.weight.grad.abs().sum() > 0.0
    assert net.mark.weight.grad is None


def test_the_passes_are_dropout_in_the_head(net, image):
    with torch.inference_mode():
        scores, _, _ = net(image)
        pooled = net.net.pool(net.net.encode(image))
        wanted = torch.sigmoid(net.net.classifier(pooled * net.bank[5]))
    torch.testing.assert_close(scores[:, 5], wanted, atol=1e-5, rtol=1e-5)
    assert scores.std(dim=1).max() > 1e-3


def test_features_are_standardised_with_equal_weight_for_first_block_and_head(net):
    with torch.inference_mode():
        images = torch.rand(16, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(4))
        net.standardise(net.raw_features(net.net.encode(images)))
        features = net(images)[2]
    assert features.mean(dim=0).abs().max() < 1e-3
    energy, last = features.var(dim=0), net.net.pooled_channels
    for part in (energy[:-last], energy[-last:]):
        assert 0.4 < part.sum() <= 1.05


def test_the_graph_agrees_with_torch_in_float32_and_nearly_with_halved_weights(net, image):
    graph = export(net, SIZE, NAMES)
    with torch.inference_mode():
        wanted = [part.numpy() for part in net(image)]
    for model, tolerance in ((graph, 1e-4), (halve_weights(graph), 2e-2)):
        content = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        found = session.run(list(NAMES), {"image": image.numpy()})
        for name, there, here in zip(NAMES[:2], wanted, found, strict=False):
            np.testing.assert_allclose(here, there, atol=tolerance, err_msg=name)
        assert onnx_problems(content) == []
        one = session.run(["masks"], {"image": image.numpy()[:1]})[0]
        np.testing.assert_allclose(one, found[1][:1], atol=1e-4)


def test_the_recipes_own_network_fits_into_20_megabytes():
    assert sum(p.numel() for p in ResUNet(1).parameters()) * 2 < 20e6

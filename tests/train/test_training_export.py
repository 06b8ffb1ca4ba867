"""The exported graph says what torch says, in float32 and with its weights in half the bytes."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from inference.onnx_check import onnx_problems
from training.networks.densenet import AttentionDenseNet, McConfig, McTriageNet
from training.packaging.export import export, halve_weights

pytestmark = pytest.mark.filterwarnings("ignore")
SIZE = 64
NAMES = ["scores", "cam", "features"]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(1)
    net = McTriageNet(AttentionDenseNet(1)).eval()
    torch.nn.init.normal_(net.net.classifier.weight, std=0.3)  # a random start would say 0.5 to everything
    with torch.inference_mode():
        stem, maps = net.net.stem_and_maps(torch.randn(16, 1, SIZE, SIZE))
        net.standardise(net.raw_features(stem, maps.mean(dim=(2, 3))))
    return net


@pytest.fixture(scope="module")
def graph(net):
    return export(net, SIZE)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(-1, 1, (3, 1, SIZE, SIZE)).astype(np.float32)


def run(model, image):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(NAMES, {"image": image})


def said_by_torch(net, image):
    with torch.inference_mode():
        return [out.numpy() for out in net(torch.from_numpy(image))]


def test_float32_graph_agrees_with_torch_on_the_same_masks(net, graph, image):
    wanted, found = said_by_torch(net, image), run(graph, image)
    assert np.ptp(wanted[0], axis=1).max() > 0.01, "the passes must differ, or this test sees nothing"
    for there, here in zip(wanted[:2], found[:2], strict=True):
        np.testing.assert_allclose(here, there, atol=1e-4)
    np.testing.assert_allclose(found[2], wanted[2], atol=1e-3)


def test_float16_weights_change_no_score_by_more_than_5e_3(net, graph, image):
    half = halve_weights(graph)
    np.testing.assert_allclose(run(half, image)[0], said_by_torch(net, image)[0], atol=5e-3)
    assert half.ByteSize() < 0.55 * graph.ByteSize()
    assert half.ByteSize() < 20e6


def test_the_batch_is_free(net, graph, image):
    together, one = run(graph, image), run(graph, image[:1])
    for a, b in zip(together, one, strict=True):
        np.testing.assert_allclose(a[:1], b, atol=1e-4)


def test_the_graph_is_plain_and_names_no_path(graph):
    content = halve_weights(graph).SerializeToString()
    assert onnx_problems(content) == []
    assert b"/home" not in content
    assert b"training/networks/densenet.py" not in content


def test_fifty_passes_cost_what_one_costs(net):
    """In operations, which no other work on the same cores changes: the features are computed once, whatever the number
    of passes."""
    one = McTriageNet(net.net, McConfig(passes=1)).eval()
    batch = torch.zeros(2, 1, SIZE, SIZE)

    def operations(model):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            model(batch)
        return counter.get_total_flops()

    assert 0 < operations(one) <= operations(net) < 1.5 * operations(one)

"""What every architecture promises, whatever its layers: one channel in, a map that adds up, masks that can be run."""

import functools

import numpy as np
import onnxruntime
import pytest
import torch

from inference.onnx_check import onnx_problems
from training.networks import imagenet
from training.networks.classifier import Head
from training.networks.metadata import codes, hide
from training.networks.monte_carlo import McConfig, McTriageNet, mask_bank
from training.networks.registry import ARCHITECTURES, build_classifier, from_recipe
from training.packaging.export import export

pytestmark = pytest.mark.filterwarnings("ignore")
SIZE = 64
EVERY = list(ARCHITECTURES)


@functools.cache
def built(name, **head):
    torch.manual_seed(4)
    net = build_classifier(name, Head(2, **head)).eval()
    torch.nn.init.normal_(net.classifier.weight, std=0.3)
    _settle(net)
    return net


def _settle(net):
    """Norms that have seen a few pictures: with random weights a deep net in eval mode says nothing otherwise."""
    net.train()
    with torch.inference_mode():
        for _ in range(3):
            net(torch.randn(4, 1, SIZE, SIZE))
    net.eval()


@pytest.fixture(scope="module")
def image():
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (2, 1, SIZE, SIZE)).astype(np.float32))


@pytest.mark.parametrize("name", EVERY)
def test_every_architecture_is_cut_where_its_channels_say(name, image):
    net = built(name)
    with torch.inference_mode():
        stem = net.stem(image)
        hidden = net.body(stem)
        maps = net.last_block(hidden)
    assert stem.shape[1] == net.stem_channels
    assert hidden.shape[1] == net.block_channels
    assert maps.shape[1] == net.feature_channels
    assert torch.equal(maps, net.stem_and_maps(image)[1])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("place", ["head", "last_block"])
def test_the_map_of_every_architecture_adds_up_to_its_logit(name, place, image):
    net = built(name, place=place)
    with torch.inference_mode():
        _, cam, _ = McTriageNet(net, McConfig(passes=3))(image)
        logits = net(image)
    torch.testing.assert_close(cam.mean(dim=(2, 3)) + net.classifier.bias, logits, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["small-cnn", "densenet121-attention", "resnet50", "vit-small", "efficientnet-b0"])
def test_a_pass_before_the_last_block_is_the_plain_pass_under_that_mask(name, image):
    net = built(name, place="last_block")
    graph = McTriageNet(net, McConfig(passes=1, seed=5))
    with torch.inference_mode():
        scores, _, _ = graph(image)
        hidden = net.body(net.stem(image)) * graph.masks[0].reshape(1, -1, 1, 1)
        pooled = net.last_block(hidden).mean(dim=(2, 3))
        wanted = torch.sigmoid(net.classifier(pooled * net.weigh(pooled)))
    torch.testing.assert_close(scores[:, 0], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("place", ["head", "last_block"])
def test_passes_differ_and_the_same_seed_repeats_them(place, image):
    net = built("small-cnn", place=place)
    with torch.inference_mode():
        one, again = (McTriageNet(net, McConfig(passes=6, seed=1))(image)[0] for _ in range(2))
        other = McTriageNet(net, McConfig(passes=6, seed=2))(image)[0]
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.std(dim=1).min() > 1e-4


def test_a_mask_has_the_channels_of_the_place_where_it_is_put():
    net = built("resnet50", place="last_block")
    graph = McTriageNet(net, McConfig(passes=2))
    assert graph.masks.shape == (2, net.block_channels)
    assert graph.method == "mc-dropout-last-block"
    assert McTriageNet(built("small-cnn"), McConfig(passes=2)).masks.shape == (2, 256)
    assert mask_bank(McConfig(passes=2), 0.5, 7).shape == (2, 7)


@pytest.mark.parametrize("place", ["head", "last_block"])
def test_dropout_is_active_in_training_only_and_where_the_recipe_puts_it(place, image):
    net = built("vit-small", place=place)
    with torch.inference_mode():
        assert torch.equal(net(image), net(image))
        net.train()
        one, other = net(image), net(image)
        net.eval()
        assert not torch.equal(one, other)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("small-cnn", "head"),
        ("vgg16", "head"),
        ("efficientnet-b0", "head"),
        ("vit-small", "head"),
        ("small-cnn", "last_block"),
        ("resnet50", "last_block"),
    ],
)
def test_what_is_exported_says_what_torch_says(name, place, image):
    net = McTriageNet(built(name, place=place), McConfig(passes=3)).eval()
    exact = export(net, SIZE).SerializeToString()
    assert onnx_problems(exact) == []
    session = onnxruntime.InferenceSession(exact, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        wanted = net(image)
    for n in (2, 1):
        found = session.run(["scores", "cam", "features"], {"image": image[:n].numpy()})
        for there, here in zip(wanted, found, strict=True):
            np.testing.assert_allclose(here, there[:n].numpy(), atol=2e-3, rtol=2e-3)


def test_a_vit_reads_pictures_of_another_size_than_it_was_trained_on():
    net = built("vit-small")
    with torch.inference_mode():
        assert net.feature_maps(torch.zeros(1, 1, 96, 80)).shape == (1, 192, 6, 5)


def test_metadata_moves_the_logit_and_what_is_unknown_is_zero(image):
    net = built("small-cnn", metadata=("age", "sex", "view"))
    with torch.inference_mode():
        unknown = net(image)
        assert torch.equal(unknown, net(image, torch.zeros(2, 3, dtype=torch.int64)))
        assert not torch.equal(unknown, net(image, codes([3.0, 60.0], ["F", "M"], ["AP", "PA"])))
    assert codes([None, 3.0, 65.4, 118.0, 400.0], ["", "F", "M", "F", "X"], ["", "AP", "PA", "AP", "?"]).tolist() == [
        [0, 0, 0],
        [1, 1, 1],
        [7, 2, 2],
        [11, 1, 1],
        [0, 0, 0],
    ]
    hidden = hide(torch.ones(4000, 3, dtype=torch.int64), 0.25, torch.Generator().manual_seed(0))
    assert 0.7 < hidden.float().mean() < 0.8


def test_a_recipe_names_its_network():
    recipe = {
        "labels": ["a", "b"],
        "model": {"architecture": "small-cnn", "dropout": 0.3, "dropout_place": "last_block"},
    }
    net = from_recipe(recipe)
    assert (net.feature_channels, net.dropout, net.place, net.classifier.out_features) == (256, 0.3, "last_block", 2)
    assert net.attention is None
    assert from_recipe({"labels": ["a"], "model": {"dropout": 0.5, "attention_ratio": 8}}).attention is not None
    with pytest.raises(ValueError, match="no architecture 'alexnet'"):
        from_recipe({"labels": ["a"], "model": {"architecture": "alexnet", "dropout": 0.5}})
    with pytest.raises(ValueError, match="dropout_place"):
        from_recipe({"labels": ["a"], "model": {"dropout": 0.5, "dropout_place": "stem"}})
    with pytest.raises(ValueError, match="metadata"):
        from_recipe({"labels": ["a"], "model": {"architecture": "small-cnn", "dropout": 0.5, "metadata": ["hair"]}})


@pytest.mark.parametrize(("name", "maker"), [("resnet50", "resnet50"), ("densenet121", "densenet121")])
def test_torchvision_weights_fill_the_whole_trunk_with_colours_summed(name, maker, monkeypatch):
    from torchvision import models

    torch.manual_seed(8)
    published = getattr(models, maker)(weights=None).state_dict()
    monkeypatch.setattr(imagenet, "fetch", lambda _: published)
    net = build_classifier(name, Head(1))
    imagenet.start(net.features, name, "imagenet")
    first = next(value for value in published.values() if value.dim() == 4)
    torch.testing.assert_close(net.features[0].weight, first.sum(dim=1, keepdim=True))
    grey = torch.rand(1, 1, SIZE, SIZE)
    whole = getattr(models, maker)(weights=None)
    whole.load_state_dict(published)
    whole.eval()
    with torch.inference_mode():
        if maker == "densenet121":
            wanted = torch.relu(whole.features(grey.expand(-1, 3, -1, -1)))
        else:
            steps = [whole.conv1, whole.bn1, whole.relu, whole.maxpool, whole.layer1, whole.layer2, whole.layer3]
            wanted = whole.layer4(torch.nn.Sequential(*steps)(grey.expand(-1, 3, -1, -1)))
        torch.testing.assert_close(net.eval().feature_maps(grey), wanted, atol=1e-4, rtol=1e-4)


def test_weights_that_cannot_be_fetched_are_an_error_or_a_printed_line(monkeypatch, capsys):
    def unreachable(*_, **__):
        raise OSError("Name or service not known")

    weights = imagenet.SOURCES["densenet121"][0]
    monkeypatch.setattr(type(weights), "get_state_dict", unreachable)
    net = build_classifier("densenet121", Head(1))
    with pytest.raises(imagenet.WeightsUnavailable, match="cannot be fetched"):
        imagenet.start(net.features, "densenet121", "imagenet")
    imagenet.start(net.features, "densenet121", "imagenet-if-available")
    assert "starting from random weights" in capsys.readouterr().err
    with pytest.raises(imagenet.WeightsUnavailable, match="no ImageNet weights for vit-small"):
        imagenet.start(net.features, "vit-small", "imagenet")

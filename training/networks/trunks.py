"""The chains of layers that are compared, all with one input channel and no classifier of their own.

torchvision's layers keep torchvision's names, so that its weights fit. VGG16 ends in a global pool and one linear layer
like all others, not in its three fully connected ones.
"""

from collections import OrderedDict
from itertools import pairwise

from torch import nn
from torchvision import models

from training.networks.classifier import Trunk
from training.networks.vit import DEPTH, WIDTH, vit_small


def _stage(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
        nn.Conv2d(outside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


def small_cnn() -> nn.Sequential:
    """Five stages of two 3x3 convolutions, 16 to 256 channels: what one would write by hand."""
    widths = (1, 16, 32, 64, 128, 256)
    return nn.Sequential(*[_stage(a, b) for a, b in pairwise(widths)])


def vgg16() -> nn.Sequential:
    features = models.vgg16_bn(weights=None, num_classes=1, init_weights=False).features
    features[0] = nn.Conv2d(1, 64, 3, padding=1)
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return features


def resnet50() -> nn.Sequential:
    """The last bottleneck stands alone, so that a dropout before it costs little."""
    net = models.resnet50(weights=None)
    net.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    layers = OrderedDict((name, getattr(net, name)) for name in ("conv1", "bn1", "relu", "maxpool"))
    layers.update((f"layer{i}", getattr(net, f"layer{i}")) for i in (1, 2, 3))
    layers.update(layer4=net.layer4[:2], last=net.layer4[2])
    return nn.Sequential(layers)


def densenet121() -> nn.Sequential:
    features = models.densenet121(weights=None).features
    features.conv0 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(features.conv0.weight)
    return features


def _efficientnet(features: nn.Sequential) -> nn.Sequential:
    first = features.get_submodule("0")
    assert isinstance(first, nn.Sequential)
    first[0] = nn.Conv2d(1, features.get_submodule("0.1").num_features, 3, 2, 1, bias=False)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(features.get_parameter("0.0.weight"), mode="fan_out")
    return features


def efficientnet_b0() -> nn.Sequential:
    return _efficientnet(models.efficientnet_b0(weights=None).features)


def efficientnet_b4() -> nn.Sequential:
    return _efficientnet(models.efficientnet_b4(weights=None).features)


# cuts: stem | body | last block; channels: after the stem, into the last block, at the end
SMALL_CNN = Trunk(small_cnn, 2, 4, (32, 128, 256))
VGG16 = Trunk(vgg16, 7, 34, (64, 512, 512))
RESNET50 = Trunk(resnet50, 4, 8, (64, 2048, 2048))
DENSENET121 = Trunk(densenet121, 4, 10, (64, 512, 1024), rectified=True)
EFFICIENTNET_B0 = Trunk(efficientnet_b0, 1, 7, (32, 192, 1280))
EFFICIENTNET_B4 = Trunk(efficientnet_b4, 1, 7, (48, 272, 1792))
VIT_SMALL = Trunk(vit_small, 1, DEPTH, (WIDTH, WIDTH, WIDTH))

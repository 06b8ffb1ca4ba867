"""ImageNet weights from torchvision, where they can be fetched; the first convolution's colours summed to one."""

import socket
from typing import Any

import torch
import typer
from torch import Tensor, nn
from torchvision import models

RANDOM, IMAGENET = "random weights", "ImageNet weights of torchvision"
SOURCES: dict[str, tuple[Any, str]] = {  # architecture -> torchvision's weights, and the prefix their layers have
    "vgg16": (models.VGG16_BN_Weights.DEFAULT, "features."),
    "resnet50": (models.ResNet50_Weights.DEFAULT, ""),
    "densenet121": (models.DenseNet121_Weights.DEFAULT, "features."),
    "densenet121-attention": (models.DenseNet121_Weights.DEFAULT, "features."),
    "efficientnet-b0": (models.EfficientNet_B0_Weights.DEFAULT, "features."),
    "efficientnet-b4": (models.EfficientNet_B4_Weights.DEFAULT, "features."),
}


PATIENCE_S = 20.0  # without an answer, a network that lets nothing through is taken for none


class WeightsUnavailable(RuntimeError):
    """No such weights, or no way to them from here."""


def start(features: nn.Sequential, architecture: str, weights: str) -> str:
    """Fill `features` in place. weights: "none", "imagenet" or "imagenet-if-available". Returns what was done, in words
    that go on "it began from ..."."""
    if weights == "none":
        return RANDOM
    if weights not in ("imagenet", "imagenet-if-available"):
        raise ValueError(f"weights is none, imagenet or imagenet-if-available, not {weights!r}")
    try:
        features.load_state_dict(fitting(fetch(architecture), architecture, features))
    except WeightsUnavailable as error:
        if weights == "imagenet":
            raise
        typer.echo(f"{error}; starting from random weights", err=True)
        return f"{RANDOM} ({error})"
    return IMAGENET


def fetch(architecture: str) -> dict[str, Tensor]:
    """torchvision's state dict, its hash checked. Raises WeightsUnavailable."""
    if architecture not in SOURCES:
        raise WeightsUnavailable(f"there are no ImageNet weights for {architecture}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE_S)
    try:
        return SOURCES[architecture][0].get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise WeightsUnavailable(f"ImageNet weights of {architecture} cannot be fetched: {_why(error)}") from None
    finally:
        socket.setdefaulttimeout(before)


def _why(error: Exception) -> str:
    """The reason inside an URLError, whose own text looks like markup."""
    return str(getattr(error, "reason", error))


def fitting(state: dict[str, Tensor], architecture: str, features: nn.Sequential) -> dict[str, Tensor]:
    """The part of torchvision's state dict that belongs to `features`, under its names and with one input channel."""
    prefix = SOURCES[architecture][1]
    wanted = features.state_dict()
    named = {modern(key.removeprefix(prefix)): value for key, value in state.items() if key.startswith(prefix)}
    if architecture == "resnet50":
        named = {key.replace("layer4.2.", "last."): value for key, value in named.items()}
    return {key: to_one_channel(named[key], wanted[key]) for key in wanted if key in named}


def modern(key: str) -> str:
    """torchvision's densenet once had `norm.1`, `conv.2`: the dots fell when names with dots were forbidden."""
    parts = key.split(".")
    for i in range(len(parts) - 1, 0, -1):
        if parts[i] in ("1", "2") and parts[i - 1] in ("norm", "relu", "conv") and "denselayer" in ".".join(parts[:i]):
            parts[i - 1 : i + 1] = [parts[i - 1] + parts[i]]
    return ".".join(parts)


def to_one_channel(weight: Tensor, wanted: Tensor) -> Tensor:
    """Grey is the same in all three colours: a convolution over them is a convolution with their summed weights."""
    if weight.dim() == 4 and wanted.shape[1] == 1 and weight.shape[1] == 3:
        return weight.sum(dim=1, keepdim=True)
    return torch.as_tensor(weight)

"""Architectures by name, as recipes ask for them."""

from dataclasses import replace
from typing import Any

from training.networks import trunks
from training.networks.classifier import Classifier, Head, Trunk

ARCHITECTURES: dict[str, Trunk] = {
    "small-cnn": trunks.SMALL_CNN,
    "vgg16": trunks.VGG16,
    "resnet50": trunks.RESNET50,
    "densenet121": trunks.DENSENET121,
    "densenet121-attention": trunks.DENSENET121,
    "efficientnet-b0": trunks.EFFICIENTNET_B0,
    "efficientnet-b4": trunks.EFFICIENTNET_B4,
    "vit-small": trunks.VIT_SMALL,
}
DEFAULT = "densenet121-attention"


def build_classifier(architecture: str, head: Head) -> Classifier:
    """A network by name, its weights random. "densenet121-attention" alone takes the head's attention, of ratio 16
    where the head has none."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"no architecture {architecture!r}; there are {', '.join(ARCHITECTURES)}")
    ratio = (head.attention_ratio or 16) if architecture == "densenet121-attention" else None
    return Classifier(ARCHITECTURES[architecture], replace(head, attention_ratio=ratio))


def from_recipe(recipe: dict[str, Any]) -> Classifier:
    """The network of a recipe: its [model] names architecture, dropout, dropout_place and metadata.

    Its weights are random: `weights` says how a fit begins, and only a fit that begins fetches any.
    """
    model = recipe["model"]
    head = Head(
        n_labels=len(recipe["labels"]),
        dropout=model["dropout"],
        place=model.get("dropout_place", "head"),
        attention_ratio=model.get("attention_ratio"),
        metadata=tuple(model.get("metadata", ())),
    )
    if head.place not in ("head", "last_block"):
        raise ValueError(f"dropout_place is head or last_block, not {head.place!r}")
    return build_classifier(model.get("architecture", DEFAULT), head)

"""From a published DenseNet-121's names and shapes to ours."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from training.importing.checkpoint import Checkpoint
from training.importing.restricted import CheckpointError
from training.networks.classifier import Classifier, Head
from training.networks.imagenet import modern, to_one_channel
from training.networks.trunks import DENSENET121

Kind = Literal["torchvision-densenet121", "torchxrayvision-densenet121"]
PREFIXES = ("module.", "model.", "backbone.")
IMAGENET_MEAN, IMAGENET_SD = 0.449, 0.226  # of grey, the three colours' means
RANGES: dict[str, tuple[float, float]] = {  # what black and white are to each kind
    "torchvision-densenet121": (-IMAGENET_MEAN / IMAGENET_SD, (1.0 - IMAGENET_MEAN) / IMAGENET_SD),
    "torchxrayvision-densenet121": (-1024.0, 1024.0),
}
LABEL = re.compile(r"[^a-z0-9_ ]+")


@dataclass(frozen=True)
class Wanted:
    """A label of the package and the row of the published head that speaks of it."""

    label: str
    row: int


def trunk_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names -> tensors, of the features alone. Raises CheckpointError that names what is missing or misshapen."""
    wanted = {f"features.{key}": value for key, value in DENSENET121.build().state_dict().items()}
    named = _named(tensors)
    missing = [key for key in wanted if key not in named and not key.endswith("num_batches_tracked")]
    if missing:
        raise CheckpointError(f"no DenseNet-121: {len(missing)} tensors are missing, {missing[0]} among them")
    out = {}
    for key, own in wanted.items():
        value = to_one_channel(named.get(key, own), own)
        if value.shape != own.shape:
            raise CheckpointError(f"{key} has the shape {tuple(value.shape)}, not {tuple(own.shape)}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{key} holds a number that is none")
        out[key] = value.to(own.dtype)
    return out


def network_of(checkpoint: Checkpoint, wanted: Sequence[Wanted]) -> Classifier:
    """The published trunk with those rows of its head; no dropout, no attention, in eval mode."""
    named = _named(checkpoint.tensors)
    weight, bias = named.get("classifier.weight"), named.get("classifier.bias")
    if weight is None or bias is None or weight.shape != (len(bias), DENSENET121.channels[2]):
        raise CheckpointError("it has no linear classifier over 1,024 features")
    net = Classifier(DENSENET121, Head(len(wanted), dropout=0.0))
    rows = [one.row for one in wanted]
    head = {"classifier.weight": weight[rows].float(), "classifier.bias": bias[rows].float()}
    net.load_state_dict(trunk_of(checkpoint.tensors) | head)
    return net.eval()


def wanted_labels(asked: Sequence[str], checkpoint: Checkpoint) -> tuple[Wanted, ...]:
    """asked: "Pneumonia" or "pneumonia=8". Names are looked up in what a whole module says of itself; without names,
    and as many labels as the head has rows, they are taken in order. Raises CheckpointError."""
    bias = _named(checkpoint.tensors).get("classifier.bias")
    rows = 0 if bias is None else len(bias)
    names = [str(name).lower() for name in names_of(checkpoint.attributes)]
    out = []
    for at, text in enumerate(asked):
        name, _, number = text.partition("=")
        if number.isdigit():
            row = int(number)
        elif name.lower() in names:
            row = names.index(name.lower())
        elif not number and len(asked) == rows and not names:
            row = at
        else:
            raise CheckpointError(f"which of the head's {rows} rows is {name}? Say {name}=ROW{_known(names)}")
        if row >= rows:
            raise CheckpointError(f"{name}: the head has {rows} rows, counted from 0")
        out.append(Wanted(LABEL.sub(" ", name.lower().replace("_", " ")).strip(), row))
    if len({one.label for one in out}) < len(asked):
        raise CheckpointError("two labels have the same name")
    return tuple(out)


def names_of(attributes: Mapping[str, Any]) -> Sequence[Any]:
    """TorchXRayVision's modules list their targets, "" for a row that was never trained."""
    found = attributes.get("targets", attributes.get("pathologies", ()))
    return found if isinstance(found, list | tuple) else ()


def _known(names: Sequence[str]) -> str:
    told = ", ".join(name for name in names if name)
    return f" (it names {told})" if told else ""


def _named(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without wrappers' prefixes and with torchvision's present names."""
    out = {}
    for key, value in tensors.items():
        bare = key
        for prefix in PREFIXES:
            bare = bare.removeprefix(prefix)
        out[modern(bare)] = value
    return out

"""The graphs of a trained network: exported twice, in float32 and with halved weights, and both held against torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from inference.manifest import InputSpec
from training.packaging.export import export, halve_weights, save
from training.packaging.look import CLASSIFIER, Model

PARITY_BATCH = 24  # images held in memory at once
PARITY_FP32 = 1e-4
PARITY_FP16 = 5e-3
MODEL = "model.onnx"
EXACT = "model-fp32.onnx"  # in the run's folder; the package has the other
Parity = dict[str, Any]  # by graph, by output


class ParityError(RuntimeError):
    """A graph does not say what torch says."""


def write_graphs(
    net: nn.Module,
    spec: InputSpec,
    run: Path,
    folder: Path,
    threads: int,
    outputs: tuple[str, ...] = CLASSIFIER,
    name: str = MODEL,
) -> tuple[Model, Model]:
    """FOLDER/name with halved weights and RUN/model-fp32.onnx, each as a session; in that order."""
    full = export(net, spec.height, outputs)
    save(full, run / EXACT)
    save(halve_weights(full), folder / name)
    return Model(folder / name, spec, threads, outputs), Model(run / EXACT, spec, threads, outputs)


def agreement(
    net: nn.Module,
    half: Model,
    exact: Model,
    images: NDArray[np.float32],
    at_most: Mapping[str, float] = {"scores": PARITY_FP16},
) -> Parity:
    """What parity measures of both graphs. Raises ParityError when one does not agree with torch.

    at_most: the outputs that are judged, with what halved weights may move them; float32 may by PARITY_FP32.
    """
    measured = {"fp32_against_torch": parity(net, exact, images), "fp16_against_torch": parity(net, half, images)}
    full, stored = measured["fp32_against_torch"], measured["fp16_against_torch"]
    if not all(full[name] <= PARITY_FP32 and stored[name] <= limit for name, limit in at_most.items()):
        raise ParityError(f"the export does not agree with torch: {measured}")
    return measured


@torch.inference_mode()
def parity(net: nn.Module, model: Model, images: NDArray[np.float32]) -> dict[str, float]:
    """The greatest absolute difference of each output between torch and the runtime, on the same masks.

    images: (N, 1, H, W) float32 in the value range. Returns it by output, and N as "images".
    """
    worst = dict.fromkeys(model.names, 0.0)
    for start in range(0, len(images), PARITY_BATCH):
        batch = images[start : start + PARITY_BATCH]
        for name, there, here in zip(worst, net(torch.from_numpy(batch)), model.run(batch), strict=True):
            worst[name] = float(np.maximum(worst[name], np.abs(there.numpy() - here).max()))  # NaN stays
    return worst | {"images": len(images)}


def standardised(net: Any, raw: Sequence[torch.Tensor]) -> NDArray[np.float32]:
    """Sets the net's feature_mean and feature_scale by the batches of raw features (each (n, C)) of the training
    split, and returns all of them standardised, (N, C)."""
    features = torch.cat(list(raw))
    net.standardise(features)
    return np.asarray(((features - net.feature_mean) / net.feature_scale).numpy())

"""Fit one recipe: progressive sizes, one-cycle rate, averaged weights, a checkpoint after every epoch."""

import copy
import json
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor
from tqdm import tqdm

from training.data.images import LabelledImages, read_chest_pneumonia, split
from training.fitting.augment import augment
from training.networks.densenet import AttentionDenseNet

Recipe = dict[str, Any]


def read_recipe(path: Path) -> Recipe:
    return tomllib.loads(path.read_text())


def read_splits(recipe: Recipe, data: Path) -> dict[str, LabelledImages]:
    low, high = recipe["percentiles"]
    images = read_chest_pneumonia(data / recipe["data"], recipe["size"], (low, high))
    return split(images, recipe["split"], recipe["name"])


def build(recipe: Recipe) -> AttentionDenseNet:
    model = recipe["model"]
    return AttentionDenseNet(len(recipe["labels"]), model["dropout"], model["attention_ratio"])


def to_range(batch: Tensor, recipe: Recipe) -> Tensor:
    low, high = recipe["value_range"]
    return (batch * (high - low) + low).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def predict(net: AttentionDenseNet, images: LabelledImages, recipe: Recipe, size: int) -> np.ndarray:
    """Logits (N, L) without dropout."""
    net.eval()
    out = []
    for start in range(0, len(images), 64):
        batch = torch.from_numpy(images.pixels[start : start + 64]).float().unsqueeze(1) / 255.0
        if size != batch.shape[-1]:
            batch = F.interpolate(batch, size=(size, size), mode="bilinear", antialias=True)
        with torch.autocast("cpu", torch.bfloat16):
            out.append(net(to_range(batch, recipe)).float())
    return torch.cat(out).numpy()


def fit(recipe: Recipe, data: Path, out: Path) -> AttentionDenseNet:
    """Train and return the averaged network. Resumes from `out`/checkpoint.pt when one is there."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe["seed"])
    splits = read_splits(recipe, data)
    train, calibration = splits["train"], splits["calibration"]
    options = recipe["fit"]
    net = build(recipe).to(memory_format=torch.channels_last)
    ema = copy.deepcopy(net)
    plan = [stage["size"] for stage in options["stages"] for _ in range(stage["epochs"])]
    steps = len(train) // options["batch"]
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=options["weight_decay"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options["max_lr"], total_steps=steps * len(plan))
    state: dict[str, Any] = {"net": net, "ema": ema, "optimiser": optimiser, "schedule": schedule}
    first = _resume(out / "checkpoint.pt", state)
    positive_share = train.labels.mean(axis=0)
    weights = torch.from_numpy(np.stack([0.5 / (1 - positive_share), 0.5 / positive_share]).astype(np.float32))
    for epoch in range(first, len(plan)):
        started = time.monotonic()
        loss = _epoch(net, ema, train, recipe, plan[epoch], optimiser, schedule, weights, seed=recipe["seed"] + epoch)
        logits = predict(ema, calibration, recipe, plan[epoch])
        line = {
            "epoch": epoch,
            "size": plan[epoch],
            "loss": loss,
            "calibration_auc": float(roc_auc_score(calibration.labels[:, 0], logits[:, 0])),
            "seconds": time.monotonic() - started,
        }
        with (out / "curve.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        torch.save({"epoch": epoch} | {k: v.state_dict() for k, v in state.items()}, out / "checkpoint.pt")
    torch.save(ema.state_dict(), out / "weights.pt")
    return ema


def _resume(path: Path, state: dict[str, Any]) -> int:
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    for name, part in state.items():
        part.load_state_dict(saved[name])
    return int(saved["epoch"]) + 1


def _epoch(
    net: AttentionDenseNet,
    ema: AttentionDenseNet,
    train: LabelledImages,
    recipe: Recipe,
    size: int,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    weights: Tensor,
    seed: int,
) -> float:
    """One pass over the training images; returns the mean loss. weights: (2, L), per class of 0 and 1."""
    options = recipe["fit"]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=generator)
    batches = order[: len(order) // options["batch"] * options["batch"]].view(-1, options["batch"])
    net.train()
    total = 0.0
    for index in tqdm(batches, desc=f"size {size}", unit="batch", mininterval=10):
        pixels = torch.from_numpy(train.pixels[index.numpy()]).float().unsqueeze(1) / 255.0
        labels = torch.from_numpy(train.labels[index.numpy()])
        image = to_range(augment(pixels, size, generator), recipe)
        soft = labels * (1 - 2 * options["label_smoothing"]) + options["label_smoothing"]
        per_item = torch.where(labels > 0.5, weights[1], weights[0])
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(image)
        loss = F.binary_cross_entropy_with_logits(logits.float(), soft, weight=per_item)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), options["clip_norm"])
        optimiser.step()
        schedule.step()
        _average(ema, net, options["ema_decay"])
        total += float(loss.detach())
    return total / len(batches)


@torch.no_grad()
def _average(ema: AttentionDenseNet, net: AttentionDenseNet, decay: float) -> None:
    for mean, now in zip(ema.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(now, 1 - decay)
        else:
            mean.copy_(now)

"""Fit a detector: the targets on its grid, the loss, the epochs. Checkpoint, resume and a CSV curve as elsewhere."""

import copy
import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from training.data.fracture import BoxedImages, Boxes, read_fracture, split
from training.detection_recipe import DetectionRecipe
from training.fitting.box_augment import Changes, augment
from training.fitting.checkpoint import average, keep, resume, write
from training.networks.detector import STRIDE, FractureDetector, McDetector, Widths
from validation.boxes import average_precision, matched

NARROWEST = 0.6  # cells: the least sd of a centre's bump
CENTRAL = 0.2  # height of the bump from which a cell learns the box's edges
HEAT_POWER, NEAR_POWER = 2.0, 4.0  # of the focal loss (CenterNet)
CURVE = ("epoch", "loss_heat", "loss_edges", "ap_30", "ap_50", "seconds")


@dataclass(frozen=True)
class Targets:
    """heat: (N, 1, h, w) in [0, 1]. boxes: (N, 4, h, w); weight: (N, h, w), > 0 where the edges are to be learnt."""

    heat: Tensor
    boxes: Tensor
    weight: Tensor


def targets(boxes: list[Boxes], cells: int) -> Targets:
    """boxes: (K, 4) in [0, 1] for each of N images. The smaller box wins a cell that two claim."""
    n = len(boxes)
    heat, weight = torch.zeros(n, 1, cells, cells), torch.zeros(n, cells, cells)
    aims = torch.zeros(n, 4, cells, cells)
    at = torch.arange(cells, dtype=torch.float32) + 0.5
    for i, own in enumerate(boxes):
        for box in sorted(own.tolist(), key=lambda b: -(b[2] - b[0]) * (b[3] - b[1])):
            top, left, bottom, right = (side * cells for side in box)
            y, x = (min(int((low + high) / 2), cells - 1) + 0.5 for low, high in ((top, bottom), (left, right)))
            spread = [max(NARROWEST, (high - low) / 6.0) for low, high in ((top, bottom), (left, right))]
            bump = torch.outer(
                *(torch.exp(-((at - c) ** 2) / (2 * s * s)) for c, s in zip((y, x), spread, strict=True))
            )
            heat[i, 0] = torch.maximum(heat[i, 0], bump)
            central = bump > CENTRAL
            weight[i][central] = bump[central] / float(bump[central].sum())
            aims[i][:, central] = torch.tensor(box).unsqueeze(1)
    return Targets(heat, aims, weight)


def heat_loss(logits: Tensor, heat: Tensor) -> Tensor:
    """Focal loss over (N, 1, h, w), per centre."""
    score = torch.sigmoid(logits).clamp(1e-5, 1.0 - 1e-5)
    centre = heat > 0.999
    hit = ((1.0 - score) ** HEAT_POWER * torch.log(score))[centre].sum()
    rest = (score**HEAT_POWER * (1.0 - heat) ** NEAR_POWER * torch.log(1.0 - score))[~centre].sum()
    return -(hit + rest) / max(float(centre.sum()), 1.0)


def edge_loss(edges: Tensor, aim: Targets) -> Tensor:
    """1 - GIoU, weighted; the weights of each box sum to 1."""
    where = aim.weight > 0
    if not bool(where.any()):
        return edges.sum() * 0.0
    said = cell_boxes_unclamped(edges).permute(0, 2, 3, 1)[where]
    true, weight = aim.boxes.permute(0, 2, 3, 1)[where], aim.weight[where]
    return ((1.0 - giou(said, true)) * weight).sum() / weight.sum()


def cell_boxes_unclamped(edges: Tensor) -> Tensor:
    cells = edges.shape[2]
    at = torch.arange(cells, dtype=torch.float32) + 0.5
    y, x = at.view(1, cells, 1), at.view(1, 1, cells)
    up, left, down, right = edges.unbind(dim=1)
    return torch.stack([y - up, x - left, y + down, x + right], dim=1) / cells


def giou(one: Tensor, other: Tensor) -> Tensor:
    """(M, 4) each, top left bottom right. Returns (M,) in (-1, 1]."""
    low, high = torch.maximum(one[:, :2], other[:, :2]), torch.minimum(one[:, 2:], other[:, 2:])
    common = (high - low).clamp(min=0).prod(dim=1)
    areas = [(box[:, 2:] - box[:, :2]).clamp(min=0).prod(dim=1) for box in (one, other)]
    union = areas[0] + areas[1] - common + 1e-9
    hull = (torch.maximum(one[:, 2:], other[:, 2:]) - torch.minimum(one[:, :2], other[:, :2])).prod(dim=1) + 1e-9
    return common / union - (hull - union) / hull


def read_splits(recipe: DetectionRecipe, data: Path) -> dict[str, BoxedImages]:
    images = read_fracture(data / recipe.folder, recipe.size, recipe.percentiles)
    return split(images, recipe.split, recipe.name)


def build(recipe: DetectionRecipe) -> FractureDetector:
    widths = Widths(recipe.model.stages, recipe.model.blocks, recipe.model.head)
    return FractureDetector(1, widths, recipe.model.dropout)


def to_range(batch: Tensor, recipe: DetectionRecipe) -> Tensor:
    low, high = recipe.value_range
    return (batch * (high - low) + low).contiguous(memory_format=torch.channels_last)


def fit(recipe: DetectionRecipe, data: Path, out: Path) -> FractureDetector:
    """Train and return the averaged network. Resumes from `out`/checkpoint.pt when one is there."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    splits = read_splits(recipe, data)
    plan, train = recipe.fit, splits["train"]
    net = build(recipe).to(memory_format=torch.channels_last)
    state: dict[str, Any] = {"net": net, "ema": copy.deepcopy(net)}
    state["optimiser"] = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=plan.weight_decay)
    steps = (len(train) // plan.batch) * plan.epochs
    state["schedule"] = torch.optim.lr_scheduler.OneCycleLR(state["optimiser"], plan.max_lr, total_steps=steps)
    first = resume(out / "checkpoint.pt", state)
    _cut(out / "curve.csv", first)
    for epoch in range(first, plan.epochs):
        began = time.monotonic()
        line: dict[str, float] = {"epoch": epoch, **_epoch(state, train, recipe, epoch)}
        if (epoch + 1) % plan.judge_every == 0 or epoch + 1 == plan.epochs:
            line |= judge(state["ema"], splits["calibration"], recipe)
        _curve(out / "curve.csv", line | {"seconds": round(time.monotonic() - began, 1)})
        keep(out / "checkpoint.pt", epoch, state)
    write(state["ema"].state_dict(), out / "weights.pt")
    return state["ema"]


def _epoch(state: dict[str, Any], train: BoxedImages, recipe: DetectionRecipe, epoch: int) -> dict[str, float]:
    """One pass over the training images. Returns both mean losses."""
    plan, net = recipe.fit, state["net"]
    generator = torch.Generator().manual_seed(recipe.seed + epoch)
    order = torch.randperm(len(train), generator=generator)
    batches = order[: len(order) // plan.batch * plan.batch].view(-1, plan.batch)
    net.train()
    totals = np.zeros(2)
    progress = tqdm(batches, desc=f"epoch {epoch + 1} of {plan.epochs}", unit="batch", mininterval=10)
    for index in progress:
        pixels = torch.from_numpy(train.pixels[index.numpy()]).float().unsqueeze(1) / 255.0
        image, boxes = augment(pixels, [train.boxes[i] for i in index.tolist()], generator, Changes())
        aim = targets(boxes, recipe.size // STRIDE)
        state["optimiser"].zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.autocast):
            logits, edges = net(to_range(image, recipe))
        parts = heat_loss(logits.float(), aim.heat), edge_loss(edges.float(), aim)
        (parts[0] + plan.edge_weight * parts[1]).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), plan.clip_norm)
        state["optimiser"].step()
        state["schedule"].step()
        average(state["ema"], net, plan.ema_decay)
        totals += [float(part.detach()) for part in parts]
    means = totals / len(batches)
    return {"loss_heat": round(float(means[0]), 4), "loss_edges": round(float(means[1]), 4)}


@torch.inference_mode()
def predict(net: FractureDetector, images: BoxedImages, recipe: DetectionRecipe) -> tuple[Any, Any]:
    """Boxes (N, B, 4) in [0, 1] and their raw scores (N, B), best first."""
    graph, boxes, scores = McDetector(net, 1), [], []
    for start in range(0, len(images), 32):
        batch = torch.from_numpy(images.pixels[start : start + 32]).float().unsqueeze(1) / 255.0
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.fit.autocast):
            out = graph(to_range(batch, recipe))
        boxes.append(out[2].float().numpy())
        scores.append(out[3][:, :, 0].float().numpy())
    return np.concatenate(boxes), np.concatenate(scores)


def judge(net: FractureDetector, images: BoxedImages, recipe: DetectionRecipe) -> dict[str, float]:
    """Average precision on a split, by the torch network: for the curve only."""
    boxes, scores = predict(net, images, recipe)
    found: dict[str, float] = {}
    for name, iou in (("ap_30", 0.3), ("ap_50", 0.5)):
        hits = [matched(b, t, iou) for b, t in zip(boxes, images.boxes, strict=True)]
        found[name] = round(average_precision(scores, np.stack(hits), sum(map(len, images.boxes))), 4)
    return found


def _cut(path: Path, first: int) -> None:
    """Forget lines of epoch `first` and later: they are about to be fitted again."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if int(line["epoch"]) < first]
    path.unlink()
    for line in lines:
        _curve(path, line)


def _curve(path: Path, line: Mapping[str, float | str]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, CURVE)
        if fresh:
            writer.writeheader()
        writer.writerow(line)

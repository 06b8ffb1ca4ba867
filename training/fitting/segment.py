"""Fit a segmentation recipe: masks and slices together, small pictures first, averaged weights, a checkpoint an epoch.

An epoch is a fixed number of drawn slices, so that a fold with few patients gets the same schedule as one with many.
"""

import copy
import csv
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor
from tqdm import tqdm

from training.data.brain import MarkedSlices, as_the_node_sees, read_brain_flair, split_slices
from training.fitting.augment_slices import augment_slices
from training.fitting.checkpoint import average, keep, resume, write
from training.networks.resunet import ResUNet
from training.segmentation_recipe import SegmentationRecipe, SegmenterFit

CURVE = ("epoch", "size", "loss", "calibration_dice", "calibration_auc", "seconds")


def slice_splits(recipe: SegmentationRecipe, data: Path, leave_out: str | None = None) -> dict[str, MarkedSlices]:
    """train, calibration and test; with `leave_out` that institution is the test."""
    held_back = recipe.split.model_dump()
    return split_slices(read_brain_flair(data / recipe.folder), held_back, recipe.name, leave_out)


def build_resunet(recipe: SegmentationRecipe) -> ResUNet:
    return ResUNet(1, recipe.model.widths, recipe.model.dropout)


def to_value_range(batch: Tensor, recipe: SegmentationRecipe) -> Tensor:
    low, high = recipe.value_range
    return (batch * (high - low) + low).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def predict_slices(
    net: ResUNet, pictures: NDArray[np.float32], recipe: SegmentationRecipe
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """pictures: (N, size, size) as the node sees them. Returns masks (N, L, size, size) in (0, 1), logits (N, L)."""
    net.eval()
    masks, logits = [], []
    for start in range(0, len(pictures), 32):
        batch = torch.from_numpy(pictures[start : start + 32]).unsqueeze(1)
        with torch.autocast("cpu", torch.bfloat16):
            mask, logit = net(to_value_range(batch, recipe))
        masks.append(torch.sigmoid(mask.float()))
        logits.append(logit.float())
    return torch.cat(masks).numpy(), torch.cat(logits).numpy()


def dice_by_patient(masks: NDArray[np.bool_], truth: NDArray[np.bool_], patients: tuple[str, ...]) -> dict[str, float]:
    """masks, truth: (N, H, W). Over all slices of a patient at once; 1 where neither marks anything."""
    owner = np.array(patients)
    out = {}
    for patient in sorted(set(patients)):
        marked, true = masks[owner == patient], truth[owner == patient]
        total = int(marked.sum()) + int(true.sum())
        out[patient] = 2.0 * int((marked & true).sum()) / total if total else 1.0
    return out


def fit_segmentation(recipe: SegmentationRecipe, data: Path, out: Path, leave_out: str | None = None) -> ResUNet:
    """Train and return the averaged network. Resumes from `out`/checkpoint.pt when one is there."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    splits = slice_splits(recipe, data, leave_out)
    train = stretched(splits["train"], recipe)
    options = recipe.fit
    net = build_resunet(recipe).to(memory_format=torch.channels_last)
    stages = options.fold_stages if leave_out else options.stages
    plan = [stage.size for stage in stages for _ in range(stage.epochs)]
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=options.weight_decay)
    total = len(plan) * (options.epoch_slices // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.max_lr, total_steps=total, pct_start=0.2)
    ema = copy.deepcopy(net)
    state: dict[str, Any] = {"net": net, "ema": ema, "optimiser": optimiser, "schedule": schedule}
    for epoch in range(resume(out / "checkpoint.pt", state), len(plan)):
        began = time.monotonic()
        loss = _epoch(state, train, recipe, plan[epoch], seed=recipe.seed + epoch)
        figures = _watch(ema, splits["calibration"], recipe, plan[epoch])
        _note(out / "curve.csv", (epoch, plan[epoch], round(loss, 5), *figures, round(time.monotonic() - began, 1)))
        keep(out / "checkpoint.pt", epoch, state)
    write(ema.state_dict(), out / "weights.pt")
    return ema


def loss_of(masks: Tensor, logits: Tensor, truth: Tensor, options: SegmenterFit) -> Tensor:
    """masks: (N, L, H, W) logits; logits: (N, L); truth: (N, L, H, W) in {0, 1}.

    Cross-entropy and Dice over the whole batch, in which empty slices count as well; and the slice's own cross-entropy.
    """
    masks, logits = masks.float(), logits.float()
    probability = torch.sigmoid(masks)
    overlap, total = (probability * truth).sum(), probability.sum() + truth.sum()
    dice = 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)
    pixels = F.binary_cross_entropy_with_logits(masks, truth)
    present = (truth.flatten(2).sum(dim=2) >= options.least_pixels).float()
    slices = F.binary_cross_entropy_with_logits(logits, present)
    return dice + options.pixel_weight * pixels + options.slice_weight * slices


def draw_epoch(train: MarkedSlices, options: SegmenterFit, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) indices in random order: marked slices in their share, a patient's few more often than another's many."""
    marked = np.flatnonzero(train.marked)
    empty = np.flatnonzero(~train.marked)
    owners = [train.patients[i] for i in marked]
    weight = np.array([owners.count(owner) ** -0.5 for owner in owners])
    wanted = round(options.epoch_slices * options.marked_share)
    some = rng.choice(marked, wanted, p=weight / weight.sum())
    others = rng.choice(empty, options.epoch_slices - wanted, replace=options.epoch_slices - wanted > len(empty))
    return rng.permutation(np.concatenate([some, others]))


def stretched(slices: MarkedSlices, recipe: SegmentationRecipe) -> MarkedSlices:
    """The same slices in their own size, each stretched: noise that is added is then in proportion to the head."""
    side = slices.pixels.shape[1]
    pictures = as_the_node_sees(slices.pixels, side, recipe.shape, recipe.percentiles)
    return replace(slices, pixels=np.rint(pictures * 255.0).astype(np.uint8))


def _epoch(state: dict[str, Any], train: MarkedSlices, recipe: SegmentationRecipe, size: int, seed: int) -> float:
    """One epoch of drawn slices; returns the mean loss."""
    options, net, total = recipe.fit, state["net"], 0.0
    torch.manual_seed(seed)  # the dropout's: a run that goes on drops what it would have dropped
    generator = torch.Generator().manual_seed(seed)
    order = draw_epoch(train, options, np.random.default_rng(seed))
    batches = order[: len(order) // options.batch * options.batch].reshape(-1, options.batch)
    net.train()
    for index in tqdm(batches, desc=f"size {size}", unit="batch", mininterval=10):
        pixels = torch.from_numpy(train.pixels[index]).float().unsqueeze(1) / 255.0
        truth = torch.from_numpy(train.masks[index]).float().unsqueeze(1)
        images, truth = augment_slices(pixels, truth, size, recipe.percentiles, generator)
        state["optimiser"].zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            masks, logits = net(to_value_range(images, recipe))
        loss = loss_of(masks, logits, truth, options)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), options.clip_norm)
        state["optimiser"].step()
        state["schedule"].step()
        average(state["ema"], net, options.ema_decay)
        total += float(loss.detach())
    return total / len(batches)


def _watch(net: ResUNet, held_out: MarkedSlices, recipe: SegmentationRecipe, size: int) -> tuple[float, float]:
    """Mean Dice over patients and slice AUC on the calibration split, at the training size: for the curve only."""
    pictures = as_the_node_sees(held_out.pixels, size, recipe.shape, recipe.percentiles)
    truth = as_the_node_sees(held_out.masks * np.uint8(255), size, recipe.shape, (0.0, 100.0)) > 0.5
    masks, logits = predict_slices(net, pictures, recipe)
    dice = dice_by_patient(masks[:, 0] > 0.5, truth, held_out.patients)
    area = float(roc_auc_score(held_out.marked, logits[:, 0]))
    return round(float(np.mean(list(dice.values()))), 4), round(area, 4)


def _note(path: Path, line: tuple[float, ...]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(CURVE)
        writer.writerow(line)


def read_slice_curve(path: Path) -> list[dict[str, str]]:
    """The last line of each epoch; none where the file is missing."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list({line["epoch"]: line for line in csv.DictReader(file)}.values())

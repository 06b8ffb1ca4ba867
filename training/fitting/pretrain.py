"""Self-supervised start: VICReg (Bardes, Ponce, LeCun 2022) on every image of the train split, labelled or not.

Two draws of one picture should look alike to the trunk (invariance), while every figure of the projection keeps its
spread over a batch (variance) and tells something of its own (covariance). No negatives, no second network, small
batches: it runs on a CPU.
"""

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from training.data.images import LabelledImages
from training.fitting.augment import augment
from training.fitting.beginning import begin_from
from training.fitting.checkpoint import keep, resume, write
from training.fitting.network import build, device_of, pixels_of, to_range
from training.fitting.phases import cosine
from training.recipe import Recipe, RecipeError

CHECKPOINT = "pretrain.pt"
INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0
WEIGHT_DECAY = 1e-4


class Projected(nn.Module):
    """The trunk of a classifier with a projector that is thrown away afterwards."""

    def __init__(self, net: Any, width: int) -> None:
        super().__init__()
        self.net = net
        self.projector = nn.Sequential(
            nn.Linear(net.feature_channels, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
        )

    def forward(self, image: Tensor) -> Tensor:
        """image: (N, 1, H, W). Returns (N, width)."""
        return self.projector(self.net.feature_maps(image).mean(dim=(2, 3)))


def vicreg(one: Tensor, other: Tensor) -> Tensor:
    """one, other: (N, width), two views of the same pictures in the same order."""
    spread = sum(F.relu(1.0 - torch.sqrt(z.var(dim=0) + 1e-4)).mean() for z in (one, other)) / 2
    shared = sum(_off_diagonal(z) for z in (one, other))
    return INVARIANCE * F.mse_loss(one, other) + VARIANCE * spread + COVARIANCE * shared


def _off_diagonal(z: Tensor) -> Tensor:
    """The sum of the squared covariances of different figures, over their number."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (len(z) - 1)
    squared = covariance.pow(2)
    return (squared.sum() - squared.diagonal().sum()) / z.shape[1]


def pretrain(recipe: Recipe, train: LabelledImages, out: Path) -> Path:
    """Fit and write `out`/weights.pt, the trunk alone: name it as `fit.init`. Resumes from `out`/pretrain.pt."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    plan, device = recipe.pretrain, device_of(recipe)
    net = build(recipe)
    if not (out / CHECKPOINT).exists():
        begin_from(net, recipe, out)
    model = Projected(net, plan.projector).to(device).to(memory_format=torch.channels_last)
    steps = len(train) // plan.batch
    if not steps:
        raise RecipeError(f"{len(train)} images do not fill one batch of {plan.batch}")
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.max_lr, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: cosine(step, steps * plan.epochs))
    state: dict[str, Any] = {"model": model, "optimiser": optimiser, "schedule": schedule}
    for epoch in range(resume(out / CHECKPOINT, state), plan.epochs):
        began = time.monotonic()
        loss, spread = _epoch(model, train, recipe, optimiser, schedule, recipe.seed + epoch)
        line = {"epoch": epoch, "loss": loss, "spread": spread, "seconds": round(time.monotonic() - began, 1)}
        tqdm.write(f"epoch {epoch + 1}/{plan.epochs}: loss {loss:.3f}, mean sd of the projection {spread:.4f}")
        _append(out / "pretrain.csv", line)
        keep(out / CHECKPOINT, epoch, state)
    trunk = {key: value for key, value in model.net.state_dict().items() if key.startswith("features")}
    write(trunk, out / "weights.pt")
    return out / "weights.pt"


def _epoch(
    model: Projected,
    train: LabelledImages,
    recipe: Recipe,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    seed: int,
) -> tuple[float, float]:
    """Returns the mean loss and the mean sd of the projection over the last batch (0: everything looks the same)."""
    plan, device = recipe.pretrain, device_of(recipe)
    torch.manual_seed(seed)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).numpy()
    changing = torch.Generator(device).manual_seed(seed)
    names = list(dict.fromkeys(train.column("domain").tolist()))
    domains = torch.tensor([names.index(name) for name in train.column("domain").tolist()])
    model.train()
    losses = []
    for start in tqdm(range(0, len(order) // plan.batch * plan.batch, plan.batch), desc="pretrain", mininterval=10):
        index = order[start : start + plan.batch]
        pixels, where = pixels_of(train, index, device), domains[index].to(device)
        both = [augment(pixels, plan.size, changing, recipe.augment, where) for _ in range(2)]
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.fit.autocast):
            z = model(to_range(torch.cat(both), recipe))
        one, other = z.float().chunk(2)
        loss = vicreg(one, other)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.fit.clip_norm)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses)), float(one.detach().std(dim=0).mean())


def _append(path: Path, line: dict[str, float]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(line))
        if fresh:
            writer.writeheader()
        writer.writerow(line)

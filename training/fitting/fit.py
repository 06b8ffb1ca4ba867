"""Fit one recipe: stages of sizes, a schedule, averaged weights, a checkpoint after every epoch.

The same recipe and seed give the same run, also when it was cut off and goes on: every epoch seeds itself.
"""

import copy
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.data.distribution import report
from training.data.images import LabelledImages
from training.data.sampler import Sampler
from training.data.splits import read_splits
from training.fitting.augment import augment
from training.fitting.beginning import begin_from
from training.fitting.checkpoint import average, write
from training.fitting.curves import Curves, aucs, plot
from training.fitting.loss import LabelLoss
from training.fitting.network import build, device_of, known_of, pixels_of, predict, to_range
from training.fitting.phases import Epoch, Rate, begin, epochs_of, train_mode
from training.networks.metadata import hide
from training.recipe import Recipe, RecipeError, parse_recipe, read_recipe

__all__ = ["Recipe", "build", "fit", "fit_splits", "predict", "read_recipe", "read_splits", "to_range"]

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.pt"


@dataclass
class Best:
    """The best epoch of the last stage, by the AUC of the calibration split."""

    auc: float = -math.inf
    epoch: int = -1


class Run:
    """One fit in one folder."""

    def __init__(self, recipe: Recipe, splits: dict[str, LabelledImages], out: Path) -> None:
        self.recipe, self.out, self.device = recipe, out, device_of(recipe)
        self.train, self.calibration = splits["train"], splits["calibration"].labelled()
        torch.manual_seed(recipe.seed)
        self.net: nn.Module = build(recipe)
        if not (out / CHECKPOINT).exists():
            tqdm.write(f"beginning from {begin_from(self.net, recipe, out)}", file=sys.stderr)
        self.net = self.net.to(self.device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.net)
        self.sampler = Sampler(self.train, recipe)
        drawn = self.sampler.epoch(torch.Generator().manual_seed(recipe.seed))
        self.steps = len(drawn) // recipe.fit.batch
        if not self.steps:
            raise RecipeError(f"an epoch of {len(drawn)} images does not fill one batch of {recipe.fit.batch}")
        self.loss = LabelLoss(recipe.loss, self.train.labels[drawn], self.device)
        self.known = known_of(self.train, recipe)
        domains = {name: i for i, name in enumerate(dict.fromkeys(self.train.column("domain").tolist()))}
        self.domains = torch.tensor([domains[name] for name in self.train.column("domain").tolist()])
        self.epochs = epochs_of(recipe.fit)
        self.best = Best()
        self.rate: Rate | None = None

    def go(self) -> nn.Module:
        curves = Curves(self.out)
        first = self.resume()
        curves.cut(first)
        for number in range(first, len(self.epochs)):
            if self.stopped(number):
                tqdm.write(f"no better AUC since epoch {self.best.epoch}: stopped before epoch {number}")
                break
            line = self.one(number)
            curves.add(line)
            self.save(number)
        if self.recipe.fit.keep == "best" and (self.out / "best.pt").exists():
            self.ema.load_state_dict(torch.load(self.out / "best.pt", weights_only=True, map_location=self.device))
        write(self.ema.state_dict(), self.out / WEIGHTS)
        plot(self.out)
        return self.ema

    def stopped(self, number: int) -> bool:
        patience = self.recipe.fit.patience_epochs
        return bool(patience) and self.best.epoch >= 0 and number - self.best.epoch > patience

    def one(self, number: int) -> dict[str, float]:
        """Fit one epoch and measure it on the calibration split."""
        began, epoch = time.monotonic(), self.epochs[number]
        rate = self.rate_of(number)
        lr = max(group["lr"] for group in rate.optimiser.param_groups)
        loss = self.pass_over(epoch, rate, self.recipe.seed + number)
        found = aucs(self.calibration, predict(self.ema, self.calibration, self.recipe, epoch.size), self.recipe)
        auc = found["calibration_auc"]
        rate.after_epoch(auc)
        if epoch.last_stage and (auc > self.best.auc or self.best.epoch < 0):
            self.best = Best(auc if math.isfinite(auc) else -math.inf, number)
            write(self.ema.state_dict(), self.out / "best.pt")
        shown = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        tqdm.write(f"epoch {number + 1}/{len(self.epochs)} at {epoch.size} pixels: loss {loss:.4f}, {shown}")
        head = {"epoch": float(number), "size": float(epoch.size), "lr": lr, "loss": loss}
        return head | found | {"seconds": round(time.monotonic() - began, 1)}

    def rate_of(self, number: int) -> Rate:
        """The phase's optimiser and schedule; new where a phase begins."""
        epoch = self.epochs[number]
        if self.rate is None or self.epochs[number - 1].phase != epoch.phase:
            length = sum(other.phase == epoch.phase for other in self.epochs)
            self.rate = begin(self.net, self.recipe.fit, epoch, self.steps * length)
        return self.rate

    def pass_over(self, epoch: Epoch, rate: Rate, seed: int) -> float:
        """One epoch; returns the mean loss."""
        torch.manual_seed(seed)
        drawing = torch.Generator().manual_seed(seed)
        changing = torch.Generator(self.device).manual_seed(seed)
        size = self.recipe.fit.batch
        order = self.sampler.epoch(drawing)
        train_mode(self.net, epoch)
        total = torch.zeros((), device=self.device)
        for step in tqdm(range(self.steps), desc=f"size {epoch.size}", unit="batch", mininterval=10):
            index = order[step * size : (step + 1) * size]
            loss = self.loss(*self.look(index, epoch, drawing, changing))
            rate.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.fit.clip_norm)
            rate.optimiser.step()
            rate.after_batch()
            average(self.ema, self.net, self.recipe.fit.ema_decay)
            total += loss.detach()
        return float(total) / self.steps

    def look(
        self, index: Any, epoch: Epoch, drawing: torch.Generator, changing: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Logits and labels of one batch, (N, L) each."""
        pixels = pixels_of(self.train, index, self.device)
        domains = self.domains[index].to(self.device)
        image = to_range(augment(pixels, epoch.size, changing, self.recipe.augment, domains), self.recipe)
        told: tuple[Tensor, ...] = ()
        if self.known is not None:
            told = (hide(self.known[index], self.recipe.fit.metadata_hidden, drawing).to(self.device),)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.fit.autocast):
            logits = self.net(image, *told)
        return logits.float(), torch.from_numpy(self.train.labels[index]).to(self.device)

    def save(self, number: int) -> None:
        assert self.rate is not None
        state = {
            "epoch": number,
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "rate": self.rate.state_dict(),
            "best": {"auc": self.best.auc, "epoch": self.best.epoch},
        }
        write(state, self.out / CHECKPOINT)

    def resume(self) -> int:
        """The epoch to go on with."""
        path = self.out / CHECKPOINT
        if not path.exists():
            return 0
        saved = torch.load(path, weights_only=True, map_location=self.device)
        number = int(saved["epoch"])
        self.net.load_state_dict(saved["net"])
        self.ema.load_state_dict(saved["ema"])
        self.best = Best(**saved["best"])
        self.rate_of(number).load_state_dict(saved["rate"])
        return number + 1


def fit(recipe: Recipe, data: Path, out: Path) -> nn.Module:
    """Train and return the network that is kept. Resumes from `out`/checkpoint.pt when one is there."""
    return fit_splits(recipe, read_splits(recipe, data), out)


def fit_splits(recipe: Recipe, splits: dict[str, LabelledImages], out: Path) -> nn.Module:
    """The same with images that are in memory: train and calibration are used."""
    out.mkdir(parents=True, exist_ok=True)
    _same_recipe(recipe, out)
    (out / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n")
    report(splits, recipe, out)
    return Run(recipe, splits, out).go()


def _same_recipe(recipe: Recipe, out: Path) -> None:
    """Half a run by one recipe and half by another would be neither. What is said of the package may change."""
    if not (out / CHECKPOINT).exists() or not (out / "recipe.json").exists():
        return
    earlier = parse_recipe(json.loads((out / "recipe.json").read_text()), str(out / "recipe.json"))
    if earlier.model_copy(update={"package": None}) != recipe.model_copy(update={"package": None}):
        raise RecipeError(f"{out} holds a run of another recipe: name another folder, or remove {CHECKPOINT}")

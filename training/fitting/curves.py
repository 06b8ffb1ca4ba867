"""What a fit reports: a line of CSV after every epoch, TensorBoard where it is installed, a picture at the end."""

import csv
import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from training.data.images import LabelledImages
from training.recipe import Recipe

Line = dict[str, float]


def aucs(images: LabelledImages, logits: NDArray[np.float32], recipe: Recipe) -> Line:
    """auc_<domain>_<label> for each that has both classes, and `calibration_auc`, the mean over domains of the mean
    over labels (NaN where there is none)."""
    domains = images.column("domain")
    out: Line = {}
    means = []
    for domain in dict.fromkeys(domains.tolist()):
        found = {}
        for i, label in enumerate(recipe.labels):
            chosen = (domains == domain) & ~np.isnan(images.labels[:, i])
            truth = images.labels[chosen, i] > 0.5
            if truth.any() and not truth.all():
                found[f"auc_{domain or 'all'}_{label}"] = float(roc_auc_score(truth, logits[chosen, i]))
        out |= found
        means += [sum(found.values()) / len(found)] if found else []
    return out | {"calibration_auc": sum(means) / len(means) if means else math.nan}


class Curves:
    """curve.csv in the run's folder, and TensorBoard's events beside it when tensorboard can be imported."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "curve.csv"
        self.board = _board(folder / "tensorboard")

    def cut(self, first: int) -> None:
        """Forget lines of epoch `first` and later: they are about to be fitted again."""
        lines = [line for line in read_curve(self.path) if line["epoch"] < first]
        self.path.unlink(missing_ok=True)
        for line in lines:
            self._append(line)

    def add(self, line: Line) -> None:
        self._append(line)
        if self.board is not None:
            for name, value in line.items():
                self.board.add_scalar(name, value, int(line["epoch"]))
            self.board.flush()

    def _append(self, line: Line) -> None:
        fresh = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(line))
            if fresh:
                writer.writeheader()
            writer.writerow(line)


def read_curve(path: Path) -> list[Line]:
    """The lines of curve.csv; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def plot(folder: Path) -> None:
    """curve.png out of curve.csv: loss, rate, and the AUC of each domain over the epochs."""
    from matplotlib.figure import Figure  # slow to import, needed once

    lines = read_curve(folder / "curve.csv")
    if not lines:
        return
    epochs = [line["epoch"] for line in lines]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [line["loss"] for line in lines], "k.-", label="loss")
    left.set(xlabel="epoch", ylabel="training loss")
    rate = left.twinx()
    rate.plot(epochs, [line["lr"] for line in lines], color="0.6", linestyle=":")
    rate.set(ylabel="learning rate (dotted)", yscale="log")
    for name in lines[0]:
        if "auc" in name:
            width = 2.5 if name == "calibration_auc" else 1.2
            right.plot(epochs, [line[name] for line in lines], marker=".", linewidth=width, label=name)
    right.set(xlabel="epoch", ylabel="AUC, calibration split")
    right.legend(fontsize=8)
    right.grid(alpha=0.3)
    figure.savefig(folder / "curve.png", dpi=110)


def _board(folder: Path) -> Any:
    try:
        importlib.import_module("tensorboard")
    except ImportError:
        return None
    return importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder))

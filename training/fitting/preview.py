"""A contact sheet of what the augmentation really does, and the class distribution before and after the sampler."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from training.data.distribution import ClassCount, distributions
from training.data.images import LabelledImages
from training.fitting.augment import augment
from training.recipe import Recipe

CELL = 1.5  # inches
COLOURS = {"with_it": "#b5452c", "without": "#3d6f8e", "unknown": "#c8c8c8"}


def chosen_rows(train: LabelledImages, per_domain: int, seed: int) -> NDArray[np.int64]:
    """(M,) indices: of each domain `per_domain` images, with and without the first label in turn where there are."""
    rng = np.random.default_rng(seed)
    domains, first = train.column("domain").astype(str), train.labels[:, 0]
    out: list[int] = []
    for domain in dict.fromkeys(domains.tolist()):
        pools = [np.flatnonzero((domains == domain) & kind) for kind in (first > 0.5, first <= 0.5, np.isnan(first))]
        pools = [rng.permutation(pool) for pool in pools if len(pool)]
        turns = [int(pool[i]) for i in range(per_domain) for pool in pools if i < len(pool)]
        out += turns[:per_domain]
    return np.array(out, np.int64)


def draws(train: LabelledImages, rows: NDArray[np.int64], recipe: Recipe, size: int, n: int) -> list[Tensor]:
    """n batches (M, 1, size, size): the chosen images as training would see them, all domains in one batch."""
    pixels = torch.from_numpy(train.pixels[rows]).float().unsqueeze(1) / 255.0
    domains = train.column("domain")[rows].tolist()
    numbers = torch.tensor([sorted(set(domains)).index(domain) for domain in domains])
    generator = torch.Generator().manual_seed(recipe.seed)
    return [augment(pixels, size, generator, recipe.augment, numbers) for _ in range(n)]


def preview(recipe: Recipe, splits: dict[str, LabelledImages], out: Path, per_domain: int = 4, n: int = 7) -> None:
    """Write the sheet to `out`: one image a row, the original first; below it the classes of each domain."""
    train, size = splits["train"], recipe.fit.stages[-1].size
    rows = chosen_rows(train, per_domain, recipe.seed)
    batches = draws(train, rows, recipe, size, n)
    height = len(rows) * CELL
    figure = Figure(figsize=((n + 1) * CELL + 0.6, height + 3.2), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[height, 2.8])
    top, bottom = halves
    axes = top.subplots(len(rows), n + 1, squeeze=False)
    for i, row in enumerate(rows):
        _show(axes[i][0], train.pixels[row] / 255.0)
        axes[i][0].set_ylabel(_caption(train, int(row), recipe), fontsize=7)
        for j, batch in enumerate(batches):
            _show(axes[i][j + 1], batch[i, 0].numpy())
    axes[0][0].set_title("as read", fontsize=8)
    for j in range(n):
        axes[0][j + 1].set_title(f"draw {j + 1}, {size} px", fontsize=8)
    _bars(bottom, distributions({"train": train}, recipe), recipe.labels[0])
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)


def _show(axis: Any, picture: NDArray[np.floating[Any]]) -> None:
    axis.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0)
    axis.set_xticks([])
    axis.set_yticks([])


def _caption(train: LabelledImages, row: int, recipe: Recipe) -> str:
    value = float(train.labels[row, 0])
    said = "unknown" if np.isnan(value) else "with" if value > 0.5 else "without"
    return f"{train.column('domain')[row]} {train.column('view')[row]}\n{said} {recipe.labels[0]}"


def _bars(figure: Any, found: dict[str, list[ClassCount]], label: str) -> None:
    """One panel for each of "before" and "after": images with, without and unknown, by domain."""
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, (title, counts) in zip(axes, found.items(), strict=True):
        shown = [c for c in counts if c.label == label]
        left = np.zeros(len(shown))
        for name, colour in COLOURS.items():
            width = np.array([getattr(c, name) for c in shown])
            axis.barh([c.domain for c in shown], width, left=left, color=colour, label=name.replace("_", " "))
            left += width
        for i, c in enumerate(shown):
            axis.text(left[i], i, f" {c.share_with:.2f} with", va="center", fontsize=7)
        axis.set_title(f"{title}: {label}", fontsize=9)
        axis.set_xlim(0, left.max() * 1.25)
        axis.invert_yaxis()
        axis.tick_params(labelsize=7)
    axes[0].legend(fontsize=7, loc="lower right")

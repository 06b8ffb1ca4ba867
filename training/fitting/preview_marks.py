"""A contact sheet of what augmentation does to pictures together with their boxes or masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from training.data.brain import MarkedSlices
from training.data.fracture import BoxedImages, Boxes
from training.detection_recipe import DetectionRecipe
from training.fitting.augment_slices import augment_slices
from training.fitting.box_augment import Changes, augment
from training.fitting.segment import stretched
from training.segmentation_recipe import SegmentationRecipe

CELL = 1.5  # inches
INK = "#46dc78"


@dataclass(frozen=True)
class Marked:
    """picture: (H, W) in [0, 1]; boxes: (K, 4) in [0, 1] of it; mask: (H, W), or None."""

    picture: NDArray[np.floating[Any]]
    boxes: Boxes
    mask: NDArray[np.bool_] | None = None


def preview_boxes(recipe: DetectionRecipe, train: BoxedImages, out: Path, images: int = 4, draws: int = 7) -> None:
    """Write the sheet: a picture with a box of each of some groups a row, as read first, then as training draws it."""
    rows = one_of_each([len(own) > 0 for own in train.boxes], train.groups, images, recipe.seed)
    boxes = [train.boxes[i] for i in rows]
    columns = [[Marked(train.pixels[i] / 255.0, train.boxes[i]) for i in rows]]
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(draws):
        pixels = torch.from_numpy(train.pixels[rows]).float().unsqueeze(1) / 255.0
        moved, followed = augment(pixels, boxes, generator, Changes())
        columns.append([Marked(one[0].numpy(), own) for one, own in zip(moved, followed, strict=True)])
    sheet(columns, [f"{len(own)} boxes" if len(own) > 1 else "1 box" for own in boxes], recipe.size, out)


def preview_masks(recipe: SegmentationRecipe, train: MarkedSlices, out: Path, images: int = 4, draws: int = 7) -> None:
    """The same with a marked slice of each of some patients."""
    rows = one_of_each(train.marked.tolist(), train.patients, images, recipe.seed)
    some, size = stretched(train.where(np.isin(np.arange(len(train)), rows)), recipe), recipe.fit.stages[-1].size
    none = np.zeros((0, 4), np.float32)
    columns = [[Marked(p / 255.0, none, m > 0) for p, m in zip(some.pixels, some.masks, strict=True)]]
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(draws):
        pixels = torch.from_numpy(some.pixels).float().unsqueeze(1) / 255.0
        masks = torch.from_numpy(some.masks).float().unsqueeze(1)
        moved, followed = augment_slices(pixels, masks, size, recipe.percentiles, generator)
        columns.append([Marked(p[0].numpy(), none, m[0].numpy() > 0.5) for p, m in zip(moved, followed, strict=True)])
    sheet(columns, list(some.institutions), size, out)


def one_of_each(marked: Sequence[bool], owners: Sequence[str], most: int, seed: int) -> list[int]:
    """Indices, rising, of at most `most` marked pictures, drawn, no two of one owner."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(np.array(marked, bool)))
    first: dict[str, int] = {}
    for i in order.tolist():
        first.setdefault(owners[i], i)
    return sorted(list(first.values())[:most])


def sheet(columns: Sequence[Sequence[Marked]], captions: Sequence[str], size: int, out: Path) -> None:
    """columns: the first as read, the others draws, all with the same rows."""
    figure = Figure(figsize=(len(columns) * CELL + 0.6, len(captions) * CELL + 0.4), layout="constrained")
    axes = figure.subplots(len(captions), len(columns), squeeze=False)
    for j, column in enumerate(columns):
        axes[0][j].set_title(f"draw {j}, {size} px" if j else "as read", fontsize=8)
        for i, one in enumerate(column):
            _show(axes[i][j], one)
    for i, caption in enumerate(captions):
        axes[i][0].set_ylabel(caption, fontsize=7)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)


def _show(axis: Any, one: Marked) -> None:
    axis.imshow(one.picture, cmap="gray", vmin=0.0, vmax=1.0)
    axis.set_xticks([])
    axis.set_yticks([])
    height, width = one.picture.shape
    for top, left, bottom, right in one.boxes.tolist():
        corner, sides = (left * width, top * height), ((right - left) * width, (bottom - top) * height)
        axis.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=INK, linewidth=1.0))
    if one.mask is not None and one.mask.any():
        axis.contour(one.mask, levels=[0.5], colors=INK, linewidths=0.8)

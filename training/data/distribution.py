"""How many images of each class stand in each domain, before the sampler and after it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from training.data.images import LabelledImages
from training.data.sampler import Sampler
from training.recipe import Recipe

WIDTH = 100  # characters: a narrower log would cut the labels


@dataclass(frozen=True)
class ClassCount:
    """Of one domain and one label."""

    domain: str
    label: str
    images: int
    with_it: int
    without: int
    unknown: int
    patients: int

    @property
    def share_with(self) -> float:
        """Of those that are known; NaN where none is."""
        known = self.with_it + self.without
        return self.with_it / known if known else float("nan")


def count_classes(data: LabelledImages, labels: tuple[str, ...]) -> list[ClassCount]:
    """One line for each domain and label. A smoothed uncertain label counts by its half."""
    counts = []
    for domain, part in data.by_domain().items():
        for i, label in enumerate(labels):
            values = part.labels[:, i]
            unknown = int(np.isnan(values).sum())
            ill = int((values > 0.5).sum())
            counts.append(
                ClassCount(domain, label, len(part), ill, len(part) - ill - unknown, unknown, len(set(part.groups)))
            )
    return counts


def table(title: str, counts: list[ClassCount]) -> Table:
    out = Table(title=title, title_justify="left")
    for name in ("domain", "label", "images", "patients", "with", "without", "unknown", "share with"):
        out.add_column(name, justify="left" if name in {"domain", "label"} else "right")
    for c in counts:
        numbers = (c.images, c.patients, c.with_it, c.without, c.unknown)
        out.add_row(c.domain, c.label, *map(str, numbers), f"{c.share_with:.3f}")
    return out


def distributions(splits: dict[str, LabelledImages], recipe: Recipe) -> dict[str, list[ClassCount]]:
    """By name: each split as it is, and one epoch of the training split as the sampler draws it."""
    train = splits["train"]
    sampler = Sampler(train, recipe)
    drawn = train.take(np.sort(sampler.epoch(torch.Generator().manual_seed(recipe.seed))))
    found = {f"{name} split": count_classes(part, recipe.labels) for name, part in splits.items()}
    return found | {f"one epoch, sampler {recipe.sampler.method}": count_classes(drawn, recipe.labels)}


def report(splits: dict[str, LabelledImages], recipe: Recipe, folder: Path | None = None) -> None:
    """Shown on the terminal; with a folder also its distribution.txt and distribution.json."""
    found = distributions(splits, recipe)
    tables = [table(title, counts) for title, counts in found.items()]
    terminal = Console(stderr=True)
    terminal.width = max(terminal.width, WIDTH)
    terminal.print(*tables, sep="\n")
    if folder is None:
        return
    with (folder / "distribution.txt").open("w") as file:
        Console(file=file, width=WIDTH).print(*tables, sep="\n")
    fields = {title: [asdict(c) for c in counts] for title, counts in found.items()}
    (folder / "distribution.json").write_text(json.dumps(fields, indent=2) + "\n")

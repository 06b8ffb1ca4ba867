"""Which images an epoch consists of: domain by domain, class by class, so that neither gives the other away."""

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.images import LabelledImages
from training.recipe import DataSet, Recipe

Cell = tuple[str, str]  # domain, class


class Sampler:
    """Draws epochs from the images of which a label is known. The same seed draws the same epoch."""

    def __init__(self, data: LabelledImages, recipe: Recipe) -> None:
        self.plan = recipe.sampler
        self.usable = np.flatnonzero(~np.isnan(data.labels).all(axis=1))
        if not len(self.usable):
            raise ValueError("no image of the training split has a label")
        known = data.take(self.usable)
        domains = known.column("domain").astype(str) if self.plan.domains == "balanced" else np.full(len(known), "")
        classes = class_names(known) if self.plan.classes == "balanced" else np.full(len(known), "")
        self.cells: dict[Cell, NDArray[np.int64]] = {
            (domain, kind): self.usable[(domains == domain) & (classes == kind)]
            for domain in sorted(set(domains.tolist()))
            for kind in sorted(set(classes[domains == domain].tolist()))
        }
        self.shares = cell_shares(list(self.cells), recipe.data)
        if self.plan.domains == "natural":
            self.shares = self._natural(self.shares)

    def _natural(self, shares: dict[Cell, float]) -> dict[Cell, float]:
        """Classes balanced over all domains together."""
        return {cell: 1.0 / len(shares) for cell in shares}

    def epoch_images(self) -> int:
        """How many images an epoch has: all; or, over- and undersampled, what the scarcest cell asks for."""
        if self.plan.method == "over":
            return round(max(len(self.cells[cell]) / share for cell, share in self.shares.items()))
        if self.plan.method == "under":
            return max(1, int(min(len(self.cells[cell]) / share for cell, share in self.shares.items())))
        return self.plan.epoch_images or len(self.usable)

    def epoch(self, generator: torch.Generator) -> NDArray[np.int64]:
        """(M,) indices into the split, shuffled."""
        if self.plan.method == "shuffle":
            return self.usable[torch.randperm(len(self.usable), generator=generator).numpy()]
        n = self.epoch_images()
        if self.plan.method == "weighted":
            drawn = self._weighted(n, generator)
        else:
            parts = [self._even(cell, round(n * share), generator) for cell, share in self.shares.items()]
            drawn = np.concatenate(parts)
        return drawn[torch.randperm(len(drawn), generator=generator).numpy()]

    def _weighted(self, n: int, generator: torch.Generator) -> NDArray[np.int64]:
        """With replacement, each cell by its share."""
        index = np.concatenate(list(self.cells.values()))
        weight = np.concatenate(
            [np.full(len(self.cells[cell]), s / len(self.cells[cell])) for cell, s in self.shares.items()]
        )
        return index[torch.multinomial(torch.from_numpy(weight), n, replacement=True, generator=generator).numpy()]

    def _even(self, cell: Cell, n: int, generator: torch.Generator) -> NDArray[np.int64]:
        """n of the cell, each image equally often, give or take one."""
        members = self.cells[cell]
        rest = torch.randperm(len(members), generator=generator).numpy()[: n % len(members)]
        return np.concatenate([np.tile(members, n // len(members)), members[rest]])


def class_names(data: LabelledImages) -> NDArray[np.str_]:
    """(N,) "with", "without" or "unknown", by the first label."""
    first = data.labels[:, 0]
    return np.where(np.isnan(first), "unknown", np.where(first > 0.5, "with", "without"))


def cell_shares(cells: list[Cell], sets: tuple[DataSet, ...]) -> dict[Cell, float]:
    """Shares of an epoch that add up to 1: each domain by its set's share, its classes alike."""
    weight = {plan.domain: plan.share for plan in sets}
    domains = [domain for domain, _ in cells]
    raw = {cell: weight.get(cell[0], 1.0) / domains.count(cell[0]) for cell in cells}
    return {cell: value / sum(raw.values()) for cell, value in raw.items()}

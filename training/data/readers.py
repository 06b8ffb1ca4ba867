"""The chest sets: who is in them, and what of the recipe's labels is known of each image.

A reader lists `Row`s; reading pixels is the same for all. A label that a set says nothing about is NaN.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.histogram import Histogram
from training.data.chexpert import chexpert_rows
from training.data.images import LabelledImages, read_pixels
from training.data.rows import UNKNOWN, Row
from training.recipe import DataSet, Recipe, RecipeError

OPACITY = ("Pneumonia", "Infiltration", "Consolidation", "Edema")  # what a pneumonia can look like on a film
POSITIVE = {"pneumonia": OPACITY}


@dataclass(frozen=True)
class _Known:
    """Which findings mean, and which deny, a label."""

    positive: frozenset[str]
    negative: frozenset[str]

    def of(self, findings: frozenset[str]) -> float:
        if findings & self.positive:
            return 1.0
        return 0.0 if findings & self.negative else UNKNOWN


def chest_pneumonia_rows(folder: Path, labels: Sequence[str], plan: DataSet) -> list[Row]:
    """The paediatric set (1 to 5 years, AP, one hospital): knows `pneumonia` and nothing else."""
    return [
        Row(
            name=row["image"],
            file=folder / "images" / row["image"],
            labels=tuple(float(row["label"] == label) if label == "pneumonia" else UNKNOWN for label in labels),
            group=row["patient_group"],
            view="AP",
        )
        for row in _table(folder / plan.table)
    ]


def chest_adult_rows(folder: Path, labels: Sequence[str], plan: DataSet) -> list[Row]:
    """NIH ChestX-ray14: text-mined findings. A label is known where a finding means it or all findings deny it."""
    means = POSITIVE | plan.positive
    known = [_Known(frozenset(means.get(label, ())), frozenset(plan.negative)) for label in labels]
    return [
        Row(
            name=row["image"],
            file=folder / "images" / row["image"],
            labels=tuple(one.of(frozenset(row["findings"].split("|"))) for one in known),
            group=f"nih-{row['patient_id']}",
            age_years=float(row["age_years"]) if row["age_years"] else UNKNOWN,
            sex=row["sex"],
            view=row["view"],
        )
        for row in _table(folder / plan.table)
    ]


READERS: dict[str, Callable[[Path, Sequence[str], DataSet], list[Row]]] = {
    "chest_pneumonia": chest_pneumonia_rows,
    "chest_adult": chest_adult_rows,
    "csv": chexpert_rows,
}


def read_set(plan: DataSet, recipe: Recipe, data: Path) -> LabelledImages:
    """One data set of the recipe, whole."""
    rows = READERS[plan.reader](data / plan.folder, recipe.labels, plan)
    chosen = [row for row in rows if all(getattr(row, name) == value for name, value in plan.where.items())]
    if not chosen:
        raise RecipeError(f"{plan.domain}: no row of {plan.folder} has {plan.where}")
    return assemble(chosen, plan.domain, recipe.size, recipe.percentiles, recipe.histogram)


def assemble(
    rows: Sequence[Row], domain: str, size: int, percentiles: tuple[float, float], histogram: Histogram = "none"
) -> LabelledImages:
    return LabelledImages(
        tuple(row.name for row in rows),
        read_pixels([row.file for row in rows], size, percentiles, domain, histogram),
        np.array([row.labels for row in rows], np.float32),
        tuple(row.group for row in rows),
        {
            "file": np.array([str(row.file) for row in rows]),
            "domain": np.full(len(rows), domain),
            "site": np.array([row.site or domain for row in rows]),
            "sex": np.array([row.sex for row in rows]),
            "view": np.array([row.view for row in rows]),
            "age_years": np.array([row.age_years for row in rows], np.float64),
        },
    )


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))

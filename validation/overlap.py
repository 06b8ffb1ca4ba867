"""How well marked pixels agree with a person's: Dice per patient, from counts that can be gathered slice by slice."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from validation.bootstrap import draws_of, interval


@dataclass(frozen=True)
class Counts:
    """Pixels of N images, each (N,): marked by the model, marked by the person, marked by both."""

    model: NDArray[np.int64]
    person: NDArray[np.int64]
    both: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.both)


def count(model: NDArray[np.bool_], person: NDArray[np.bool_]) -> Counts:
    """model, person: (N, rows, columns) or (N, depth, rows, columns), True where marked."""
    if model.shape != person.shape:
        raise ValueError(f"masks of {model.shape} and {person.shape} do not lie over each other")
    axes = tuple(range(1, model.ndim))
    sums = (np.count_nonzero(mask, axis=axes) for mask in (model, person, model & person))
    return Counts(*(np.asarray(one, np.int64) for one in sums))


def joined(parts: Iterable[Counts]) -> Counts:
    """The images of several batches in a row."""
    kept = list(parts)
    return Counts(*(np.concatenate([getattr(part, name) for part in kept]) for name in ("model", "person", "both")))


def dice(counts: Counts) -> NDArray[np.float64]:
    """(N,) in [0, 1]; NaN where neither the model nor the person marked anything."""
    marked = counts.model + counts.person
    return np.asarray(np.divide(2.0 * counts.both, marked, out=np.full(len(marked), np.nan), where=marked > 0))


def by_patient(counts: Counts, patients: Sequence[str]) -> tuple[tuple[str, ...], Counts]:
    """All images of a patient as one volume: names in order, and their counts."""
    names, index = np.unique(np.asarray(patients, dtype=str), return_inverse=True)

    def summed(values: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(index, values, len(names)).astype(np.int64)

    return tuple(map(str, names)), Counts(summed(counts.model), summed(counts.person), summed(counts.both))


def patient_dice(counts: Counts, patients: Sequence[str], draws: int = 2000, seed: int = 1) -> dict[str, Any]:
    """The mean over patients of each patient's Dice over all images, with a bootstrap over patients.

    Patients in whom nobody marked anything have no Dice: they are counted as `empty` and are in no mean.
    """
    _, volumes = by_patient(counts, patients)
    each = dice(volumes)
    values = each[np.isfinite(each)]
    figures: dict[str, Any] = {"patients": len(values), "empty": int(np.isnan(each).sum()), "images": len(counts)}
    if not len(values):
        return {"mean": None, "bootstrap95_by_patient": None, "median": None, "least": None, **figures}
    weights = draws_of(len(values), draws, seed)
    return {
        "mean": round(float(values.mean()), 4),
        "bootstrap95_by_patient": interval(weights @ values / len(values)),
        "median": round(float(np.median(values)), 4),
        "least": round(float(values.min()), 4),
        **figures,
    }

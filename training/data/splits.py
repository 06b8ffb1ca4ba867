"""Who belongs to which split: decided by the patient, never by the image."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.images import LabelledImages, join, position_of, split, split_of
from training.data.readers import read_set
from training.recipe import DataSet, Recipe, RecipeError

__all__ = ["fold_of", "k_fold", "leave_out", "read_splits", "split", "split_of", "split_set"]

TEST = "test"


def fold_of(groups: Sequence[str], folds: int, salt: str) -> NDArray[np.int64]:
    """Group k-fold: the fold in 0..folds-1 of each image. Patients, in the order of their hash, are dealt out in turn,
    so that the folds differ by one patient at most."""
    patients = sorted(set(groups), key=lambda group: position_of(group, salt))
    dealt = {group: i % folds for i, group in enumerate(patients)}
    return np.array([dealt[group] for group in groups], np.int64)


def k_fold(
    data: LabelledImages, folds: int, fold: int, fractions: Mapping[str, float], salt: str
) -> dict[str, LabelledImages]:
    """test: that fold; the other patients by the remaining fractions."""
    return _rest_split(data, fold_of(data.groups, folds, salt) == fold, fractions, salt)


def leave_out(
    data: LabelledImages, column: str, value: str, fractions: Mapping[str, float], salt: str
) -> dict[str, LabelledImages]:
    """test: every image whose column has the value; the rest by the remaining fractions, without the patients of test
    (a patient who was seen at two institutions stays out of training)."""
    held = data.column(column).astype(str) == value
    if not held.any():
        raise RecipeError(f"hold_out: nobody's {column} is {value!r}")
    patients = {group for group, out in zip(data.groups, held, strict=True) if out}
    either = np.array([group in patients for group in data.groups])
    parts = _rest_split(data.where(~either), np.zeros(int((~either).sum()), bool), fractions, salt)
    return parts | {TEST: data.where(held)}


def _rest_split(
    data: LabelledImages, test: NDArray[np.bool_], fractions: Mapping[str, float], salt: str
) -> dict[str, LabelledImages]:
    others = {name: share for name, share in fractions.items() if name != TEST}
    total = sum(others.values())
    parts = split(data.where(~test), {name: share / total for name, share in others.items()}, salt)
    return parts | {TEST: data.where(test)}


def split_set(data: LabelledImages, plan: DataSet, recipe: str) -> dict[str, LabelledImages]:
    """As the data set's plan says. recipe: its name, the salt where the plan has none."""
    salt = plan.salt or recipe
    if plan.folds:
        return k_fold(data, plan.folds, plan.fold, plan.split, salt)
    if plan.hold_out:
        return leave_out(data, plan.hold_out.column, plan.hold_out.value, plan.split, salt)
    return split(data, plan.split, salt)


def read_splits(recipe: Recipe, data: Path) -> dict[str, LabelledImages]:
    """train, calibration and test over all data sets; unlabelled images are among them."""
    sets = [split_set(read_set(plan, recipe, data), plan, recipe.name) for plan in recipe.data]
    names = dict.fromkeys(name for parts in sets for name in parts)
    return {name: join([parts[name] for parts in sets if name in parts]) for name in names}

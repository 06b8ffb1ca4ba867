"""Masks that a person drew, against those of a segmentation package, image by image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ledger.records import ImageResult
from ledger.store import Store
from validation.overlap import Counts, count, joined, patient_dice

Mask = NDArray[np.bool_]


def dice_figures(
    results: Sequence[ImageResult],
    masks: Sequence[Path | None],
    patients: Sequence[str],
    label: str,
    store: Store,
    draws: int,
) -> dict[str, Any]:
    """Patient-mean Dice. An image not looked at counts as one in which nothing was marked; an empty cell of the table
    as one in which nothing is to be marked. Masks that cannot be read or do not fit their image are left out, counted.
    """
    found = [_counts(*pair, label, store) for pair in zip(results, masks, strict=True)]
    usable = [counts for counts in found if counts is not None]
    if not usable:
        return {"mean": None, "bootstrap95_by_patient": None, "masks_not_usable": len(found)}
    kept = [patient for patient, counts in zip(patients, found, strict=True) if counts is not None]
    return {**patient_dice(joined(usable), kept, draws), "masks_not_usable": len(found) - len(usable)}


def _counts(result: ImageResult, mask: Path | None, label: str, store: Store) -> Counts | None:
    own = next((one for one in result.masks if one.label == label), None)
    try:
        person = read_mask(mask) if mask is not None else None
        model = read_mask(store.path(own.path)) if own is not None else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    shape = next((one.shape for one in (person, model) if one is not None), (1, 1))
    blank = np.zeros(shape, bool)
    model, person = (blank if one is None else one for one in (model, person))
    return count(model[np.newaxis], person[np.newaxis]) if model.shape == person.shape else None


def read_mask(path: Path) -> Mask:
    """A PNG as (rows, columns), True where it is not black."""
    with Image.open(path, formats=("PNG",)) as picture:
        return np.asarray(picture.convert("L")) > 0

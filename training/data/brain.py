"""Slices with tumour masks (`brain_flair`), and splits of its patients.

Pixels stay as they were read: resize and stretch are the node's own (inference/fit_input.py) and come last, after
whatever augmentation does. Slices of one grey are left out, since the node refuses them (inference/gate.py).
"""

import csv
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from inference.fit_input import Fit, resize, stretch
from training.recipe import RecipeError


@dataclass(frozen=True)
class MarkedSlices:
    """Slices in memory with what is known of each; all have the same length N."""

    names: tuple[str, ...]
    pixels: NDArray[np.uint8]  # (N, H, W), greyscale as read
    masks: NDArray[np.uint8]  # (N, H, W) in {0, 1}
    patients: tuple[str, ...]
    institutions: tuple[str, ...]
    positions: tuple[int, ...]  # of the slice in its patient's series

    def __len__(self) -> int:
        return len(self.names)

    @property
    def marked(self) -> NDArray[np.bool_]:
        """(N,): which slices show a tumour."""
        return np.asarray(self.masks.any(axis=(1, 2)))

    def where(self, chosen: NDArray[np.bool_]) -> "MarkedSlices":
        index = np.flatnonzero(chosen)
        columns = (self.names, self.patients, self.institutions, self.positions)
        names, patients, institutions, positions = (tuple(column[i] for i in index) for column in columns)
        return MarkedSlices(names, self.pixels[index], self.masks[index], patients, institutions, positions)  # type: ignore[arg-type]


def read_brain_flair(folder: Path) -> MarkedSlices:
    """The whole set, in order of patient and slice."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (row["patient"], int(row["slice"])))
    kept, pixels, masks = [], [], []
    for row in tqdm(rows, desc="reading", unit="slice", mininterval=5):
        grey = _grey(folder / "images" / row["image"])
        if grey.min() == grey.max():
            continue
        mask = _grey(folder / "masks" / row["mask"]) > 127 if row["mask"] else np.zeros(grey.shape, np.bool_)
        kept.append(row)
        pixels.append(grey)
        masks.append(mask.astype(np.uint8))
    return MarkedSlices(
        tuple(row["image"] for row in kept),
        np.stack(pixels),
        np.stack(masks),
        tuple(row["patient"] for row in kept),
        tuple(row["institution"] for row in kept),
        tuple(int(row["slice"]) for row in kept),
    )


def split_patients(
    patients: Sequence[str],
    institutions: Sequence[str],
    fractions: dict[str, float],
    salt: str,
    leave_out: str | None = None,
) -> dict[str, set[str]]:
    """Patients of train, calibration and test. patients, institutions: (N,), of each slice.

    Without `leave_out` each institution gives its share to each part, rounded; one with fewer than 1 / share patients
    gives none but to train. With it, that institution is the test, and the others give to calibration only. Raises
    RecipeError for an institution that has nobody.
    """
    homes = dict(zip(patients, institutions, strict=True))
    if leave_out is not None and leave_out not in homes.values():
        raise RecipeError(
            f"no patient is of the institution {leave_out}: there are {', '.join(sorted(set(homes.values())))}"
        )
    parts: dict[str, set[str]] = {"train": set(), "calibration": set(), "test": set()}
    for home in sorted(set(homes.values())):
        own = sorted((patient for patient in homes if homes[patient] == home), key=lambda name: _rank(name, salt))
        if home == leave_out:
            parts["test"].update(own)
            continue
        held = math.floor(fractions["calibration"] * len(own) + 0.5)
        tested = 0 if leave_out else math.floor(fractions["test"] * len(own) + 0.5)
        parts["calibration"].update(own[:held])
        parts["test"].update(own[held : held + tested])
        parts["train"].update(own[held + tested :])
    return parts


def split_slices(
    data: MarkedSlices, fractions: dict[str, float], salt: str, leave_out: str | None = None
) -> dict[str, MarkedSlices]:
    parts = split_patients(data.patients, data.institutions, fractions, salt, leave_out)
    owner = np.array(data.patients)
    return {name: data.where(np.isin(owner, sorted(chosen))) for name, chosen in parts.items()}


def as_the_node_sees(
    pixels: NDArray[np.uint8], size: int, fit: Fit, percentiles: tuple[float, float]
) -> NDArray[np.float32]:
    """pixels: (N, H, W). Returns (N, size, size) float32 in [0, 1]: resized, then stretched slice by slice."""
    out = np.empty((len(pixels), size, size), np.float32)
    for i, slice_ in enumerate(pixels):
        out[i] = stretch(resize(slice_.astype(np.float32) / np.float32(255.0), size, size, fit), *percentiles)
    return out


def _rank(patient: str, salt: str) -> bytes:
    return hashlib.sha256(f"{salt}:{patient}".encode()).digest()


def _grey(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"), np.uint8)

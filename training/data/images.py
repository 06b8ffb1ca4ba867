"""Images and patient-level splits of the training sets."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from inference.fit_input import resize, stretch


@dataclass(frozen=True)
class LabelledImages:
    """Pictures in memory with what is known of each; all arrays have the same length N."""

    names: tuple[str, ...]
    pixels: NDArray[np.uint8]  # (N, size, size), greyscale
    labels: NDArray[np.float32]  # (N, L) in {0, 1}
    groups: tuple[str, ...]  # the patient, or the best stand-in for one

    def __len__(self) -> int:
        return len(self.names)

    def where(self, mask: NDArray[np.bool_]) -> "LabelledImages":
        index = np.flatnonzero(mask)
        return LabelledImages(
            tuple(self.names[i] for i in index),
            self.pixels[index],
            self.labels[index],
            tuple(self.groups[i] for i in index),
        )


def read_chest_pneumonia(folder: Path, size: int, percentiles: tuple[float, float]) -> LabelledImages:
    """The paediatric set, squashed to `size`, stretched to its percentiles and kept as 8 bit."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pixels = np.empty((len(rows), size, size), np.uint8)
    for i, row in enumerate(tqdm(rows, desc="reading", unit="image", mininterval=5)):
        with Image.open(folder / "images" / row["image"]) as picture:
            grey = np.asarray(picture.convert("L"), np.float32) / 255.0
        fitted = stretch(resize(grey, size, size, "squash"), *percentiles)
        pixels[i] = np.round(fitted * 255.0)
    labels = np.array([[row["label"] == "pneumonia"] for row in rows], np.float32)
    return LabelledImages(
        tuple(row["image"] for row in rows), pixels, labels, tuple(row["patient_group"] for row in rows)
    )


def split_of(group: str, fractions: dict[str, float], salt: str) -> str:
    """Which split a patient belongs to: decided by a hash of the group alone, so no patient can ever cross."""
    position = int.from_bytes(hashlib.sha256(f"{salt}:{group}".encode()).digest()[:8], "big") / 2**64
    edge = 0.0
    for name, fraction in fractions.items():
        edge += fraction
        if position < edge:
            return name
    return name


def split(data: LabelledImages, fractions: dict[str, float], salt: str) -> dict[str, LabelledImages]:
    """Cut by patient group. fractions: name -> share of patients, summing to 1."""
    membership = np.array([split_of(group, fractions, salt) for group in data.groups])
    return {name: data.where(membership == name) for name in fractions}

"""Images in memory with what is known of each, and the hash that decides which split a patient belongs to."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.fit_input import resize
from inference.histogram import Histogram, normalised

Column = NDArray[Any]


@dataclass(frozen=True)
class LabelledImages:
    """Pictures in memory with what is known of each; all arrays have the same length N."""

    names: tuple[str, ...]
    pixels: NDArray[np.uint8]  # (N, size, size), greyscale
    labels: NDArray[np.float32]  # (N, L) in [0, 1]; NaN: not known
    groups: tuple[str, ...]  # the patient, or the best stand-in for one
    columns: Mapping[str, Column] = field(default_factory=dict)  # each (N,); see `column`

    def __len__(self) -> int:
        return len(self.names)

    def column(self, name: str) -> Column:
        """file, domain, site, sex ("F", "M", ""), view ("PA", "AP", "") as str, age_years as float, NaN: not known."""
        if name in self.columns:
            return self.columns[name]
        if name == "age_years":
            return np.full(len(self), np.nan)
        if name in {"file", "domain", "site", "sex", "view"}:
            return np.full(len(self), "")
        raise KeyError(f"no column {name}; there are {', '.join(self.columns)}")

    def where(self, mask: NDArray[np.bool_]) -> "LabelledImages":
        return self.take(np.flatnonzero(mask))

    def take(self, index: NDArray[np.int64]) -> "LabelledImages":
        return LabelledImages(
            tuple(self.names[i] for i in index),
            self.pixels[index],
            self.labels[index],
            tuple(self.groups[i] for i in index),
            {name: values[index] for name, values in self.columns.items()},
        )

    def labelled(self) -> "LabelledImages":
        """Those of which at least one label is known."""
        return self.where(np.asarray(~np.isnan(self.labels).all(axis=1)))

    def only(self, column: str, value: str) -> "LabelledImages":
        """Those whose column has this value."""
        return self.where(np.array([str(one) == value for one in self.column(column)], bool))

    def by_domain(self) -> dict[str, "LabelledImages"]:
        return {str(name): self.only("domain", name) for name in dict.fromkeys(self.column("domain").tolist())}


def join(parts: Sequence[LabelledImages]) -> LabelledImages:
    """One after the other. Every column that any part has; where a part lacks it, not known."""
    names = dict.fromkeys(name for part in parts for name in part.columns)
    return LabelledImages(
        tuple(name for part in parts for name in part.names),
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.labels for part in parts]),
        tuple(group for part in parts for group in part.groups),
        {name: np.concatenate([part.column(name) for part in parts]) for name in names},
    )


def read_pixels(
    files: Sequence[Path], size: int, percentiles: tuple[float, float], what: str, histogram: Histogram = "none"
) -> NDArray[np.uint8]:
    """(N, size, size): each picture squashed to `size`, normalised as the node does, and kept as 8 bit."""
    from tqdm import tqdm  # of the extra `train`: what is read from a table alone does without

    pixels = np.empty((len(files), size, size), np.uint8)
    for i, file in enumerate(tqdm(files, desc=f"reading {what}", unit="image", mininterval=5)):
        with Image.open(file) as picture:
            grey = np.asarray(picture.convert("L"), np.float32) / np.float32(255.0)
        pixels[i] = np.round(normalised(resize(grey, size, size, "squash"), percentiles, histogram) * 255.0)
    return pixels


def position_of(group: str, salt: str) -> float:
    """In [0, 1), by a hash of the patient alone."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{group}".encode()).digest()[:8], "big") / 2**64


def split_of(group: str, fractions: Mapping[str, float], salt: str) -> str:
    """Which split a patient belongs to: decided by a hash of the group alone, so no patient can ever cross."""
    position, edge = position_of(group, salt), 0.0
    for name, fraction in fractions.items():
        edge += fraction
        if position < edge:
            return name
    return name


def split(data: LabelledImages, fractions: Mapping[str, float], salt: str) -> dict[str, LabelledImages]:
    """Cut by patient group. fractions: name -> share of patients, summing to 1."""
    membership = np.array([split_of(group, fractions, salt) for group in data.groups])
    return {name: data.where(membership == name) for name in fractions}

"""Figures of boxes: which of them hit, average precision, sensitivity at so many false boxes an image (FROC).

Boxes are (K, 4) top, left, bottom, right in one unit for both sides; scores fall along a row of boxes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
NOBODY = -1


def overlap(one: Floats, other: Floats) -> NDArray[np.float64]:
    """IoU of (A, 4) with (B, 4): (A, B) in [0, 1]."""
    a, b = one[:, np.newaxis].astype(np.float64), other[np.newaxis].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = sides.clip(min=0.0).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))


def matched(boxes: Floats, truth: Floats, iou: float) -> NDArray[np.int64]:
    """For each box, best first, the true box that it finds (index), or -1. A true box is found once."""
    found = np.full(len(boxes), NOBODY, np.int64)
    if len(truth) == 0:
        return found
    table = overlap(boxes, truth)
    for i, row in enumerate(table):
        best = int(row.argmax())
        if row[best] >= iou:
            found[i] = best
            table[:, best] = 0.0
    return found


@dataclass(frozen=True)
class Found:
    """Boxes of N images. scores: (N, B) falling along a row; hits: (N, B), as `matched` says; true: (N,) how many."""

    scores: Floats
    hits: NDArray[np.int64]
    true: NDArray[np.int64]

    def where(self, rows: NDArray[np.int64]) -> "Found":
        """These images, in this order; one may come twice."""
        return Found(self.scores[rows], self.hits[rows], self.true[rows])


def average_precision(scores: Floats, hits: NDArray[np.int64], true: int) -> float:
    """Area under precision over recall, precision made monotone, all boxes of all images in one row.

    scores, hits: (N, B). true: how many boxes there are to find.
    """
    order = np.argsort(-scores.ravel(), kind="stable")
    good = (hits.ravel() != NOBODY)[order]
    if true == 0 or not good.any():
        return 0.0
    precision = np.cumsum(good) / np.arange(1, len(good) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[good].sum() / true)


def sensitivity_at(found: Found, false_per_image: float) -> tuple[float, float]:
    """(share of the true boxes found, lowest score that counts) with at most so many false boxes an image."""
    order = np.argsort(-found.scores.ravel(), kind="stable")
    good = (found.hits.ravel() != NOBODY)[order]
    within = np.cumsum(~good) <= false_per_image * len(found.scores) + 1e-9
    total = int(found.true.sum())
    if total == 0 or not within.any():
        return 0.0, 1.0
    last = int(np.flatnonzero(within)[-1])
    return float(good[: last + 1].sum() / total), float(found.scores.ravel()[order][last])


def by_group(
    found: Found, groups: Sequence[str], figure: Callable[[Found], float], draws: int = 1000, seed: int = 1
) -> dict[str, object]:
    """A figure with its 95 % percentile interval from a bootstrap that draws whole groups."""
    rng = np.random.default_rng(seed)
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(index == i) for i in range(len(names))]
    values = [
        figure(found.where(np.concatenate([members[i] for i in rng.integers(0, len(names), len(names))])))
        for _ in range(draws)
    ]
    low, high = np.percentile(values, (2.5, 97.5))
    return {
        "value": round(figure(found), 4),
        "bootstrap95_by_group": [round(float(low), 4), round(float(high), 4)],
        "groups": len(names),
        "draws": draws,
    }

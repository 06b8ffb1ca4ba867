"""Figures with their uncertainty, in numpy alone: shares with Wilson intervals, calibration errors, yes/no figures.

Everywhere `truth` is (N,) in {0, 1}: 1 with the finding, 0 without; `probability` is (N,) in [0, 1].
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from validation.roc import auc, auc_by_group

__all__ = ["auc", "auc_by_group", "brier", "expected_calibration_error", "f1", "proportion", "reliability", "wilson"]

Z = 1.959963984540054  # two-sided 95 %
BINS = 15


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of hits out of n; 0 to 1 when n is 0."""
    if n == 0:
        return 0.0, 1.0
    share, spread = hits / n, Z**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z * np.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def proportion(hits: int, n: int) -> dict[str, Any]:
    """A share as it stands in validation.json; its value is None when n is 0."""
    low, high = wilson(hits, n)
    return {
        "value": round(hits / n, 4) if n else None,
        "hits": hits,
        "n": n,
        "wilson95": [round(low, 4), round(high, 4)],
    }


def f1(hits: int, misses: int, false_alarms: int) -> float | None:
    """Harmonic mean of sensitivity and positive predictive value; None when there is nothing to find nor found."""
    weight = 2 * hits + misses + false_alarms
    return 2 * hits / weight if weight else None


def brier(truth: NDArray[np.float64], probability: NDArray[np.float64]) -> float:
    """Mean squared distance of the probability from the truth: 0 is perfect, 0.25 is what a constant 0.5 gets."""
    return float(np.mean((probability - truth) ** 2))


def expected_calibration_error(truth: NDArray[np.float64], probability: NDArray[np.float64], bins: int = BINS) -> float:
    """Mean gap between stated and observed share over `bins` equally wide bins of the probability, weighted by n."""
    n, stated, observed = _binned(truth, probability, bins)
    return float(np.abs(stated - observed).sum() / max(n.sum(), 1))


def reliability(truth: NDArray[np.float64], probability: NDArray[np.float64], bins: int = BINS) -> list[dict[str, Any]]:
    """What each bin that holds images stated and what was true, for the calibration plot."""
    n, stated, observed = _binned(truth, probability, bins)
    return [
        {"stated": round(float(stated[b] / n[b]), 4), "observed": proportion(int(observed[b]), int(n[b]))}
        for b in np.flatnonzero(n)
    ]


def _binned(
    truth: NDArray[np.float64], probability: NDArray[np.float64], bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each bin: images, sum of their probabilities, images with the finding."""
    which = np.minimum((probability * bins).astype(int), bins - 1)
    sums = (np.bincount(which, weights, bins) for weights in (np.ones(len(truth)), probability, truth))
    n, stated, observed = (np.asarray(one, np.float64) for one in sums)
    return n, stated, observed

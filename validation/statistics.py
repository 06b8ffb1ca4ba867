"""Figures with their uncertainty, in numpy alone: shares with Wilson intervals, calibration errors, yes/no figures.

Everywhere `truth` is (N,) in {0, 1}: 1 with the finding, 0 without; `probability` is (N,) in [0, 1].
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from validation import border
from validation.bootstrap import DRAWS, bootstrap
from validation.roc import auc, auc_by_group

__all__ = ["auc", "auc_by_group", "brier", "expected_calibration_error", "f1", "proportion", "reliability", "wilson"]

BINS = 15


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of hits out of n; 0 to 1 when n is 0."""
    return border.wilson(hits / n if n else 0.0, n)


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


def calibration_interval(
    truth: NDArray[np.float64], probability: NDArray[np.float64], groups: Sequence[str], draws: int = DRAWS
) -> list[float] | None:
    """The 95 % interval of the expected calibration error from a bootstrap over patients, widened to hold the figure.

    Few images raise the error of a draw: the upper end errs on the careful side.
    """
    value = expected_calibration_error(truth, probability)
    which = np.minimum((probability * BINS).astype(int), BINS - 1)
    gaps = np.zeros((len(truth), BINS))
    gaps[np.arange(len(truth)), which] = probability - truth
    drawn = bootstrap(lambda weights: np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1), groups, draws)
    return border.outer(drawn, [round(value, 4)] * 2)


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

"""Isotonic calibration: the steps of pool-adjacent-violators, thinned to a few knots that a manifest can carry."""

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

Floats = NDArray[np.float64]
Knots = tuple[tuple[float, float], ...]
MOST_KNOTS = 12
LEAST, MOST = 0.005, 0.995  # a step of a few hundred images must not claim certainty


def fit_knots(scores: Floats, truth: Floats, weight: Floats) -> Knots:
    """scores: (N, T) uncalibrated passes; truth: (N,) in {0, 1}; weight: (N,). Returns (score, probability) pairs.

    Fitted to the mean score of each image; between the knots the node interpolates, so a knot stands at the middle of
    each step.
    """
    mean = scores.mean(axis=1)
    fitted = IsotonicRegression(y_min=LEAST, y_max=MOST, out_of_bounds="clip").fit(mean, truth, weight)
    order = np.argsort(mean, kind="stable")
    x, y = mean[order], np.asarray(fitted.predict(mean[order]), np.float64)
    starts = np.flatnonzero(np.r_[True, np.diff(y) > 1e-9])
    ends = np.r_[starts[1:], len(x)]
    middles = [(float(np.average(x[a:b])), float(y[a])) for a, b in zip(starts, ends, strict=True)]
    return _rising(_thinned(middles))


def _thinned(knots: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_KNOTS: the inner one that lies nearest the line between its neighbours goes first."""
    kept = list(knots)
    while len(kept) > MOST_KNOTS:
        gaps = [abs(_between(kept[i - 1], kept[i + 1], kept[i][0]) - kept[i][1]) for i in range(1, len(kept) - 1)]
        del kept[1 + int(np.argmin(gaps))]
    return kept


def _between(one: tuple[float, float], other: tuple[float, float], at: float) -> float:
    return one[1] + (other[1] - one[1]) * (at - one[0]) / (other[0] - one[0])


def _rising(knots: list[tuple[float, float]]) -> Knots:
    """Rounded; two that fall together become one, as a manifest demands of knots."""
    out: dict[float, float] = {}
    for score, probability in knots:
        out[round(score, 6)] = round(probability, 6)
    return tuple(sorted(out.items()))

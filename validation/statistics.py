"""Figures with their uncertainty: Wilson intervals, bootstrap by patient, calibration errors."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score

Z = 1.959963984540054  # two-sided 95 %


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of hits out of n."""
    if n == 0:
        return 0.0, 1.0
    share, spread = hits / n, Z**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z * np.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def proportion(hits: int, n: int) -> dict[str, object]:
    """A share as it stands in validation.json."""
    low, high = wilson(hits, n)
    return {
        "value": round(hits / n, 4) if n else None,
        "hits": hits,
        "n": n,
        "wilson95": [round(low, 4), round(high, 4)],
    }


def auc(truth: NDArray[np.float64], score: NDArray[np.float64]) -> float:
    return float(roc_auc_score(truth > 0.5, score))


def auc_by_group(
    truth: NDArray[np.float64], score: NDArray[np.float64], groups: Sequence[str], draws: int = 1000, seed: int = 1
) -> dict[str, object]:
    """AUC with a 95 % percentile interval from a bootstrap that draws whole patients."""
    rng = np.random.default_rng(seed)
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(index == i) for i in range(len(names))]
    values = []
    for _ in range(draws):
        rows = np.concatenate([members[i] for i in rng.integers(0, len(names), len(names))])
        if 0.0 < truth[rows].mean() < 1.0:
            values.append(auc(truth[rows], score[rows]))
    low, high = np.percentile(values, (2.5, 97.5))
    return {
        "value": round(auc(truth, score), 4),
        "bootstrap95_by_patient": [round(float(low), 4), round(float(high), 4)],
        "n": len(truth),
        "patients": len(names),
        "draws": draws,
    }


def brier(truth: NDArray[np.float64], probability: NDArray[np.float64]) -> float:
    return float(np.mean((probability - truth) ** 2))


def expected_calibration_error(truth: NDArray[np.float64], probability: NDArray[np.float64], bins: int = 15) -> float:
    """Mean gap between stated and observed share over `bins` equally wide bins of the probability, weighted by n."""
    which = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = [
        abs(probability[which == b].mean() - truth[which == b].mean()) * (which == b).mean()
        for b in range(bins)
        if (which == b).any()
    ]
    return float(np.sum(gaps))


def thumbnail_scores(
    train: NDArray[np.uint8], truth: NDArray[np.float64], other: NDArray[np.uint8], side: int = 8
) -> NDArray[np.float64]:
    """What ridge regression on side x side thumbnails says: the baseline that sees no lung.

    train: (N, H, W), other: (M, H, W), H and W multiples of `side`. Returns (M,) scores without unit.
    """

    def thumbnails(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        n, height, width = pixels.shape
        cells = pixels.reshape(n, side, height // side, side, width // side).mean(axis=(2, 4), dtype=np.float64)
        return np.asarray(cells.reshape(n, -1) / 255.0)

    ridge = RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(thumbnails(train), truth)
    return np.asarray(ridge.predict(thumbnails(other)), np.float64)

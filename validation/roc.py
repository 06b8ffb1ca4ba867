"""How well a score ranks: area under the ROC curve with two kinds of uncertainty, and the curves themselves.

DeLong's variance (DeLong, DeLong and Clarke-Pearson 1988, by the midranks of Sun and Xu 2014) takes images as
independent; the bootstrap draws whole patients. `truth` is (N,) in {0, 1}, `score` is (N,), greater is more suspicious.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from validation.bootstrap import DRAWS, bootstrap
from validation.border import Kinds, Z, honest_area, honest_share

Floats = NDArray[np.float64]
PATIENT_BOOTSTRAP = "patient bootstrap"


def midranks(values: Floats) -> Floats:
    """(N,) ranks from 1; equal values share the mean of theirs."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2.0)[index], np.float64)


def auc(truth: Floats, score: Floats) -> float:
    """The chance that an image with the finding outranks one without, ties half; NaN when either kind is absent."""
    ill = truth > 0.5
    n_ill, n_well = int(ill.sum()), int((~ill).sum())
    if not n_ill or not n_well:
        return math.nan
    return float((midranks(score)[ill].sum() - n_ill * (n_ill + 1) / 2.0) / (n_ill * n_well))


def structural_components(truth: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """scores: (K, N), K readers of the same images. Returns V10 (K, with) and V01 (K, without) of DeLong 1988."""
    ill = truth > 0.5
    n_ill, n_well = int(ill.sum()), int((~ill).sum())
    joint = np.stack([midranks(row) for row in scores])
    among_ill = np.stack([midranks(row[ill]) for row in scores])
    among_well = np.stack([midranks(row[~ill]) for row in scores])
    return (joint[:, ill] - among_ill) / n_well, 1.0 - (joint[:, ~ill] - among_well) / n_ill


def delong_covariance(truth: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """scores: (K, N). Returns the K areas and their (K, K) covariance; NaN with fewer than two images of a kind."""
    ill = truth > 0.5
    n_ill, n_well = int(ill.sum()), int((~ill).sum())
    if n_ill < 2 or n_well < 2:
        k = len(scores)
        return np.array([auc(truth, row) for row in scores]), np.full((k, k), np.nan)
    v10, v01 = structural_components(truth, scores)
    covariance = np.atleast_2d(np.cov(v10)) / n_ill + np.atleast_2d(np.cov(v01)) / n_well
    return v10.mean(axis=1), np.asarray(covariance, np.float64)


def delong_interval(truth: Floats, score: Floats) -> list[float] | None:
    """The 95 % interval by DeLong's variance, cut to 0..1; None with fewer than two images of a kind, and where
    the variance is 0 (perfect separation): it then says nothing.
    """
    areas, covariance = delong_covariance(truth, score[np.newaxis])
    half = Z * math.sqrt(covariance[0, 0])
    if not half > 0.0:  # NaN too
        return None
    return [round(max(0.0, float(areas[0]) - half), 4), round(min(1.0, float(areas[0]) + half), 4)]


def delong_test(truth: Floats, one: Floats, other: Floats) -> dict[str, Any]:
    """Whether two scores of the same images rank them equally well: difference, z, and the two-sided p."""
    areas, covariance = delong_covariance(truth, np.stack([one, other]))
    variance = float(covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1])
    difference = float(areas[0] - areas[1])
    if not variance > 0.0:  # NaN too
        return {"difference": round(difference, 4), "z": None, "p": 1.0 if difference == 0.0 else None}
    z = difference / math.sqrt(variance)
    return {"difference": round(difference, 4), "z": round(z, 3), "p": p_of(z)}


def p_of(z: float) -> float:
    """The two-sided p of a standard normal deviate."""
    return math.erfc(abs(z) / math.sqrt(2.0))


def auc_by_group(
    truth: Floats, score: Floats, groups: Sequence[str], draws: int = DRAWS, seed: int = 1
) -> dict[str, Any]:
    """AUC with a 95 % percentile interval from a bootstrap over whole patients, and DeLong's beside it.

    interval95: the one to judge by, which is honest at the border too (validation.border).
    """
    value, kinds = auc(truth, score), Kinds.of(truth, groups)
    drawn = bootstrap(_WeightedAuc(truth, score), groups, draws, seed)
    return {
        "value": None if math.isnan(value) else round(value, 4),
        **honest_area(value, drawn, kinds, PATIENT_BOOTSTRAP),
        "bootstrap95_by_patient": drawn,
        "delong95": delong_interval(truth, score),
        "n": len(truth),
        "patients": len(set(groups)),
        "patients_with": kinds.ill,
        "patients_without": kinds.well,
        "draws": draws,
    }


class _WeightedAuc:
    """AUC for many sets of weights at once: sorted once, then sums over runs of equal scores."""

    def __init__(self, truth: Floats, score: Floats) -> None:
        self._order = np.argsort(score, kind="stable")
        self._ill = truth[self._order] > 0.5
        ranked = score[self._order]
        self._starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else np.zeros(0, int)

    def __call__(self, weights: Floats) -> Floats:
        """weights: (draws, N). Returns (draws,), NaN where a draw lacks a kind."""
        if not len(self._starts):
            return np.full(len(weights), np.nan)
        ranked = weights[:, self._order]
        ill = np.add.reduceat(ranked * self._ill, self._starts, axis=1)
        well = np.add.reduceat(ranked * ~self._ill, self._starts, axis=1)
        below = np.cumsum(well, axis=1) - well / 2.0
        pairs = ill.sum(axis=1) * well.sum(axis=1)
        won = (ill * below).sum(axis=1)
        return np.asarray(np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0))


def curve(truth: Floats, score: Floats) -> dict[str, Floats]:
    """Counts at every threshold from the highest down: `threshold` (K,), `hits` and `false_alarms` (K,) at or above."""
    order = np.argsort(-score, kind="stable")
    ranked, ill = score[order], truth[order] > 0.5
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True]) if len(ranked) else np.zeros(0, int)
    return {
        "threshold": ranked[ends],
        "hits": np.cumsum(ill)[ends].astype(np.float64),
        "false_alarms": np.cumsum(~ill)[ends].astype(np.float64),
    }


def sensitivity_at(
    truth: Floats, score: Floats, groups: Sequence[str], specificity: float = 0.9, draws: int = DRAWS, seed: int = 1
) -> dict[str, Any]:
    """The greatest sensitivity of any threshold whose specificity is at least `specificity`, and that threshold.

    The interval comes from the patient bootstrap: each draw finds its own threshold.
    """
    points, n_ill = curve(truth, score), float((truth > 0.5).sum())
    allowed = np.flatnonzero(points["false_alarms"] <= (1.0 - specificity) * (len(truth) - n_ill) + 1e-9)
    if not n_ill or n_ill == len(truth):
        absent = dict.fromkeys(("value", "interval95", "interval_by", "bootstrap95_by_patient", "threshold"))
        return {**absent, "specificity": specificity}
    value = points["hits"][allowed[-1]] / n_ill if len(allowed) else 0.0
    drawn = bootstrap(_WeightedSensitivity(truth, score, specificity), groups, draws, seed)
    return {
        "value": round(float(value), 4),
        **honest_share(float(value), drawn, Kinds.of(truth, groups), PATIENT_BOOTSTRAP),
        "bootstrap95_by_patient": drawn,
        "threshold": round(float(points["threshold"][allowed[-1]]), 6) if len(allowed) else None,
        "specificity": specificity,
    }


class _WeightedSensitivity:
    """Sensitivity at a given specificity for many sets of weights at once."""

    def __init__(self, truth: Floats, score: Floats, specificity: float) -> None:
        self._order = np.argsort(-score, kind="stable")
        ranked = score[self._order]
        self._ill = truth[self._order] > 0.5
        self._ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
        self._allowed = 1.0 - specificity

    def __call__(self, weights: Floats) -> Floats:
        """weights: (draws, N). Returns (draws,), NaN where a draw lacks a kind."""
        ranked = weights[:, self._order]
        hits = np.cumsum(ranked * self._ill, axis=1)[:, self._ends]
        alarms = np.cumsum(ranked * ~self._ill, axis=1)[:, self._ends]
        ill, well = hits[:, -1], alarms[:, -1]
        best = np.where(alarms <= self._allowed * well[:, np.newaxis] + 1e-9, hits, 0.0).max(axis=1)
        both = (ill > 0) & (well > 0)
        return np.asarray(np.divide(best, ill, out=np.full(len(weights), np.nan), where=both))


def average_precision(truth: Floats, score: Floats) -> float:
    """The area under the precision-recall steps; NaN when nothing is to be found."""
    points = curve(truth, score)
    n_ill = float((truth > 0.5).sum())
    if not n_ill:
        return math.nan
    precision = points["hits"] / (points["hits"] + points["false_alarms"])
    return float((np.diff(np.r_[0.0, points["hits"]]) * precision).sum() / n_ill)

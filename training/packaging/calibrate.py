"""Calibration and operating point of each label, chosen on the calibration split and never on the test split.

Temperature and bias: p = sigmoid(logit(score) / temperature + bias) per Monte-Carlo pass, fitted so that the mean over
the passes has the smallest log loss; the sd is that of the calibrated passes. Isotonic: training/packaging/isotonic.py.
Which of temperature, Platt (temperature and bias) and isotonic: by the log loss of images of patients that had no part
in the fit (`choose_calibration`).

Operating point: both classes weigh the same in the calibration, so a probability of 1 / (1 + r) is where missing a
pneumonia costs as much as r films read too early. The smallest r of `COSTS` that finds `TARGET_SENSITIVITY` of the
calibration split's cases is taken; when none does, the greatest, and `chosen_on` says so. A few round costs instead of
the best cut of a few hundred images: such a cut would follow single images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from inference.findings import calibrate
from inference.manifest import Calibration
from training.data.images import position_of
from training.packaging.isotonic import fit_knots

Method = Literal["temperature", "platt", "isotonic"]

TARGET_SENSITIVITY = 0.98
COSTS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 9.0, 14.0, 19.0)
SMALLEST = 1e-6
METHODS: tuple[Method, ...] = ("temperature", "platt", "isotonic")  # the plainer first
WORTH_IT = 0.02  # of the log loss
FOLDS = 5
FEWEST = 10  # patients of each class, below which nothing is compared and Platt's form is taken


@dataclass(frozen=True)
class Scaling:
    """p = sigmoid(logit(score) / temperature + bias)."""

    temperature: float
    bias: float

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """scores: any shape, in (0, 1). Returns calibrated probabilities of the same shape."""
        return np.asarray(1.0 / (1.0 + np.exp(-(logit(scores) / self.temperature + self.bias))))


@dataclass(frozen=True)
class Point:
    """A threshold and what it did on the split that chose it."""

    threshold: float
    sensitivity: float
    specificity: float
    chosen_on: str


def logit(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(scores.astype(np.float64), SMALLEST, 1.0 - SMALLEST)
    return np.asarray(np.log(clipped / (1.0 - clipped)))


def fit_scaling(scores: NDArray[np.float64], truth: NDArray[np.float64], with_bias: bool = True) -> Scaling:
    """scores: (N, T) uncalibrated passes of one label; truth: (N,) in {0, 1}.

    The share of ill children in the calibration split is the data set's, not any hospital's; the bias therefore fits
    both classes with equal weight.
    """
    logits = logit(scores)

    def loss(parameters: NDArray[np.float64]) -> float:
        bias = parameters[1] if with_bias else 0.0
        mean = (1.0 / (1.0 + np.exp(-(logits / np.exp(parameters[0]) + bias)))).mean(axis=1)
        return float(balanced_loss(mean, truth).mean())

    start = np.zeros(2 if with_bias else 1)
    best = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-7})
    bias = float(best.x[1]) if with_bias else 0.0
    return Scaling(max(1e-4, round(float(np.exp(best.x[0])), 4)), round(bias, 4))


def class_weights(truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,): both classes together weigh the same; a class that is not there weighs nothing."""
    share = float(np.clip(truth.mean(), SMALLEST, 1.0 - SMALLEST))
    return np.where(truth > 0.5, 0.5 / share, 0.5 / (1.0 - share))


def balanced_loss(probability: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,): each image's log loss times its class' weight."""
    p = np.clip(probability, SMALLEST, 1.0 - SMALLEST)
    return np.asarray(-class_weights(truth) * np.where(truth > 0.5, np.log(p), np.log(1.0 - p)))


def fit_calibration(method: Method, scores: NDArray[np.float64], truth: NDArray[np.float64]) -> Calibration:
    """scores: (N, T) uncalibrated passes; truth: (N,) in {0, 1}; with images of both classes."""
    if method == "isotonic":
        return Calibration(method=method, knots=fit_knots(scores, truth, class_weights(truth)))
    scaling = fit_scaling(scores, truth, with_bias=method == "platt")
    return Calibration(method=method, temperature=scaling.temperature, bias=scaling.bias)


def choose_calibration(scores: NDArray[np.float64], truth: NDArray[np.float64], groups: Sequence[str]) -> Calibration:
    """The method with the least log loss in cross-validation by patient, fitted to all; `chosen_on` says why.

    scores: (N, T) uncalibrated passes; truth: (N,) in {0, 1}; groups: the patient of each image. A plainer
    method is kept unless a later one takes `WORTH_IT` of its loss away. (Once it had to be a standard error: with few
    errors in the split that kept probabilities that were wrong by far in the middle.)
    """
    if min(len(_patients(groups, truth > 0.5)), len(_patients(groups, truth <= 0.5))) < FEWEST:
        text = f"fewer than {FEWEST} patients of one class: not compared"
        return fit_calibration("platt", scores, truth).model_copy(update={"chosen_on": text})
    losses = {method: held_out_loss(method, scores, truth, groups) for method in METHODS}
    best = METHODS[0]
    for method in METHODS[1:]:
        if losses[method].mean() < (1.0 - WORTH_IT) * losses[best].mean():
            best = method
    told = ", ".join(f"{method} {loss.mean():.4f}" for method, loss in losses.items())
    text = f"log loss, classes weighted alike, {FOLDS} folds by patient, n={len(truth)}: {told}"
    return fit_calibration(best, scores, truth).model_copy(update={"chosen_on": text})


def held_out_loss(
    method: Method, scores: NDArray[np.float64], truth: NDArray[np.float64], groups: Sequence[str]
) -> NDArray[np.float64]:
    """(patients,): each patient's mean loss under a calibration that was fitted without that patient's fold."""
    fold = folds(groups, truth)
    probability = np.empty(len(truth))
    for held_out in range(FOLDS):
        out = fold == held_out
        fitted = fit_calibration(method, scores[~out], truth[~out])
        probability[out] = calibrate(scores[out], fitted).mean(axis=1)
    names, index = np.unique(np.asarray(groups, str), return_inverse=True)
    loss = balanced_loss(probability, truth)
    return np.asarray(np.bincount(index, loss) / np.bincount(index)) if len(names) else loss


def folds(groups: Sequence[str], truth: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N,): the fold of each image. No patient in two; patients with and without the finding dealt out evenly."""
    ill = _patients(groups, truth > 0.5)
    fold: dict[str, int] = {}
    for part in (sorted(ill), sorted(set(groups) - ill)):
        by_hash = sorted(part, key=lambda group: position_of(group, "calibration folds"))
        fold |= {group: i % FOLDS for i, group in enumerate(by_hash)}
    return np.array([fold[group] for group in groups], np.int64)


def _patients(groups: Sequence[str], chosen: NDArray[np.bool_]) -> set[str]:
    return set(compress(groups, chosen))


def choose_point(
    probability: NDArray[np.float64], truth: NDArray[np.float64], target: float = TARGET_SENSITIVITY
) -> Point:
    """probability: (N,) mean of the calibrated passes; truth: (N,) in {0, 1}. The rule is the module's docstring.

    target: the sensitivity that is wanted on these images.
    """
    ill, well = truth > 0.5, truth <= 0.5

    def sensitivity(threshold: float) -> float:
        return float((probability[ill] >= threshold).mean())

    thresholds = [round(1.0 / (1.0 + cost), 4) for cost in COSTS]
    reached = [point for point in thresholds if sensitivity(point) >= target]
    chosen = reached[0] if reached else thresholds[-1]
    tried = ", ".join(str(point) for point in thresholds)
    rule = f"the greatest of {tried} with sensitivity >= {target}"
    return Point(
        chosen,
        round(sensitivity(chosen), 4),
        round(float((probability[well] < chosen).mean()), 4),
        f"calibration split, n={len(truth)} ({int(ill.sum())} with, {int(well.sum())} without): "
        + (rule if reached else f"none of {tried} has sensitivity >= {target}, so the smallest"),
    )

"""Temperature, bias and operating point of each label, chosen on the calibration split and never on the test split.

Temperature and bias: p = sigmoid(logit(score) / temperature + bias) per Monte-Carlo pass, fitted so that the mean over
the passes has the smallest log loss; the sd is that of the calibrated passes.

Operating point: both classes weigh the same in the calibration, so a probability of 1 / (1 + r) is where missing a
pneumonia costs as much as r films read too early. The smallest r of 1, 2, 3, 4 that finds `TARGET_SENSITIVITY` of the
calibration split's cases is taken (4 when none does). A few round costs instead of the best cut of a few hundred
images: such a cut would follow single images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

TARGET_SENSITIVITY = 0.98
COSTS = (1, 2, 3, 4)
SMALLEST = 1e-6


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


def fit_scaling(scores: NDArray[np.float64], truth: NDArray[np.float64]) -> Scaling:
    """scores: (N, T) uncalibrated passes of one label; truth: (N,) in {0, 1}.

    The share of ill children in the calibration split is the data set's, not any hospital's; the bias therefore fits
    both classes with equal weight.
    """
    logits = logit(scores)
    weight = np.where(truth > 0.5, 0.5 / truth.mean(), 0.5 / (1.0 - truth.mean()))

    def loss(parameters: NDArray[np.float64]) -> float:
        log_temperature, bias = parameters
        mean = (1.0 / (1.0 + np.exp(-(logits / np.exp(log_temperature) + bias)))).mean(axis=1)
        mean = np.clip(mean, SMALLEST, 1.0 - SMALLEST)
        return float(-(weight * np.where(truth > 0.5, np.log(mean), np.log(1.0 - mean))).mean())

    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-7})
    return Scaling(round(float(np.exp(best.x[0])), 4), round(float(best.x[1]), 4))


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
    chosen = next((point for point in thresholds if sensitivity(point) >= target), thresholds[-1])
    return Point(
        chosen,
        round(sensitivity(chosen), 4),
        round(float((probability[well] < chosen).mean()), 4),
        f"calibration split, n={len(truth)} ({int(ill.sum())} with, {int(well.sum())} without): the greatest of"
        f" {', '.join(str(point) for point in thresholds)} with sensitivity >= {target}",
    )

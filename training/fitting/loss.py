"""The loss over the labels that are known: cross-entropy or focal, weighted by class, smoothed."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.recipe import LossPlan


class LabelLoss:
    """Weights come from the labels of an epoch as it is drawn: what the sampler balances is not balanced twice."""

    def __init__(self, plan: LossPlan, labels: NDArray[np.float32], device: torch.device) -> None:
        """labels: (N, L) in [0, 1], NaN where not known."""
        self.plan = plan
        self.weights = torch.from_numpy(class_weights(plan, labels)).to(device)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits, labels: (N, L) float32; labels NaN where not known. Returns the mean over the known ones; 0 where
        none is."""
        known = ~torch.isnan(labels)
        truth = torch.where(known, labels, torch.zeros_like(labels))
        smoothing = self.plan.label_smoothing
        loss = F.binary_cross_entropy_with_logits(logits, truth * (1 - 2 * smoothing) + smoothing, reduction="none")
        if self.plan.kind == "focal":
            probability = torch.sigmoid(logits)
            missed = torch.where(truth > 0.5, 1 - probability, probability)
            loss = loss * missed.pow(self.plan.gamma)
        loss = loss * torch.lerp(self.weights[0], self.weights[1], truth)
        return (loss * known).sum() / known.sum().clamp(min=1)


def class_weights(plan: LossPlan, labels: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2, L): the weight of a label without and with the finding.

    balanced: 0.5 / share of each, so that both weigh the same and the mean is 1; pos_weight: 1 and without / with."""
    out = np.ones((2, labels.shape[1]), np.float32)
    for i in range(labels.shape[1]):
        values = labels[:, i][~np.isnan(labels[:, i])]
        share = float(values.mean()) if len(values) else 0.5
        if plan.class_weight == "none" or not 0.0 < share < 1.0:
            continue
        out[:, i] = (0.5 / (1 - share), 0.5 / share) if plan.class_weight == "balanced" else (1.0, (1 - share) / share)
    return out

"""What the features of the training images look like, and how far from them an image may lie.

The distance is the node's own (inference/distribution.py). The axes come from the training split; the residual's scale
and the threshold come from the calibration split, which the network has not learnt by heart. No image of anything else
is fitted to: there is no rule for limbs, brains or a dog. Which layers give the features
(training/networks/densenet.py) was chosen with such images in view, though.
"""

import numpy as np
from numpy.typing import NDArray

from inference.distribution import FeatureDistribution
from inference.manifest import GateSpec

GATE = "gate.npz"
COMPONENTS = 64
REFUSED_SHARE = 0.005  # of the calibration split's patients; the promise to a site is 2 %


def fit_distribution(
    train: NDArray[np.float32], calibration: NDArray[np.float32], components: int = COMPONENTS
) -> FeatureDistribution:
    """train: (N, C), calibration: (M, C) features. Returns the distribution of the first `components` axes."""
    mean = train.mean(axis=0, dtype=np.float64)
    centred = train - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = np.ascontiguousarray(vectors[:, ::-1][:, :components].T)
    held_out = calibration - mean
    residual = np.sqrt(np.maximum((held_out**2).sum(axis=1) - ((held_out @ axes.T) ** 2).sum(axis=1), 0.0))
    return FeatureDistribution(
        mean.astype(np.float32),
        axes.astype(np.float32),
        (centred @ axes.T).std(axis=0).astype(np.float32),
        float(np.float32(np.sqrt((residual**2).mean()))),
    )


def choose_threshold(distance: NDArray[np.float64], refused_share: float = REFUSED_SHARE) -> float:
    """distance: (M,) of the calibration split. The distance that `refused_share` of it exceeds."""
    return round(float(np.quantile(distance, 1.0 - refused_share)), 3)


def gate_spec(threshold: float, things: str = "images", margin: float = 1.0) -> GateSpec:
    """As the manifest tells it. things: what was trained on; margin: what the calibration split's own was raised by."""
    beyond = (
        f"{REFUSED_SHARE:.1%} of the calibration split lies beyond the threshold"
        if margin == 1.0
        else f"{margin} times what {REFUSED_SHARE:.1%} of the calibration split lies beyond"
    )
    return GateSpec(
        file=GATE,
        threshold=threshold,
        text=f"distance of the pooled features from the training {things} ({COMPONENTS} axes and the residual);"
        f" {beyond}",
    )

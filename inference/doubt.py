"""How doubtful an answer is, as one figure: one function chooses the threshold in training and abstains in the node.

Greater is more doubtful. Which of the figures finds a model's errors is measured, not assumed
(training/packaging/abstain.py), and the manifest's `abstention` names the winner.
"""

import numpy as np
from numpy.typing import NDArray

from inference.manifest import Doubt

TINY = 1e-7
Floats = NDArray[np.float64]


def figure_of_doubt(by: Doubt, passes: Floats, distance: Floats | None = None) -> Floats:
    """passes: (..., T) calibrated probabilities in [0, 1]; distance: (...) >= 0, of the features. Returns (...).

    sd: over the passes, 0 to 0.5. mutual_information, entropy (of the mean): nats, 0 to ln 2. max_probability:
    1 - max(p, 1 - p) of the mean p, 0 to 0.5. Raises ValueError for a distance that is not there.
    """
    mean = passes.mean(axis=-1)
    if by == "sd":
        return np.asarray(passes.std(axis=-1))
    if by == "mutual_information":
        return mutual_information(passes)
    if by == "entropy":
        return entropy(mean)
    if by == "max_probability":
        return np.asarray(1.0 - np.maximum(mean, 1.0 - mean))
    if distance is None:
        raise ValueError("there is no distance: the package has no gate")
    return np.asarray(distance, np.float64)


def entropy(probability: Floats) -> Floats:
    """Of a yes or no with this probability, in nats."""
    p = np.clip(probability, TINY, 1.0 - TINY)
    return np.asarray(-p * np.log(p) - (1.0 - p) * np.log(1.0 - p))


def mutual_information(passes: Floats) -> Floats:
    """(..., T): what the passes disagree about, in nats, 0 to ln 2: entropy of the mean less the mean entropy."""
    return np.asarray(np.maximum(0.0, entropy(passes.mean(axis=-1)) - entropy(passes).mean(axis=-1)))

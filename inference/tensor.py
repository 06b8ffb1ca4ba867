"""The last step before a model: from a resized picture in [0, 1] to the tensor that its manifest describes.

Training calls the same function on the same picture.
"""

import numpy as np
from numpy.typing import NDArray

from inference.histogram import normalised
from inference.manifest import InputSpec


def to_tensor(picture: NDArray[np.float32], spec: InputSpec) -> NDArray[np.float32]:
    """picture: (H, W) float32 in [0, 1], already resized. Returns (1, H, W) float32 in the manifest's value range."""
    even = normalised(picture, spec.percentiles, spec.histogram)
    low, high = spec.value_range
    return np.asarray(even[np.newaxis] * np.float32(high - low) + np.float32(low), np.float32)

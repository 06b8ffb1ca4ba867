"""From a picture in [0, 1] to the tensor a model was trained on.

Training and the node both call this, so that a model never sees at the hospital what it did not see in training.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Fit = Literal["squash", "letterbox"]


def resize(image: NDArray[np.float32], height: int, width: int, fit: Fit) -> NDArray[np.float32]:
    """Resize one greyscale picture with an antialiased bilinear filter.

    image: (rows, columns) float32 in [0, 1]. Returns (height, width) float32 in [0, 1].
    "squash" ignores the aspect ratio; "letterbox" keeps it and pads with 0, the picture centred.
    """
    if fit == "squash":
        return _resample(image, height, width)
    rows, columns = image.shape
    scale = min(height / rows, width / columns)
    inner = _resample(image, max(1, round(rows * scale)), max(1, round(columns * scale)))
    out = np.zeros((height, width), np.float32)
    top, left = (height - inner.shape[0]) // 2, (width - inner.shape[1]) // 2
    out[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return out


def stretch(image: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Map the `low`..`high` percentiles of the picture to 0..1 and clip: exposure carries no diagnosis.

    image: (H, W) float32. Returns (H, W) float32 in [0, 1]; a constant picture becomes 0.
    """
    bottom, top = np.percentile(image, (low, high))
    if top <= bottom:
        return np.zeros_like(image, dtype=np.float32)
    return np.asarray(np.clip((image - bottom) / (top - bottom), 0.0, 1.0), np.float32)


def _resample(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    if image.shape == (height, width):
        return np.ascontiguousarray(image, np.float32)
    picture = Image.fromarray(np.ascontiguousarray(image, np.float32), mode="F")
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.float32)

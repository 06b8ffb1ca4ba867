"""How far an image's features lie from those seen in training: one figure, the same in training and in the node.

The figure joins a Mahalanobis distance inside the principal subspace with the length of what lies outside of it.
"""

import io
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KEYS = ("mean", "components", "scale", "residual_scale")


@dataclass(frozen=True)
class FeatureDistribution:
    """mean (C,), components (k, C) with orthonormal rows, scale (k,) > 0: sd along each; residual_scale > 0."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    scale: NDArray[np.float32]
    residual_scale: float

    def __post_init__(self) -> None:
        k, channels = self.components.shape if self.components.ndim == 2 else (0, 0)
        if k < 1 or self.mean.shape != (channels,) or self.scale.shape != (k,):
            raise ValueError("the gate's arrays do not fit each other")
        finite = all(np.isfinite(array).all() for array in (self.mean, self.components, self.scale))
        if not finite or not np.isfinite(self.residual_scale):
            raise ValueError("the gate holds numbers that are not finite")
        if (self.scale <= 0).any() or self.residual_scale <= 0:
            raise ValueError("the gate's scales must be positive")

    def distance(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """features: (N, C). Returns (N,) >= 0, without unit; about 1 to 2 for what was seen in training."""
        centred = features.astype(np.float64) - self.mean
        inside = centred @ self.components.T.astype(np.float64)
        residual = centred - inside @ self.components
        spread = np.mean((inside / self.scale) ** 2, axis=1)
        away = np.linalg.norm(residual, axis=1) / self.residual_scale
        return np.asarray(np.sqrt(spread + away**2))


def load_distribution(content: bytes) -> FeatureDistribution:
    """Read gate.npz, never unpickling. Raises ValueError when it is not one."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            mean, components, scale, residual = (np.asarray(arrays[key], np.float32) for key in KEYS)
    except (KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError("the gate is not an npz of mean, components, scale and residual_scale") from error
    if residual.size != 1:
        raise ValueError("residual_scale must be one number")
    return FeatureDistribution(mean, components, scale, float(residual.reshape(())))


def dump_distribution(distribution: FeatureDistribution) -> bytes:
    """The bytes of gate.npz."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        mean=distribution.mean.astype(np.float32),
        components=distribution.components.astype(np.float32),
        scale=distribution.scale.astype(np.float32),
        residual_scale=np.float32(distribution.residual_scale),
    )
    return buffer.getvalue()

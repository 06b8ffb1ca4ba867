"""Ridge regression on thumbnails: the baseline that sees no lung, only what the acquisition gives away."""

import numpy as np
from numpy.typing import NDArray

ALPHAS = np.logspace(-3, 3, 13)


def thumbnail_scores(
    train: NDArray[np.uint8], truth: NDArray[np.float64], other: NDArray[np.uint8], side: int = 8
) -> NDArray[np.float64]:
    """What ridge regression on side x side thumbnails says.

    train: (N, H, W), other: (M, H, W), H and W multiples of `side`. Returns (M,) scores without unit.
    """
    seen, asked = _thumbnails(train, side), _thumbnails(other, side)
    centre, level = seen.mean(axis=0), truth.mean()
    slopes = _ridge(seen - centre, truth - level)
    return np.asarray((asked - centre) @ slopes + level)


def _thumbnails(pixels: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    n, height, width = pixels.shape
    cells = pixels.reshape(n, side, height // side, side, width // side).mean(axis=(2, 4), dtype=np.float64)
    return np.asarray(cells.reshape(n, -1) / 255.0)


def _ridge(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """x: (N, F), y: (N,), both centred. The slopes (F,) of the penalty with the least leave-one-out error."""
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    along = u.T @ y

    def leave_one_out(alpha: float) -> float:
        shrink = s**2 / (s**2 + alpha)
        leverage = (u**2) @ shrink + 1.0 / len(y)
        return float(np.mean(((y - u @ (shrink * along)) / (1.0 - leverage)) ** 2))

    alpha = min(ALPHAS, key=leave_one_out)
    return np.asarray(vt.T @ (s / (s**2 + alpha) * along))

"""Made-up pictures for golden.npz: every installation replays them and must get the same scores.

They are ovals, bands and noise out of a seeded generator; no picture of anybody is in a package.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.manifest import InputSpec
from training.packaging.look import Model, tensor


def phantoms(height: int, width: int, n: int = 4, seed: int = 7) -> list[NDArray[np.float32]]:
    """n pictures (height, width) float32 in [0, 1]: two dark ovals in a bright trunk, bands across, some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1.0 : 1.0 : height * 1j, -1.0 : 1.0 : width * 1j]
    out = []
    for _ in range(n):
        trunk = np.exp(-((np.abs(x) / 0.85) ** 6) - (np.abs(y) / 1.1) ** 8)
        lungs = sum(np.exp(-(((x - side * 0.38) / 0.24) ** 4) - ((y + 0.05) / 0.55) ** 4) for side in (-1, 1))
        bands = 0.06 * np.sin(22.0 * (y + 0.3 * np.abs(x)) + rng.uniform(0, 6))
        spot = np.exp(-(((x - rng.uniform(-0.5, 0.5)) / 0.2) ** 2) - ((y - rng.uniform(-0.4, 0.4)) / 0.2) ** 2)
        picture = 0.8 * trunk - 0.55 * lungs + bands * lungs + rng.uniform(0, 0.5) * spot
        picture += rng.normal(0.0, 0.02, picture.shape)
        out.append(np.clip(picture, 0.0, 1.0).astype(np.float32))
    return out


def head_phantoms(height: int, width: int, n: int = 4, seed: int = 7) -> list[NDArray[np.float32]]:
    """n pictures (height, width) float32 in [0, 1]: a bright ring, grey within, two dark slits; all but the first with
    a bright spot of its own size."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1.0 : 1.0 : height * 1j, -1.0 : 1.0 : width * 1j]
    out = []
    for i in range(n):
        radius = np.hypot(x / 0.66, y / 0.84)
        slits = sum(np.exp(-(((x - side * 0.09) / 0.05) ** 2) - (y / 0.25) ** 2) for side in (-1, 1))
        away = (x - rng.uniform(0.2, 0.35)) ** 2 + (y + rng.uniform(0.0, 0.4)) ** 2
        spot = np.exp(-((away / (0.02 * i + 1e-3)) ** 2))
        picture = 0.9 * np.exp(-(((radius - 1.0) / 0.06) ** 2)) + (radius < 0.93) * (0.35 - 0.25 * slits)
        picture += 0.4 * spot * (i > 0) + rng.normal(0.0, 0.02, picture.shape)
        out.append(np.clip(picture, 0.0, 1.0).astype(np.float32))
    return out


def golden(model: Model, spec: InputSpec, pictures: Sequence[NDArray[np.float32]] | None = None) -> bytes:
    """The bytes of golden.npz: images (n, 1, H, W) as the graph takes them, scores (n, T, L) as it gave them.

    pictures: made-up ones, (rows, columns) in [0, 1]; None: chests.
    """
    made_up = phantoms(spec.height, spec.width) if pictures is None else pictures
    images = np.stack([tensor(picture, spec) for picture in made_up])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=images, scores=model.passes(images).scores)
    return buffer.getvalue()

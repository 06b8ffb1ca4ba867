"""How near a made-up picture is to the nearest real one, beside how near two children's pictures are to each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

COARSE = 56  # pixels: the whole picture's likeness
DETAIL_RADIUS = 3.0  # pixels of 224: what a blur of this radius takes away is detail


@dataclass(frozen=True)
class Views:
    """Pictures as unit vectors, so that a product is a correlation. coarse: (N, 56 * 56); detail: (N, S * S)."""

    coarse: NDArray[np.float32]
    detail: NDArray[np.float32]


def views(pixels: NDArray[np.uint8]) -> Views:
    """pixels: (N, S, S)."""
    coarse, detail = [], []
    for picture in pixels:
        image = Image.fromarray(picture)
        coarse.append(np.asarray(image.resize((COARSE, COARSE), Image.Resampling.BOX), np.float32).ravel())
        blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(DETAIL_RADIUS)), np.float32)
        detail.append((picture.astype(np.float32) - blurred).ravel())
    return Views(_unit(np.stack(coarse)), _unit(np.stack(detail)))


def nearest(made: Views, real: Views) -> list[dict[str, float]]:
    """The greatest correlation of each made picture with any real one, coarsely and in detail. A copy has 1 in both."""
    coarse, detail = (made.coarse @ real.coarse.T).max(axis=1), (made.detail @ real.detail.T).max(axis=1)
    return [{"coarse": round(float(c), 3), "detail": round(float(d), 3)} for c, d in zip(coarse, detail, strict=True)]


def between_patients(real: Views, groups: Sequence[str], n: int = 300, seed: int = 3) -> dict[str, dict[str, float]]:
    """The same for n real pictures against all pictures of other patients: median and 95th percentile."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(groups), min(n, len(groups)), replace=False)
    names = np.asarray(groups)
    same = names[rows][:, None] == names[None, :]
    out = {}
    for name in ("coarse", "detail"):
        vectors: NDArray[np.float32] = getattr(real, name)
        best = np.where(same, -1.0, vectors[rows] @ vectors.T).max(axis=1)
        out[name] = {"median": round(float(np.median(best)), 3), "p95": round(float(np.percentile(best, 95)), 3)}
    return out


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(centred / (np.linalg.norm(centred, axis=1, keepdims=True) + 1e-6), np.float32)

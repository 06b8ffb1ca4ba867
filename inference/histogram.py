"""Exposure out of a picture: percentiles, then the histogram; the same function in training and in the node.

Own and short on purpose: OpenCV or scikit-image would be 60 MB and a second set of decoders for two tables and four
look-ups. CLAHE is that of Zuiderveld (Graphics Gems IV) with the excess spread evenly over all bins once.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inference.fit_input import stretch

Histogram = Literal["none", "equalise", "clahe"]
Picture = NDArray[np.float32]
BINS = 256
TILES = 8  # each way
CLIP = 2.0  # times the height of a level histogram


def normalised(picture: Picture, percentiles: tuple[float, float] | None, histogram: Histogram = "none") -> Picture:
    """picture: (H, W) float32 in [0, 1], already resized. Returns the same shape and range."""
    stretched = stretch(picture, *percentiles) if percentiles else picture
    if histogram == "equalise":
        return equalise(stretched)
    return clahe(stretched) if histogram == "clahe" else stretched


def equalise(picture: Picture) -> Picture:
    """Each level becomes the share of pixels that are darker or alike, the darkest level becomes 0.

    picture: (H, W) float32 in [0, 1]. Returns the same shape and range; a picture of one grey becomes 0.
    """
    levels = _levels(picture)
    below = np.cumsum(np.bincount(levels.ravel(), minlength=BINS))
    least = below[levels.min()]
    spread = max(1, levels.size - int(least))
    table = np.clip((below - least) / spread, 0.0, 1.0).astype(np.float32)
    return np.asarray(table[levels])


def clahe(picture: Picture, clip: float = CLIP, tiles: int = TILES) -> Picture:
    """Contrast-limited adaptive equalisation: a table per tile, and between the tiles' centres a bilinear mean of four.

    picture: (H, W) float32 in [0, 1], sides of at least `tiles`. Returns the same shape and range.
    """
    levels = _levels(picture)
    rows, columns = levels.shape
    high, wide = -(-rows // tiles), -(-columns // tiles)
    whole = np.pad(levels, ((0, high * tiles - rows), (0, wide * tiles - columns)), "symmetric")
    tables = _tables(whole, high, wide, clip, tiles)
    above, row_share = _between(rows, high, tiles)
    before, column_share = _between(columns, wide, tiles)
    below, after = np.minimum(above + 1, tiles - 1), np.minimum(before + 1, tiles - 1)
    top = _mix(tables, above, before, after, column_share, levels)
    bottom = _mix(tables, below, before, after, column_share, levels)
    return np.asarray(top + (bottom - top) * row_share[:, np.newaxis], np.float32)


def _levels(picture: Picture) -> NDArray[np.int64]:
    return np.asarray(np.clip(np.rint(picture * np.float32(BINS - 1)), 0, BINS - 1), np.int64)


def _tables(levels: NDArray[np.int64], high: int, wide: int, clip: float, tiles: int) -> NDArray[np.float32]:
    """levels: (tiles * high, tiles * wide). Returns (tiles, tiles, BINS): what each level becomes in each tile."""
    area = high * wide
    of_tile = np.arange(tiles).repeat(high)[:, np.newaxis] * tiles + np.arange(tiles).repeat(wide)
    counts = np.bincount((of_tile * BINS + levels).ravel(), minlength=tiles * tiles * BINS).astype(np.float64)
    counts = counts.reshape(tiles, tiles, BINS)
    limit = max(1.0, clip * area / BINS)
    excess = np.maximum(counts - limit, 0.0).sum(axis=2, keepdims=True)
    shared = np.minimum(counts, limit) + excess / BINS
    return np.asarray(np.minimum(np.cumsum(shared, axis=2) / area, 1.0), np.float32)


def _between(side: int, tile: int, tiles: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each pixel of a side: the tile whose centre lies before it, and how far it is on the way to the next one."""
    at = np.clip((np.arange(side) + 0.5) / tile - 0.5, 0.0, tiles - 1.0)
    before = np.floor(at).astype(np.int64)
    return before, (at - before).astype(np.float32)


def _mix(
    tables: NDArray[np.float32],
    row: NDArray[np.int64],
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    share: NDArray[np.float32],
    levels: NDArray[np.int64],
) -> NDArray[np.float32]:
    one, other = tables[row[:, np.newaxis], before, levels], tables[row[:, np.newaxis], after, levels]
    return np.asarray(one + (other - one) * share)

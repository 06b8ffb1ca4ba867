"""A bootstrap that draws whole patients: images of one patient are not independent of each other.

A draw is a row of weights: how often each patient, and with it each of their images, was drawn. Every figure is then
one weighted sum for a block of draws at once.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DRAWS = 2000
BLOCK = 4_000_000  # weights held in memory at once


def draws_of(n: int, draws: int, seed: int) -> Floats:
    """(draws, n): how often each of n things was drawn when n are drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(0, n, (draws, n)) + np.arange(draws)[:, np.newaxis] * n
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)


def image_weights(groups: Sequence[str], draws: int = DRAWS, seed: int = 1) -> Iterator[Floats]:
    """groups: the patient of each of N images. Yields blocks (some draws, N) of weights, `draws` rows in all."""
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    at_once = max(1, BLOCK // max(len(groups), 1))
    for block, start in enumerate(range(0, draws, at_once)):
        yield draws_of(len(names), min(at_once, draws - start), seed + 7919 * block)[:, index]


def bootstrap(
    figure: Callable[[Floats], Floats], groups: Sequence[str], draws: int = DRAWS, seed: int = 1, digits: int = 4
) -> list[float] | None:
    """The 95 % percentile interval of `figure`, which maps weights (draws, N) to (draws,); NaN draws do not count."""
    return interval(np.concatenate([figure(weights) for weights in image_weights(groups, draws, seed)]), digits)


def interval(values: Floats, digits: int = 4) -> list[float] | None:
    """[2.5 %, 97.5 %] of what is finite, rounded as it stands in a file; None when nothing is."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = np.percentile(finite, (2.5, 97.5))
    return [round(float(low), digits), round(float(high), digits)]

"""Intervals for figures at, or near, the border of what they can be, where DeLong and the bootstrap are blind.

A few images that happen to be separated perfectly have neither variance nor a draw that differs: both say "1.000 to
1.000". There Newcombe's score interval for the area (Statistics in Medicine 2006; 25: 559-573, method 5) is used. It is
to the area what Wilson's is to a share: the areas from which the one found lies within 1.96 standard errors, by the
variance of Hanley and McNeil (1982) at each such area. It counts patients, not images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Z = 1.959963984540054  # two-sided 95 %
AT_BORDER = 0.0005  # an interval that comes as close as this to 0 or 1 is taken to touch it
TOO_FEW = 10  # patients with, or without, the finding: below it nothing is judged


@dataclass(frozen=True)
class Kinds:
    """Patients with an image with the finding, and with one without; a patient may be among both."""

    ill: int
    well: int

    @classmethod
    def of(cls, truth: Floats, groups: Sequence[str]) -> "Kinds":
        """truth: (N,) in {0, 1}; groups: the patient of each image."""
        pairs = list(zip(truth > 0.5, groups, strict=True))
        return cls(len({who for ill, who in pairs if ill}), len({who for ill, who in pairs if not ill}))

    @property
    def least(self) -> int:
        return min(self.ill, self.well)


def variance(area: float, kinds: Kinds) -> float:
    """Of an estimate of this true area; Hanley and McNeil's, symmetric in the kinds as Newcombe has it."""
    other = (kinds.ill + kinds.well) / 2.0 - 1.0
    more = other * (1.0 - area) / (2.0 - area) + other * area / (1.0 + area)
    return area * (1.0 - area) * (1.0 + more) / (kinds.ill * kinds.well)


def newcombe(area: float, kinds: Kinds) -> list[float]:
    """The 95 % score interval of an area in [0, 1]; 0 to 1 when either kind is absent."""
    if not kinds.least:
        return [0.0, 1.0]
    return [round(_lower(area, kinds), 4), round(1.0 - _lower(1.0 - area, kinds), 4)]


def _lower(area: float, kinds: Kinds) -> float:
    """By bisection: below the root the area found is too far away, above it is not."""
    low, high = 0.0, area
    for _ in range(50):
        middle = (low + high) / 2.0
        if (area - middle) ** 2 > Z**2 * variance(middle, kinds):
            low = middle
        else:
            high = middle
    return low


def honest_area(area: float, drawn: list[float] | None, kinds: Kinds, drawn_by: str) -> dict[str, Any]:
    """`drawn`, an interval by `drawn_by`, where it can be believed; else what it and Newcombe's cover."""
    if math.isnan(area):
        return {"interval95": None, "interval_by": None}
    if _believable(drawn, kinds):
        return {"interval95": drawn, "interval_by": drawn_by}
    return {"interval95": outer(drawn, newcombe(area, kinds)), "interval_by": "Newcombe's score interval"}


def honest_share(share: float, drawn: list[float] | None, kinds: Kinds, drawn_by: str) -> dict[str, Any]:
    """The same for a share at a threshold that the other kind has set: Wilson's over as many as the rarer kind has."""
    if _believable(drawn, kinds):
        return {"interval95": drawn, "interval_by": drawn_by}
    wide = [round(end, 4) for end in wilson(share, kinds.least)]
    return {"interval95": outer(drawn, wide), "interval_by": "Wilson's interval over the rarer kind"}


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share of n; 0 to 1 when n is 0."""
    if n == 0:
        return 0.0, 1.0
    spread = Z**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def outer(one: list[float] | None, other: list[float]) -> list[float]:
    """From the lesser of the lower ends to the greater of the upper ones."""
    return other if one is None else [min(one[0], other[0]), max(one[1], other[1])]


def _believable(drawn: list[float] | None, kinds: Kinds) -> bool:
    inside = drawn is not None and drawn[0] > AT_BORDER and drawn[1] < 1.0 - AT_BORDER
    return inside and kinds.least >= TOO_FEW

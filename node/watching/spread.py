"""Whether what was counted in two spans of time differs by more than chance; standard library alone.

Studies are not independent: an inpatient has one a day, and they look much alike. So a span counts for as many studies
as it would need of different patients to say as much (Kish's effective size, as if a patient's studies were all equal).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

EXPECTED_MIN: Final = 5.0  # studies that a cell should have by chance; neighbours are put together until it does
EVENTS_MIN: Final = 10  # fewer in all, of either kind, say nothing about a share
A_DAY_MAX: Final = 4  # studies; who has more is no patient, but an identity that many share


@dataclass(frozen=True)
class Difference:
    """size: population stability index of a histogram, or Cohen's h of a share, never negative. p: of so much, or more,
    without drift."""

    size: float
    p: float


def effective(by_patient: Iterable[int], days: int) -> float:
    """Of how many different patients so many studies say as much. by_patient: studies of each."""
    counts = [count for count in by_patient if count]
    each = [1 if count > A_DAY_MAX * days else count for count in counts]
    squares = sum(count * one for count, one in zip(counts, each, strict=True))
    return sum(counts) ** 2 / squares if squares else 0.0


def of_histograms(now: Sequence[int], before: Sequence[int], n: float, m: float) -> Difference:
    """Equally many cells in both. n, m: their effective sizes."""
    cells = _merged(now, before, min(n, m))
    if len(cells) < 2:
        return Difference(0.0, 1.0)
    size = _psi([sum(now[i] for i in cell) for cell in cells], [sum(before[i] for i in cell) for cell in cells])
    return Difference(size, chi2_tail(size * n * m / (n + m), len(cells) - 1))  # so without drift, if n and m are many


def of_shares(now: tuple[int, int], before: tuple[int, int], n: float, m: float) -> Difference | None:
    """(with it, without it) of both. None where there are too few of either kind to tell."""
    if min(now[0] + before[0], now[1] + before[1]) < EVENTS_MIN:
        return None
    size = abs(_angle(now[0] / sum(now), n) - _angle(before[0] / sum(before), m))
    return Difference(size, chi2_tail(size * size * n * m / (n + m), 1))


def _psi(now: Sequence[int], before: Sequence[int]) -> float:
    n, m = sum(now) + 0.5 * len(now), sum(before) + 0.5 * len(before)
    pairs = [((a + 0.5) / n, (b + 0.5) / m) for a, b in zip(now, before, strict=True)]
    return sum((p - q) * math.log(p / q) for p, q in pairs)


def _angle(share: float, n: float) -> float:
    """Of a share, so that its variance is 1/n whatever the share (Anscombe)."""
    return 2.0 * math.asin(math.sqrt((share * n + 0.375) / (n + 0.75)))


def _merged(now: Sequence[int], before: Sequence[int], smaller: float) -> list[list[int]]:
    """Neighbouring cells, put together until each has its EXPECTED_MIN in the smaller of the two spans."""
    both = [a + b for a, b in zip(now, before, strict=True)]
    groups: list[list[int]] = []
    group: list[int] = []
    for cell in range(len(both)):
        group.append(cell)
        if sum(both[i] for i in group) * smaller >= EXPECTED_MIN * sum(both):
            groups.append(group)
            group = []
    if group and groups:
        groups[-1] += group
    return groups


def chi2_tail(value: float, df: int) -> float:
    """P(chi-squared >= value): the finite sums that it is for whole degrees of freedom."""
    if value <= 0.0:
        return 1.0
    half = value / 2.0
    tail, term = 0.0, math.exp(-half)
    if df % 2:
        tail, term = math.erfc(math.sqrt(half)), term * 2.0 * math.sqrt(half / math.pi)
    for power in range(df % 2, df - 1, 2):
        tail += term
        term *= half / (power / 2.0 + 1.0)
    return min(1.0, tail)

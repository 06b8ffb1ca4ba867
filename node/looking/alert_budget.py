"""How many studies a day would be flagged at other thresholds, by the scores that are stored, and what would be lost.

A study is flagged where a finding of it reaches its threshold, or comes so near, or is so uncertain, that the settings
flag it for doubt. To keep a budget all thresholds are raised together, by the same step in log odds, each from where it
stands: a package may have one for children and another for adults.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from config.settings import DecideSettings
from inference.decide import ROUNDING
from ledger.records import Finding, ImageResult, ResultStatus, TriagePriority
from ledger.review import ReviewedStudy
from ledger.slices import is_slice

Floats = NDArray[np.float64]
EDGE_DAYS = 4  # from so many on, the first and the last, which are cut off somewhere, do not count
FEW_DAYS, FEW_STUDIES = 14, 30
AT_BORDER = 1e-6


@dataclass(frozen=True)
class Scored:
    """A study by its findings. highest: by label, the highest threshold at which that finding flags it; infinite where
    none is too high. steps: by label, by which step in log odds the threshold in force for it may be raised until that
    finding flags it no more; below 0 where it does not flag it now."""

    study_uid: str
    day: date
    highest: Mapping[str, float]
    steps: Mapping[str, float]
    sop_instance_uids: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Spread:
    """Flags a day."""

    days: int
    studies: int
    mean: float
    sd: float
    median: float
    p95: float
    most: int
    within: float  # share of days at or below the budget


@dataclass(frozen=True)
class Scores:
    """Everything that was scored. points: by label, the thresholds in force, lowest first: of each package, and of each
    age group of it, that may raise a priority."""

    studies: tuple[Scored, ...]
    days: tuple[date, ...]
    points: Mapping[str, tuple[float, ...]]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted(self.points))


@dataclass(frozen=True)
class _For:
    """For whom a threshold holds: the patients of one age group of a package. A result from before the group was kept
    stands for itself, by its own threshold."""

    digest: str
    label: str
    group: str | float


@dataclass(frozen=True)
class _Word:
    """One finding of one image, without its map: of many studies that is a lot."""

    whom: _For
    reach: float
    point: float


def scores_of(studies: Iterable[ReviewedStudy], decide: DecideSettings) -> Scores:
    """Of what may raise a priority: no slices, whose series speaks, and nobody for whom the package never raises one.
    studies: oldest first; the threshold said last for somebody is the one in force."""
    said: list[tuple[Scored, list[_Word]]] = []
    for one in studies:
        uids = frozenset(image.sop_instance_uid for image in one.images)
        bare = Scored(one.study_instance_uid, one.first_received_at.astimezone().date(), {}, {}, uids)
        said.append((bare, [word for _, result in one.said for word in _words(result, decide)]))
    in_force = {word.whom: word.point for _, words in said for word in words}
    found = [_scored(bare, words, in_force) for bare, words in said]
    points: dict[str, set[float]] = {}
    for whom, point in in_force.items():
        points.setdefault(whom.label, set()).add(point)
    return Scores(tuple(found), _whole_days(found), {label: tuple(sorted(some)) for label, some in points.items()})


def _words(result: ImageResult, decide: DecideSettings) -> list[_Word]:
    if result.status is not ResultStatus.ANALYSED or result.model is None or is_slice(result) or not _may_raise(result):
        return []
    return [
        _Word(
            _For(result.model.digest, one.label, one.operating_point if result.may_raise is None else result.age_group),
            highest_threshold(one, decide),
            one.operating_point,
        )
        for one in result.findings
    ]


def _may_raise(result: ImageResult) -> bool:
    """A result from before that was kept: one that found something and raised nothing may not."""
    if result.may_raise is not None:
        return result.may_raise
    return result.priority is not TriagePriority.LOW or not any(finding.present for finding in result.findings)


def _scored(bare: Scored, words: Sequence[_Word], in_force: Mapping[_For, float]) -> Scored:
    highest: dict[str, float] = {}
    steps: dict[str, float] = {}
    for word in words:
        label, step = word.whom.label, _step(word.reach, in_force[word.whom])
        highest[label] = max(word.reach, highest.get(label, -math.inf))
        steps[label] = max(step, steps.get(label, -math.inf))
    return replace(bare, highest=highest, steps=steps)


def highest_threshold(finding: Finding, decide: DecideSettings) -> float:
    """Up to which threshold a finding flags its image, as the node decides (inference.decide)."""
    if decide.doubt_priority == "LOW":
        return finding.probability
    if finding.probability_sd > decide.doubt_sd:
        return math.inf
    return finding.probability + decide.doubt_margin + ROUNDING


def _whole_days(found: Sequence[Scored]) -> tuple[date, ...]:
    """Every day from the first to the last, also those on which nothing came."""
    if not found:
        return ()
    first, last = min(one.day for one in found), max(one.day for one in found)
    days = tuple(first + timedelta(days=n) for n in range((last - first).days + 1))
    return days[1:-1] if len(days) >= EDGE_DAYS else days


def steps_of(scores: Scores, label: str | None = None) -> Floats:
    """For each study, by which step in log odds all thresholds, or that of one label, may be raised until nothing flags
    it any more; below 0 where nothing flags it now."""
    asked = scores.labels if label is None else (label,)
    return np.array(
        [max((one.steps.get(name, -math.inf) for name in asked), default=-math.inf) for one in scores.studies]
    )


def _step(reach: float, point: float) -> float:
    """In log odds, from a threshold to the highest that is reached; no threshold is above 1."""
    return math.inf if reach >= 1.0 or point <= 0.0 else _odds(reach) - _odds(point)


def _odds(value: float) -> float:
    if value >= 1.0:
        return math.inf
    return math.log(value / (1.0 - value)) if value > 0.0 else -math.inf


def raised(point: float, step: float) -> float:
    """A threshold after a step in log odds."""
    if math.isinf(step):
        return 1.0 if step > 0 else 0.0
    clipped = min(max(point, AT_BORDER), 1.0 - AT_BORDER)
    return 1.0 / (1.0 + math.exp(-(_odds(clipped) + step)))


def written(point: float, step: float) -> float:
    """That threshold with four decimals, as settings bear it: the next above, so that it flags no more."""
    if step == 0.0:
        return point
    return min(1.0, (math.floor(raised(point, step) * 1e4 + AT_BORDER) + 1) / 1e4)


def proposed(scores: Scores, step: float) -> dict[str, float]:
    """By label, the threshold to write. The settings have one for all patients: where several are in force, the highest
    of them as raised, which flags no more than all of them would."""
    return {label: max(written(point, step) for point in points) for label, points in scores.points.items()}


def flagged_by_any(scores: Scores, thresholds: Mapping[str, float]) -> NDArray[np.bool_]:
    """By one finding or another."""
    found = np.zeros(len(scores.studies), dtype=np.bool_)
    for label, threshold in thresholds.items():
        found |= flagged_by(scores, label, threshold)
    return found


def spread_of(scores: Scores, flagged: NDArray[np.bool_], budget: float) -> Spread:
    """flagged: for each study."""
    index = {day: n for n, day in enumerate(scores.days)}
    at = [
        index[one.day]
        for one, is_flagged in zip(scores.studies, flagged, strict=True)
        if is_flagged and one.day in index
    ]
    counts = np.bincount(np.array(at, dtype=np.int64), minlength=len(scores.days)).astype(np.float64)
    if not len(counts):
        return Spread(0, 0, 0.0, 0.0, 0.0, 0.0, 0, 1.0)
    sd = float(np.std(counts, ddof=1)) if len(counts) > 1 else 0.0
    return Spread(
        len(counts),
        int(counts.sum()),
        float(counts.mean()),
        sd,
        float(np.median(counts)),
        float(np.quantile(counts, 0.95, method="higher")),
        int(counts.max()),
        float(np.mean(counts <= budget)),
    )


def smallest_step(scores: Scores, budget: float, within: float) -> float:
    """The smallest step up from the thresholds in force that keeps the budget on that share of days; infinite where
    flags for doubt alone, which no threshold takes away, are more."""
    steps = steps_of(scores)
    lowest, candidates = 0.0, np.unique(steps[np.isfinite(steps) & (steps >= 0.0)])
    tried = [lowest, *(float(np.nextafter(one, math.inf)) for one in candidates)]
    keeps: Callable[[float], bool] = lambda step: spread_of(scores, steps >= step, budget).within >= within  # noqa: E731
    low, high = 0, len(tried) - 1
    if not keeps(tried[high]):
        return math.inf
    while low < high:  # the higher the thresholds, the fewer flags on every day
        middle = (low + high) // 2
        low, high = (low, middle) if keeps(tried[middle]) else (middle + 1, high)
    return tried[low]


def flagged_by(scores: Scores, label: str, threshold: float) -> NDArray[np.bool_]:
    """By one finding alone."""
    return np.array([one.highest.get(label, -math.inf) >= threshold for one in scores.studies], dtype=np.bool_)

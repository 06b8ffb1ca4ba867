"""What a slice model says of a whole series: by volume and contiguous slices, never by its worst slice.

A slice counts when its mask has a pixel *and* its own finding is present: a few pixels that the slice's classifier does
not believe in are no tumour, and a score that marks no place has no volume. A series has the finding when the longest
run of contiguous slices that count, and the volume of all that count, reach the package's rule.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from inference.slices import Geometry, slice_distance, stacks
from ledger.records import (
    Finding,
    ImageResult,
    InstanceRef,
    InstanceResults,
    ModelIdentity,
    ResultStatus,
    SliceMask,
    VolumeFinding,
    VolumeRule,
)

LARGEST_GAP = 1.5  # of the median distance: beyond it a slice is missing, and a run ends


@dataclass(frozen=True)
class _Slice:
    """One slice, what the model said of it, and where it lies."""

    instance: InstanceRef
    result: ImageResult
    geometry: Geometry

    @property
    def judged(self) -> bool:
        return self.result.status is ResultStatus.ANALYSED

    def finding(self, label: str) -> Finding | None:
        return next((finding for finding in self.result.findings if finding.label == label), None)

    def mask(self, label: str) -> SliceMask | None:
        """The mask of a slice that counts."""
        finding = self.finding(label)
        if finding is None or not finding.present:
            return None
        return next((mask for mask in self.result.masks if mask.label == label and mask.pixels > 0), None)


@dataclass(frozen=True)
class _Series:
    """A series as one model saw it: all slices, and the stack that speaks for it."""

    slices: tuple[_Slice, ...]
    stack: tuple[_Slice, ...]  # in order along the normal; as they came where nothing has a place
    stacks: int  # how many there are
    distance_mm: float | None

    @property
    def ordered(self) -> bool:
        return self.stacks > 0


def volumes_of(
    looked_at: Sequence[InstanceResults], geometry_of: Callable[[InstanceRef], Geometry]
) -> tuple[VolumeFinding, ...]:
    """One finding for each series, slice model and label; none for a series of which no slice was looked at.

    geometry_of: the place of a stored slice (`inference.slices.read_geometry`).
    """
    found: list[VolumeFinding] = []
    for slices in _groups(looked_at, geometry_of):
        model = slices[0].result.model
        judged = [item for item in slices if item.judged]
        if model is None or model.volume_rule is None or not judged:
            continue
        labels = list(dict.fromkeys(finding.label for item in judged for finding in item.result.findings))
        series = _series(slices, labels)
        found += [_finding(series, label, model, model.volume_rule) for label in labels]
    return tuple(found)


def _groups(
    looked_at: Sequence[InstanceResults], geometry_of: Callable[[InstanceRef], Geometry]
) -> Iterable[list[_Slice]]:
    """Slices of one series and one slice model. Of other bytes under one SOP Instance UID the first are taken."""
    groups: dict[tuple[str, str], dict[str, _Slice]] = {}
    for item in sorted(looked_at, key=lambda item: (item.instance.series_instance_uid, item.instance.instance_id)):
        for result in item.results:
            if result.model is not None and result.model.volume_rule is not None:
                group = groups.setdefault((item.instance.series_instance_uid, result.model.digest), {})
                if item.instance.sop_instance_uid not in group:
                    group[item.instance.sop_instance_uid] = _Slice(item.instance, result, geometry_of(item.instance))
    return [list(group.values()) for group in groups.values()]


def _series(slices: Sequence[_Slice], labels: Sequence[str]) -> _Series:
    """Of several stacks (orientations, repeated acquisitions) the one with the largest volume speaks; never a sum."""
    found = [tuple(slices[i] for i in stack) for stack in stacks([item.geometry for item in slices])]
    if not found:
        return _Series(tuple(slices), tuple(sorted(slices, key=lambda item: item.geometry.number)), 0, None)
    distances = [slice_distance([item.geometry for item in stack]) for stack in found]

    def size(i: int) -> tuple[float, int]:
        counted = [mask for item in found[i] for label in labels if (mask := item.mask(label))]
        volume = sum(_volume_ml(found[i], label, distances[i]) or 0.0 for label in labels)
        return volume, sum(mask.pixels for mask in counted)

    best = max(range(len(found)), key=size)
    return _Series(tuple(slices), found[best], len(found), distances[best])


def _finding(series: _Series, label: str, model: ModelIdentity, rule: VolumeRule) -> VolumeFinding:
    said = [finding for item in series.slices if item.judged and (finding := item.finding(label))]
    counted = tuple((item.instance, mask) for item in series.stack if (mask := item.mask(label)))
    numbers = [finding for item in series.stack if item.mask(label) and (finding := item.finding(label))] or said
    volume = _volume_ml(series.stack, label, series.distance_mm)
    run = _longest_run(series, label)
    large = volume is not None and volume >= rule.min_volume_ml
    present = run >= rule.min_slices and (large or rule.min_volume_ml == 0.0)
    why_not = [] if present else _undetermined(series, label, run >= rule.min_slices and volume is None)
    return VolumeFinding(
        series_instance_uid=series.slices[0].instance.series_instance_uid,
        label=label,
        code=said[0].code,
        site=said[0].site,
        model=model,
        present=present,
        volume_ml=volume,
        longest_run=run,
        slices_looked_at=sum(item.judged for item in series.slices),
        probability=float(np.mean([finding.probability for finding in numbers])),
        probability_sd=float(np.mean([finding.probability_sd for finding in numbers])),
        slices=counted,
        ordered=series.ordered,
        slices_unjudged=sum(not item.judged for item in series.slices),
        distance_mm=series.distance_mm,
        undetermined=bool(why_not),
        remark=" ".join([*why_not, *_remarks(series)]),
    )


def _volume_ml(stack: Sequence[_Slice], label: str, distance_mm: float | None) -> float | None:
    """Of the slices that count; 0 where none does, None where a spacing that it takes is unknown."""
    volume_mm3 = 0.0
    for item in stack:
        if mask := item.mask(label):
            spacing = item.geometry.pixel_spacing
            if spacing is None or distance_mm is None:
                return None
            volume_mm3 += mask.pixels * spacing[0] * spacing[1] * distance_mm
    return volume_mm3 / 1000.0


def _longest_run(series: _Series, label: str) -> int:
    """Most neighbouring slices that count; a missing slice, or one that was not looked at, ends a run."""
    if not series.ordered:
        return int(any(item.mask(label) for item in series.stack))
    normal = series.stack[0].geometry.normal
    longest = run = 0
    before: float | None = None
    for item in series.stack:
        here = item.geometry.along(normal)
        near = before is None or series.distance_mm is None or here - before <= LARGEST_GAP * series.distance_mm
        run = (run + 1 if near else 1) if item.mask(label) else 0
        longest, before = max(longest, run), here
    return longest


def _undetermined(series: _Series, label: str, volume_missing: bool) -> list[str]:
    """Why "absent" cannot be said, in sentences."""
    reasons = []
    unplaced = sum(1 for item in series.slices if item.mask(label) and not item.geometry.placed)
    if unplaced:
        reasons.append(f"{_slices(unplaced)} with a mark {_have(unplaced)} no position in the header.")
    if volume_missing:
        reasons.append("The header does not give the spacing, so the volume is unknown.")
    if unjudged := sum(not item.judged for item in series.slices):
        reasons.append(f"{unjudged} of {_slices(len(series.slices))} could not be assessed.")
    return reasons


def _remarks(series: _Series) -> list[str]:
    if series.stacks < 2:
        return []
    return [
        f"The series holds {series.stacks} stacks of slices (orientations, sizes or repeated acquisitions): "
        "each was measured by itself, and the largest is given."
    ]


def _slices(count: int) -> str:
    return "1 slice" if count == 1 else f"{count} slices"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"

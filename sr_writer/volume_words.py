"""What a slice model says of a series, in words: by volume and contiguous slices; no alarm, and never the all-clear."""

from collections.abc import Sequence

from ledger.records import StudyFindings, VolumeFinding
from sr_writer.reading import Read, in_order, of_slice_model, speaks
from sr_writer.words import name_of, plus_minus, reason_of, sayable

NO_ALARM = "No alarm is raised by this model"


def volume_lines(findings: StudyFindings) -> list[str]:
    """One line for each series and label; what is suspected first."""
    return [statement(volume, findings.volumes) for volume in in_order(findings.volumes)]


def statement(volume: VolumeFinding, volumes: Sequence[VolumeFinding]) -> str:
    """One line. volumes: all of the study, to say which series is meant where there are several."""
    name, where = name_of(volume), _which(volume, volumes)
    if volume.present:
        return _joined(f"{name} suspected{where}: {_extent(volume)}", _probability(volume), NO_ALARM, volume.remark)
    if volume.undetermined:
        marked = f"Marked: {_slices(len(volume.slices))}, {_ml(volume)}" if volume.slices else "Nothing was marked"
        return _joined(f"{name}: cannot be determined{where}. {sayable(volume.remark)} {marked}", NO_ALARM)
    found = f"{name}: not found{where} in {_slices(volume.slices_looked_at)}; other disease was not looked for"
    return _joined(found, _too_little(volume), volume.remark)


def glance(findings: StudyFindings) -> list[str]:
    """Of the lines those that an impression repeats."""
    return [statement(volume, findings.volumes) for volume in in_order(findings.volumes) if speaks(volume)]


def short(volume: VolumeFinding) -> str:
    """For a label in a viewer."""
    if volume.present:
        return f"{name_of(volume)} suspected: {_extent(volume)}, {plus_minus(volume)}"
    return f"{name_of(volume)}: {_slices(len(volume.slices))} marked, {_ml(volume)}"


def slice_refusals(found: Sequence[Read]) -> list[str]:
    """Slices that could not be looked at, one line for each reason: a series of hundreds must not fill the page."""
    reasons: dict[str, int] = {}
    refused = [read for read in found if of_slice_model(read)]
    for read in refused:
        reason = reason_of(read.result.reason)
        reasons[reason] = reasons.get(reason, 0) + 1
    return [f"Cannot assess {_slices(count)}: {reason}" for reason, count in sorted(reasons.items())]


def _joined(*sentences: str) -> str:
    return " ".join(f"{text.rstrip('. ')}." for text in map(sayable, sentences) if text)


def _extent(volume: VolumeFinding) -> str:
    """ "volume 12.3 ml over 5 contiguous slices"."""
    count, run = len(volume.slices), volume.longest_run
    if count == run:
        return f"{_ml(volume)} over {run} contiguous slices" if run != 1 else f"{_ml(volume)} in 1 slice"
    return f"{_ml(volume)} in {_slices(count)}, {run} of them contiguous"


def _ml(volume: VolumeFinding) -> str:
    if volume.volume_ml is None:
        return "volume unknown"
    return f"volume {volume.volume_ml:.1f} ml" if volume.volume_ml >= 1.0 else f"volume {volume.volume_ml:.2f} ml"


def _probability(volume: VolumeFinding) -> str:
    return f"Mean probability of these slices {plus_minus(volume)}"


def _too_little(volume: VolumeFinding) -> str:
    rule = volume.model.volume_rule
    if not volume.slices or rule is None:
        return ""
    return (
        f"{_slices(len(volume.slices))} marked, {_ml(volume)}: the model asks for {rule.min_slices} contiguous slices "
        f"and {rule.min_volume_ml:g} ml"
    )


def _slices(count: int) -> str:
    return "1 slice" if count == 1 else f"{count} slices"


def _which(volume: VolumeFinding, volumes: Sequence[VolumeFinding]) -> str:
    """Which series, when there is more than one."""
    series = sorted({item.series_instance_uid for item in volumes})
    if len(series) < 2:
        return ""
    return f" (series {series.index(volume.series_instance_uid) + 1} of {len(series)}, {volume.series_instance_uid})"

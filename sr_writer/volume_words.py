"""What a slice model says of a series, in words: by volume and contiguous slices; no alarm, and never the all-clear."""

from collections.abc import Sequence

from ledger.records import ReportKind, StudyFindings, VolumeFinding
from ledger.slices import is_slice, refused_words, results_of, slices_refused
from sr_writer.reading import in_order, speaks
from sr_writer.words import name_of, plus_minus, reason_of, sayable

NO_ALARM = "No alarm is raised by this model"


def volume_lines(findings: StudyFindings) -> list[str]:
    """One line for each series and label; what is suspected first."""
    return [statement(volume, findings.volumes) for volume in in_order(findings.volumes)]


def series_lines(findings: StudyFindings) -> list[str]:
    """Those, and which slices could not be assessed."""
    return [*volume_lines(findings), *slice_refusals(findings)]


def statement(volume: VolumeFinding, volumes: Sequence[VolumeFinding]) -> str:
    """One line. volumes: all of the study, to say which series is meant where there are several."""
    name, where = name_of(volume), _which(volume, volumes)
    if volume.present:
        return _joined(f"{name} suspected{where}: {_extent(volume)}", _probability(volume), NO_ALARM, volume.remark)
    if volume.undetermined:
        marked = f"Marked: {_part(volume)}, {_ml(volume)}" if volume.slices else "Nothing was marked"
        return _joined(f"{name}: cannot be determined{where}. {sayable(volume.remark)} {marked}", NO_ALARM)
    found = f"{name}: not found{where} in {_slices(_meant(volume))}; other disease was not looked for"
    return _joined(found, _too_little(volume), volume.remark)


def glance(findings: StudyFindings) -> list[str]:
    """Of the lines those that an impression repeats."""
    return [statement(volume, findings.volumes) for volume in in_order(findings.volumes) if speaks(volume)]


def short(volume: VolumeFinding) -> str:
    """For a label in a viewer."""
    if volume.present:
        return f"{name_of(volume)} suspected: {_extent(volume)}, {plus_minus(volume)}"
    return f"{name_of(volume)}: {_part(volume)} marked, {_ml(volume)}"


def slice_refusals(findings: StudyFindings, *, apart: bool = False) -> list[str]:
    """Slices that could not be assessed, one line for each series: a series of hundreds must not fill the page. A
    provisional report says nothing of slices. apart: a line for each reason, for viewers that cut long ones off."""
    if findings.kind is ReportKind.PROVISIONAL:
        return []
    said = [pair for pair in results_of(findings.looked_at) if is_slice(pair[1])]
    series = sorted({uid for uid, _ in said})
    lines: list[str] = []
    for uid in series:
        where = f" of series {uid}" if len(series) > 1 else ""
        counted = slices_refused([pair for pair in said if pair[0] == uid])
        refused = tuple((reason_of(reason), count, total) for reason, count, total in counted)
        lines += [refused_words((one,), where) for one in refused] if apart else [refused_words(refused, where)]
    return [line for line in lines if line]


def _joined(*sentences: str) -> str:
    return " ".join(f"{text.rstrip('. ')}." for text in map(sayable, sentences) if text)


def _extent(volume: VolumeFinding) -> str:
    """ "volume 12.3 ml in 5 of 20 slices, 4 of them contiguous"."""
    count, run = len(volume.slices), volume.longest_run
    contiguous = "" if count == 1 else ", contiguous" if count == run else f", {run} of them contiguous"
    return f"{_ml(volume)} in {_part(volume)}{contiguous}"


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
        f"{_part(volume)} marked, {_ml(volume)}: the model asks for {rule.min_slices} contiguous slices "
        f"and {rule.min_volume_ml:g} ml"
    )


def _part(volume: VolumeFinding) -> str:
    """ "5 of 20 slices": those that count, of all that were meant for the model."""
    return f"{len(volume.slices)} of {_slices(_meant(volume))}"


def _meant(volume: VolumeFinding) -> int:
    return volume.slices_looked_at + volume.slices_unjudged


def _slices(count: int) -> str:
    return "1 slice" if count == 1 else f"{count} slices"


def _which(volume: VolumeFinding, volumes: Sequence[VolumeFinding]) -> str:
    """Which series, when there is more than one."""
    series = sorted({item.series_instance_uid for item in volumes})
    if len(series) < 2:
        return ""
    return f" (series {series.index(volume.series_instance_uid) + 1} of {len(series)}, {volume.series_instance_uid})"

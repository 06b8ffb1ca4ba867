"""SR #2: the report a person reads in any viewer. TID 2000 in Enhanced SR, flat leaf items (result_objects 7.2)."""

from collections.abc import Iterator, Sequence

from ledger.records import Finding, ReportKind, ResultObject, ResultStatus, SentReference, TriagePriority
from sr_writer import codes
from sr_writer.document import in_classes, text_section, text_tree
from sr_writer.dress import Report
from sr_writer.follow import follow_lines
from sr_writer.profiles import MEASUREMENT_SR, TEXT_SR
from sr_writer.reading import (
    Read,
    analysed,
    by_image,
    marked,
    marked_volumes,
    measured,
    not_judged,
    of_slice_model,
    ranked,
    reads,
)
from sr_writer.reasons import reason_items
from sr_writer.volume_words import glance, slice_refusals, volume_lines
from sr_writer.words import (
    DISCLAIMER,
    FLAGGED,
    NO_FINDING,
    NOT_RAISED,
    boxes_of,
    name_of,
    plus_minus,
    reason_of,
    sayable,
    spoken,
    standing,
)

KIND = TEXT_SR
LINE_LENGTH = 80  # characters


def text_report(report: Report) -> list[ResultObject]:
    """Build it, once for each class of the plan: flagged, unflagged, not assessed; provisional or final."""
    reasons = reason_items(not_judged(reads(report.findings)))
    sections = [
        text_section(heading, name, lines, coded)
        for heading, name, lines, coded in (
            (codes.IMPRESSIONS, codes.IMPRESSION, impression_lines(report), []),  # first: it is what a glance sees
            (codes.FINDINGS, codes.FINDING, finding_lines(report), reasons),
            (codes.RECOMMENDATIONS, codes.RECOMMENDATION, recommendation_lines(report), []),
        )
        if lines
    ]
    root = text_tree(report, sections)
    return in_classes(report, KIND, report.plan.text_sr, root, _what(report), _predecessors(report))


def finding_lines(report: Report) -> list[str]:
    """What was seen, image by image, then by whom."""
    found = reads(report.findings)
    images = by_image(found)
    lines = volume_lines(report.findings)
    lines += [line for read in analysed(images) for line in _result_lines(read, report, images)]
    lines += [f"Cannot assess{_which(read, report, images)}: {_reason(read)}" for read in not_judged(images)]
    lines += slice_refusals(report.findings, apart=True)
    models = {read.result.model.digest for read in analysed(found) if read.result.model is not None}
    lines += list(dict.fromkeys(line for read in analysed(found) for line in _model_lines(read, len(models) == 1)))
    if report.findings.kind is ReportKind.PROVISIONAL:
        if any(of_slice_model(read) for read in found):
            lines.append("Series that are read slice by slice are reported when the study is complete.")
        lines.append("Provisional: made before the study was complete.")
        lines.append("A final report follows.")
    return lines


def impression_lines(report: Report) -> list[str]:
    """The case in one glance: first the class, last the disclaimer."""
    priority = report.findings.priority
    found = reads(report.findings)
    images = by_image(found)
    lines = [_headline(report, found), *follow_lines(report)]
    if measured(report):
        lines += [line for line in dict.fromkeys(_short(read, report, images) for read in analysed(images)) if line]
    lines += glance(report.findings)
    lines += slice_refusals(report.findings) if priority is not TriagePriority.NOT_ASSESSED else []
    unjudged = {read.instance.sop_instance_uid for read in not_judged(images)}
    if unjudged and priority in FLAGGED:
        lines.append(f"{_images(len(unjudged))} could not be assessed: see the findings.")
    lines += list(_flag_lines(report, found))
    return [*lines, DISCLAIMER]


def recommendation_lines(report: Report) -> list[str]:
    said = [read.result for read in reads(report.findings) if not read.remark]
    texts = [text for result in said for text in result.recommendations]
    return [line for line in dict.fromkeys(sayable(text) for text in texts) if line]


def _headline(report: Report, found: Sequence[Read]) -> str:
    priority = report.findings.priority
    if priority in FLAGGED:
        return f"AI PRIORITY: {priority.value}"
    if priority is TriagePriority.NOT_ASSESSED:
        return f"AI triage cannot assess{_partly(found)}"
    if labels := marked(report.findings):
        return f"AI marked {_names(labels)}, by a model that may not raise a priority: {NOT_RAISED}"
    return f"AI triage: {NO_FINDING[0].lower()}{NO_FINDING[1:]}"


def _partly(found: Sequence[Read]) -> str:
    """The first reason; of slices also how many of all they are."""
    unjudged = not_judged(found)
    if images := by_image(unjudged):
        return f": {_reason(images[0])}"
    total = sum(of_slice_model(read) for read in found)
    return f" {len(unjudged)} of {total} slices: {_reason(unjudged[0])}" if unjudged else f": {reason_of('')}"


def _short(read: Read, report: Report, found: Sequence[Read]) -> str:
    said = [f for f in sorted(spoken(read.result), key=ranked) if f.present or f.in_doubt]
    text = "; ".join(f"{name_of(f)} {plus_minus(f)}{_remarks(f, report)}" for f in said)
    return f"{text}{_which(read, report, found)}" if text else ""


def _remarks(finding: Finding, report: Report) -> str:
    remarks = ("in doubt" if finding.in_doubt else "", boxes_of(finding, report.shows_regions))
    said = ", ".join(remark for remark in remarks if remark)
    return f" ({said})" if said else ""


def _flag_lines(report: Report, found: Sequence[Read]) -> Iterator[str]:
    if report.critical_flags:
        flags = dict.fromkeys(flag for read in found for flag in read.result.critical_flags)
        yield from (f"Critical flag: {flag.replace('_', ' ')}" for flag in flags)


def _result_lines(read: Read, report: Report, found: Sequence[Read]) -> Iterator[str]:
    for f in sorted(spoken(read.result), key=ranked):
        alone = f"{name_of(f)}{_number_of(read, found)}"
        threshold = f"operating point {f.operating_point * 100:.1f} %"
        yield from _fitted(
            f"{name_of(f)}: {standing(f, read.result.priority)}{_which(read, report, found)}.",
            (f"Probability {plus_minus(f)} ({threshold}).", f"{alone}: probability {plus_minus(f)}, {threshold}."),
            *((f"{boxes}.", f"{alone}: {boxes}.") for boxes in _boxed(f, report)),
        )
    if not spoken(read.result):
        yield NO_FINDING


def _fitted(line: str, *more: tuple[str, str]) -> Iterator[str]:
    """Whole sentences in as few lines as fit. more: how each goes on in a line, and how it begins one of its own."""
    for following, alone in more:
        if len(line) + 1 + len(following) > LINE_LENGTH:
            yield line
            line = alone
        else:
            line = f"{line} {following}"
    yield line


def _boxed(finding: Finding, report: Report) -> list[str]:
    boxes = boxes_of(finding, report.shows_regions)
    return [f"{boxes} in the measurement report"] if boxes and report.measurements else []


def _number_of(read: Read, found: Sequence[Read]) -> str:
    """Which image, when there is more than one: by the order they are spoken of."""
    images = list(dict.fromkeys(r.instance.sop_instance_uid for r in found))
    return f", image {images.index(read.instance.sop_instance_uid) + 1} of {len(images)}" if len(images) > 1 else ""


def _which(read: Read, report: Report, found: Sequence[Read]) -> str:
    """The same in brackets, with what a reader calls it."""
    number, name = _number_of(read, found)[2:], report.image_names.get(read.instance.sop_instance_uid)
    return f" ({number}: {name})" if number and name else f" ({number})" if number else ""


def _reason(read: Read) -> str:
    said = reason_of(read.result.reason)
    return said if read.result.status is ResultStatus.NOT_ASSESSED else f"analysis failed: {said}"


def _model_lines(read: Read, is_alone: bool) -> Iterator[str]:
    """Short ones: some viewers cut a line of findings off at the edge, and with it what it ends on.

    Each is a finding of its own to a machine: where a sentence is long, whole is better than short.
    """
    model = read.result.model
    if model is None:
        return
    name = f"{model.name} {model.version} (sha256 {model.digest[:12]})"
    yield f"Model: {name}, {model.passes} passes. Research use only."
    if read.result.degraded:
        yield f"Model {model.name}: computed by {read.result.computed_by}, because what the node prefers failed."
    for clause in filter(None, sayable(model.uncertainty).rstrip(".").split("; ")):
        yield f"±{'' if is_alone else f' of {model.name}'}: {clause}."


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _what(report: Report) -> str:
    """Of a study that is not flagged also what is marked in its series: the name is all that a list shows."""
    priority, labels = report.findings.priority, marked_volumes(report.findings)
    if priority is TriagePriority.NOT_ASSESSED:
        return "not assessed"
    return f"{_names(labels)} marked" if labels and priority not in FLAGGED else "report"


def _names(labels: Sequence[str]) -> str:
    return " and ".join(label.replace("_", " ") for label in labels)


def _predecessors(report: Report) -> list[SentReference]:
    """The text reports before this one, and measurement reports that this report no longer repeats."""
    kinds = {KIND} if report.measurements else {KIND, MEASUREMENT_SR}
    return [item for item in report.findings.predecessors if item.kind in kinds]

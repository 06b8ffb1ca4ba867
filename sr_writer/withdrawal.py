"""What is sent when a report is taken back: it says so, why, and what it replaces. No finding, no priority.

The earlier objects stay where they are, since nobody may delete from another's archive; each withdrawn report names
its predecessors of the same kind (Predecessor Documents, PS3.3 C.17.2), so that a reader of either finds the other.
"""

from collections.abc import Sequence

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentSequence,
    MeasurementReport,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    TextContentItem,
    TrackingIdentifier,
)

from ledger.records import ResultObject, SentReference
from sr_writer import codes
from sr_writer.document import in_classes, language, observation_context, separate, text_section, text_tree
from sr_writer.dress import Report
from sr_writer.identity import uid_from
from sr_writer.profiles import MEASUREMENT_SR, TEXT_SR, name_of_kind
from sr_writer.regions import finish_region, outline, region
from sr_writer.words import DISCLAIMER, DO_NOT_USE, reason_of

HEADLINE = "AI RESULT WITHDRAWN"
_WHAT = "withdrawn"
_CONTAINS = RelationshipTypeValues.CONTAINS


def withdrawn_objects(report: Report) -> list[ResultObject]:
    """A text report, and a measurement report where there was one before: each in every SOP class of the plan, of which
    a destination gets the first that it accepts."""
    measured = bool(_before(report, MEASUREMENT_SR)) and bool(report.plan.measurement_sr)
    made = _measurements(report) if measured else []
    if not (measured and report.plan.text_alone):
        kinds = (TEXT_SR,) if measured else (TEXT_SR, MEASUREMENT_SR)
        made += _text(report, _before(report, *kinds))
    return made


def lines(report: Report) -> list[str]:
    """What is withdrawn and why, for a reader; first that it is, last the disclaimer."""
    why = reason_of(report.findings.cause)
    return [HEADLINE, DO_NOT_USE, f"Why: {why}.", "The images are to be read as without AI triage.", DISCLAIMER]


def replaced(report: Report) -> list[str]:
    """One line for each kind of the objects that no longer stand."""
    reports: dict[str, set[int]] = {}
    for item in report.findings.predecessors:
        reports.setdefault(item.kind, set()).add(item.report_id)
    return [_replaced(name_of_kind(kind), len(ids)) for kind, ids in reports.items()]


def _replaced(name: str, count: int) -> str:
    return f"Withdrawn: the earlier {name}." if count == 1 else f"Withdrawn: the earlier {name} of {count} AI reports."


def _text(report: Report, before: Sequence[SentReference]) -> list[ResultObject]:
    sections = [
        text_section(codes.IMPRESSIONS, codes.IMPRESSION, lines(report)),
        text_section(codes.FINDINGS, codes.FINDING, replaced(report) or [DO_NOT_USE]),
    ]
    return in_classes(report, TEXT_SR, report.plan.text_sr, text_tree(report, sections), _WHAT, before)


def _measurements(report: Report) -> list[ResultObject]:
    """TID 1500 without a measurement. Its one group outlines the image and says that nothing stands: a viewer that
    draws such reports would show an empty screen without it."""
    content = MeasurementReport(
        observation_context=observation_context(report),
        procedure_reported=codes.IMAGING_PROCEDURE,
        imaging_measurements=[_group(report)],
        language_of_content_item_and_descendants=language(),
    )
    root = content[0]
    root.ContentSequence.append(_evaluations(report))
    separate(root)
    return in_classes(report, MEASUREMENT_SR, report.plan.measurement_sr, root, _WHAT, _before(report, MEASUREMENT_SR))


def _group(report: Report) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    group = PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=uid_from("tracking", report.installation_uid, report.findings.study_instance_uid, "withdrawn"),
            identifier="AI result withdrawn",
        ),
        referenced_region=region(outline(report.header.rows, report.header.columns), report.header_of),
    )
    finish_region(group[0], report.header_of, report)
    said = f"AI (research): result withdrawn. {DO_NOT_USE}"
    group[0].ContentSequence.append(TextContentItem(codes.COMMENT, said, _CONTAINS))
    return group


def _evaluations(report: Report) -> ContainerContentItem:
    container = ContainerContentItem(codes.QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    said = [TextContentItem(codes.COMMENT, line, _CONTAINS) for line in (*replaced(report), *lines(report)[1:])]
    status = CodeContentItem(codes.RESULT_STATUS, codes.WITHDRAWN, _CONTAINS)
    container.ContentSequence = ContentSequence(
        [status, *said, TextContentItem(codes.IMPRESSION, f"{HEADLINE}. {DO_NOT_USE}", _CONTAINS)]
    )
    return container


def _before(report: Report, *kinds: str) -> list[SentReference]:
    return [item for item in report.findings.predecessors if item.kind in kinds]

"""SR #1: the report a machine reads. TID 1500 in the SOP classes of the plan (result_objects 7.1 and 7.8).

Where the site wants boxes, a finding with boxes has a measurement group for each, its rectangle as the image region.
Without boxes (a heat map is none) its one group outlines the whole image: valid, and viewers draw a frame instead of
going blank; in a plan of boxes only there is no such group. highdicom cannot build all of the layout; what it lacks is
added to its tree afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    ContainerContentItem,
    ContentSequence,
    FindingSite,
    Measurement,
    MeasurementReport,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    TextContentItem,
    TrackingIdentifier,
)
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

from ledger.records import Code, Finding, ImageResult, Region, ResultObject, TriagePriority
from sr_writer import codes
from sr_writer.document import in_classes, language, observation_context, separate
from sr_writer.dress import Report, stand_in
from sr_writer.errors import NothingToSay
from sr_writer.follow import follow_lines
from sr_writer.identity import tracking_uid
from sr_writer.profiles import MEASUREMENT_SR
from sr_writer.reading import Read, analysed, by_image, in_order, not_judged, ranked, reads, speaks
from sr_writer.reasons import reason_items
from sr_writer.regions import finish_region, outline, rectangle, region
from sr_writer.volume_groups import finish_volume_groups, volume_groups
from sr_writer.volume_words import series_lines, short
from sr_writer.words import (
    DISCLAIMER,
    FLAGGED,
    beside_box,
    in_percent,
    name_of,
    number_of,
    plus_minus,
    spoken,
    standing,
)

KIND = MEASUREMENT_SR
Mapped = Literal["critical", "HIGH", "MEDIUM"]  # what a site may give an ACR category
_CONTAINS = RelationshipTypeValues.CONTAINS
_PROJECTIONS = frozenset(
    {ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing}
)


@dataclass(frozen=True)
class Statement:
    """One finding, or one of its boxes, with the result it belongs to, as one measurement group says it.

    box: which of the finding's regions, the most probable first; None for the finding as a whole.
    """

    read: Read
    finding: Finding
    number: int
    box: int | None = None

    @property
    def region(self) -> Region | None:
        return None if self.box is None else self.finding.regions[self.box]

    @property
    def title(self) -> str:
        return f"AI-{self.number} {name_of(self.finding)}"

    @property
    def comment(self) -> str:
        said = f"{name_of(self.finding)} {plus_minus(self.finding)}"
        return f"AI (research): {beside_box(self.finding, self.region) if self.region else said}"

    def tracking_uid(self, installation_uid: str) -> str:
        """Stable over revisions: a box is named by its place in the order of probability."""
        model, label = self.read.result.model, self.finding.label
        label = label if self.box is None else f"{label} box {self.box + 1}"
        return tracking_uid(installation_uid, self.read.instance.sop_instance_uid, model.name if model else "", label)


def measurement_report(report: Report) -> list[ResultObject]:
    """Build it, once for each class of the plan. Raises NothingToSay when nothing can be measured."""
    planar = report.plan.boxes_only  # a group without coordinates would leave the viewer blank
    if planar and not report.shows_regions:
        report = replace(report, segments=())
    found = reads(report.findings)
    statements = _statements(report, analysed(by_image(found)))
    content = MeasurementReport(
        observation_context=observation_context(report),
        procedure_reported=codes.IMAGING_PROCEDURE,
        imaging_measurements=[*(_group(statement, report) for statement in statements), *volume_groups(report, planar)],
        language_of_content_item_and_descendants=language(),
        referenced_images=_library(report, analysed(found)),
    )
    root = content[0]
    _finish_groups(root, statements, report)
    root.ContentSequence.append(_evaluations(report, found))
    separate(root)
    before = [item for item in report.findings.predecessors if item.kind == KIND]
    return in_classes(report, KIND, report.plan.measurement_sr, root, "measurements", before)


def _library(report: Report, found: Sequence[Read]) -> list[Dataset]:
    """TID 1600, when one radiograph was read and its header says enough (TID 1603); else no library at all."""
    header, instance = report.header, found[0].instance if found else None
    if instance is None or any(read.instance != instance for read in found) or report.header_of != instance:
        return []
    spacing_known = len(header.imager_pixel_spacing) == 2 and min(header.imager_pixel_spacing) > 0.0
    oriented = len(header.patient_orientation) == 2
    if instance.sop_class_uid not in _PROJECTIONS or not (
        spacing_known and oriented and header.rows and header.columns
    ):
        return []
    image = stand_in(instance, header.rows, header.columns)
    image.SOPClassUID = instance.sop_class_uid
    image.Modality = instance.modality or "DX"
    image.PatientOrientation = list(header.patient_orientation)
    image.ImagerPixelSpacing = list(header.imager_pixel_spacing)
    return [image]


def _statements(report: Report, found: Sequence[Read]) -> list[Statement]:
    """A group for each finding that is present or in doubt; with none, and no volume, for the worst image's first.

    Where boxes may be shown, a finding that has some has a group for each of them instead.
    """
    every = [(read, finding) for read in found for finding in sorted(spoken(read.result), key=ranked)]
    flagged = [(read, finding) for read, finding in every if finding.present or finding.in_doubt]
    chosen = [
        (read, finding, box)
        for read, finding in flagged or ([] if report.segments else every[:1])
        for box in _boxes(report, finding)
    ]
    if not chosen and not report.segments:
        raise NothingToSay("no analysed image has a finding to measure")
    return [Statement(read, finding, i, box) for i, (read, finding, box) in enumerate(chosen, start=1)]


def _boxes(report: Report, finding: Finding) -> Sequence[int | None]:
    """Which of a finding's boxes have a group; None stands for the finding as a whole."""
    if report.shows_regions and finding.regions:
        return range(len(finding.regions))
    return () if report.plan.boxes_only else (None,)


def _group(said: Statement, report: Report) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """TID 1410."""
    instance, finding = said.read.instance, said.finding
    uid = said.tracking_uid(report.installation_uid)
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=uid, identifier=said.title),
        referenced_region=region(_points(said, report), instance),
        finding_type=codes.concept(finding.code),
        finding_sites=[FindingSite(codes.concept(finding.site))] if finding.site else None,
        algorithm_id=_algorithm(said.read.result, finding),
        measurements=_numbers(said, _probability(said, report)),
    )


def _probability(said: Statement, report: Report) -> CodedConcept:
    """Where a viewer writes nothing beside a box but the names of its numbers, the name says of what."""
    if not report.plan.boxes_only:
        return codes.PROBABILITY
    name, label = name_of(said.finding), said.finding.label.upper()
    several = len(said.finding.regions) > 1
    code = f"{codes.PROB_OF_BOX if several else codes.PROB_OF_LABEL}{label}"[:16]  # VR SH
    return CodedConcept(code, codes.PRIVATE_SCHEME, f"{name}{' box' if several else ''} probability")


def _numbers(said: Statement, name: CodedConcept) -> list[Measurement]:
    """The probability, and how far the passes lie apart: those were counted for the finding, not for each box.

    Beside a box it is one number alone: viewers write the name of each there.
    """
    if said.region:
        return [Measurement(name=name, value=in_percent(number_of(said.finding, said.region)), unit=codes.PERCENT)]
    probability, sd = said.finding.probability, said.finding.probability_sd
    return [
        Measurement(name=name, value=in_percent(probability), unit=codes.PERCENT),
        Measurement(name=codes.PROBABILITY_SD, value=_percent(sd), unit=codes.PERCENT),
    ]


def _points(said: Statement, report: Report) -> NDArray[np.float64]:
    """The box, or the outline of the whole image."""
    if said.region:
        return rectangle(said.region.box)
    result = said.read.result
    return outline(result.source_rows or report.header.rows, result.source_columns or report.header.columns)


def _percent(probability: float) -> float:
    return round(probability * 100.0, 2)


def _algorithm(result: ImageResult, finding: Finding) -> AlgorithmIdentification:
    """TID 4019: which model, exactly, and how its score became a probability."""
    model = result.model
    if model is None:
        raise NothingToSay("an analysed result names no model")
    return AlgorithmIdentification(
        name=model.name,
        version=model.version,
        family=codes.ARTIFICIAL_INTELLIGENCE,
        parameters=[
            f"package-sha256={model.digest}",
            f"mc_dropout_passes={model.passes}",
            f"operating_point={finding.operating_point:g}",
            f"high_operating_point={finding.high_operating_point:g}",
            f"uncalibrated_score={finding.score:.4f}",
            *_computing(result),
            "calibration=each pass calibrated as the package's manifest says, then averaged",
        ],
    )


def _computing(result: ImageResult) -> list[str]:
    """What computed the numbers; a provider that was hoped for and failed is never left unsaid."""
    if not result.computed_by:
        return []
    return [f"provider={result.computed_by}", f"degraded={'yes' if result.degraded else 'no'}"]


def _finish_groups(root: Dataset, statements: Sequence[Statement], report: Report) -> None:
    """Per group: its label for viewers, and the coordinates under its first number that OHIF needs to hydrate it."""
    measurements = next(i for i in root.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010")
    groups = measurements.ContentSequence[: len(statements)]
    finish_volume_groups(measurements.ContentSequence[len(statements) :], report)
    for group, said in zip(groups, statements, strict=True):
        finish_region(group, said.read.instance, report)
        group.ContentSequence.append(TextContentItem(codes.COMMENT, said.comment, _CONTAINS))


def _evaluations(report: Report, found: Sequence[Read]) -> ContainerContentItem:
    """Qualitative Evaluations: priority, every scored label, remarks, impression."""
    priority = report.findings.priority
    container = ContainerContentItem(codes.QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    urgency = {TriagePriority.HIGH: codes.HIGH_PRIORITY, TriagePriority.MEDIUM: codes.URGENT}.get(priority)
    items = [CodeContentItem(codes.PRIORITY, urgency, _CONTAINS)] if urgency else []
    flags = _flags(report, found)
    category = actionable(priority, bool(flags), report.settings.acr_categories)
    items += [CodeContentItem(codes.ACTIONABLE, category, _CONTAINS)] if category else []
    items += [CodeContentItem(codes.CRITICAL_FLAG, codes.flag_concept(flag), _CONTAINS) for flag in flags]
    items += [CodeContentItem(name, value, _CONTAINS) for name, value in _labels(report, by_image(found))]
    items += reason_items(not_judged(found))
    said = (*follow_lines(report), *_unflagged(by_image(found)), *series_lines(report.findings), DISCLAIMER)
    texts = [TextContentItem(codes.COMMENT, text, _CONTAINS) for text in said]
    texts.append(TextContentItem(codes.IMPRESSION, _impression(report, found), _CONTAINS))
    container.ContentSequence = ContentSequence([*items, *texts])
    return container


def actionable(priority: TriagePriority, critical: bool, mapped: Mapping[Mapped, int]) -> CodedConcept | None:
    """CID 7035, as the site maps it; None where it does not. critical: a flag that the site lets into DICOM."""
    category = mapped.get("critical") if critical else None
    if category is None and priority in FLAGGED:
        category = mapped.get("HIGH" if priority is TriagePriority.HIGH else "MEDIUM")
    return codes.ACR_CATEGORIES[category] if category else None


def _flags(report: Report, found: Sequence[Read]) -> list[str]:
    if not report.critical_flags:
        return []
    return list(dict.fromkeys(flag for read in found for flag in read.result.critical_flags))


def _labels(report: Report, found: Sequence[Read]) -> list[tuple[CodedConcept, CodedConcept]]:
    """Each scored label once for the study: Present if on any image, else Undetermined if in doubt on any, else Absent.

    A label also stays Undetermined while an image of the study could not be judged. Of slice models the volumes speak.
    """
    by_label: dict[str, list[Finding]] = {}
    for read in analysed(found):
        for finding in spoken(read.result):
            by_label.setdefault(finding.label, []).append(finding)
    blind, volumes = bool(not_judged(found)), in_order(report.findings.volumes)
    said = [
        (same[0].code, codes.presence(any(f.present for f in same), blind or any(f.in_doubt for f in same)))
        for _, same in sorted(by_label.items())
    ]
    said += [(volume.code, codes.presence(volume.present, volume.undetermined)) for volume in volumes]
    worst: dict[Code, CodedConcept] = {}
    for code, presence in said:
        worst[code] = min(worst.get(code, presence), presence, key=codes.PRESENCES.index)
    return [(codes.concept(code), presence) for code, presence in worst.items()]


def _unflagged(found: Sequence[Read]) -> list[str]:
    """The numbers of the labels that have no measurement group."""
    rest = [f for read in analysed(found) for f in sorted(spoken(read.result), key=ranked)]
    said = [f"{name_of(f)}: {standing(f)}, probability {plus_minus(f)}" for f in rest if not (f.present or f.in_doubt)]
    return list(dict.fromkeys(said))


def _impression(report: Report, found: Sequence[Read]) -> str:
    images = analysed(by_image(found))
    said = [f for read in images for f in sorted(spoken(read.result), key=ranked) if f.present or f.in_doubt]
    texts = dict.fromkeys(f"{name_of(f)} {plus_minus(f)}" for f in said)
    texts |= dict.fromkeys(short(volume) for volume in in_order(report.findings.volumes) if speaks(volume))
    priority = report.findings.priority
    headline = f"Priority {priority.value}" if priority in FLAGGED else "Priority not raised"
    return f"{headline}. {'; '.join(texts) or 'See the measurements'}."

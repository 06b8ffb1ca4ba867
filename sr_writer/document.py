"""What both structured reports share: language, observer, evidence, flags, predecessors."""

from collections.abc import Sequence
from dataclasses import replace

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    LanguageOfContentItemAndDescendants,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
)
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset
from pydicom.uid import UID, SegmentationStorage

from ledger.records import InstanceRef, ReportKind, ResultObject, SentReference
from sr_writer import codes
from sr_writer.dress import Report, dress, finished, instance_references, own_names, private_scheme, stand_in
from sr_writer.follow import series_name
from sr_writer.identity import device_uid
from sr_writer.reading import not_judged, reads
from sr_writer.sr_document import sr_document

_CONTAINS = RelationshipTypeValues.CONTAINS


def language() -> LanguageOfContentItemAndDescendants:
    """TID 1204."""
    return LanguageOfContentItemAndDescendants(codes.ENGLISH)


def observation_context(report: Report) -> ObservationContext:
    """TID 1001 with a device observer (TID 1004): stable per installation and software version."""
    device = DeviceObserverIdentifyingAttributes(
        uid=device_uid(report.installation_uid),
        name=report.settings.model_name,
        manufacturer_name=report.settings.manufacturer,
        model_name=report.settings.model_name,
        serial_number=report.settings.device_serial_number,
    )
    return ObservationContext(
        observer_device_context=ObserverContext(observer_type=codes.DEVICE, observer_identifying_attributes=device)
    )


def procedure_reported() -> CodeContentItem:
    return CodeContentItem(codes.PROCEDURE_REPORTED, codes.IMAGING_PROCEDURE, RelationshipTypeValues.HAS_CONCEPT_MOD)


def text_tree(report: Report, sections: Sequence[ContainerContentItem]) -> Dataset:
    """TID 2000, flat: language, observer and procedure in the order of the template, then the sections."""
    root = Dataset(ContainerContentItem(codes.DIAGNOSTIC_REPORT, is_content_continuous=False, template_id="2000"))
    root.ContentSequence = [*language(), *observation_context(report), procedure_reported(), *sections]
    separate(root)
    return root


def text_section(
    heading: CodedConcept, name: CodedConcept, lines: Sequence[str], coded: Sequence[CodeContentItem] = ()
) -> ContainerContentItem:
    section = ContainerContentItem(heading, is_content_continuous=False, relationship_type=_CONTAINS)
    section.ContentSequence = ContentSequence([*(TextContentItem(name, line, _CONTAINS) for line in lines), *coded])
    return section


def is_partial(report: Report) -> bool:
    """More may follow, or some image could not be judged: Completion Flag PARTIAL. A withdrawal has no more to say."""
    if report.withdrawn:
        return False
    return report.findings.kind is ReportKind.PROVISIONAL or bool(not_judged(reads(report.findings)))


def in_classes(
    report: Report,
    kind: str,
    sop_classes: Sequence[str],
    root: Dataset,
    what: str,
    predecessors: Sequence[SentReference],
) -> list[ResultObject]:
    """One document in each of `sop_classes`, the preferred first: the same tree, each under names of its own.

    Only one of them is for any one destination: they are a choice, where there is more than one. sop_classes: at least
    one. predecessors: of earlier documents in several forms the preferred is named; a withdrawal names them all.
    """
    evidence = [stand_in(instance) for instance in _evidence(report)]
    ds = sr_document(sop_classes[0], evidence=evidence, content=root, **own_names(report, kind))
    before = predecessors if report.withdrawn else one_of_each_choice(predecessors)
    dress_document(ds, report, what, before)
    choice = kind if len(sop_classes) > 1 else ""
    made = [replace(_named(ds, report, kind, sop_classes[0]), choice=choice)]
    for preference, sop_class in enumerate(sop_classes[1:], start=1):
        if preference == 1:
            ds, tree = _without_tree(ds, made[0].content, kind)
        other = _named(ds, report, kind, sop_class)
        made.append(replace(other, content=other.content + tree, choice=choice, preference=preference))
    return made


def _named(ds: Dataset, report: Report, kind: str, sop_class: str) -> ResultObject:
    name = name_in(kind, sop_class)
    ds.SOPClassUID = UID(sop_class)
    ds.SOPInstanceUID, ds.SeriesInstanceUID = report.identity.instance(name), report.identity.series(name)
    return finished(ds, kind)


def _without_tree(ds: Dataset, content: bytes, kind: str) -> tuple[Dataset, bytes]:
    """The document without its content tree, and the tree as it stands encoded at the end of `content`: encoding it
    is most of the work. Where something follows the tree, the document as it is, and nothing to append."""
    bare = Dataset({element.tag: element for element in ds if element.keyword != "ContentSequence"})
    head = finished(bare, kind).content
    return (bare, content[len(head) :]) if content.startswith(head) else (ds, b"")


def one_of_each_choice(predecessors: Sequence[SentReference]) -> list[SentReference]:
    """Of forms that say the same the preferred: while they wait nobody knows which of them will be accepted."""
    best: dict[tuple[int, str], int] = {}
    for item in predecessors:
        choice = item.report_id, item.kind
        best[choice] = min(best.get(choice, item.preference), item.preference)
    return [item for item in predecessors if item.preference == best[item.report_id, item.kind]]


def name_in(kind: str, sop_class: str) -> str:
    """What a document of this kind and class is called in a report's identity."""
    return f"{kind} {sop_class}"


def _evidence(report: Report) -> list[InstanceRef]:
    """Every image that was looked at, and what the report itself shows."""
    return [*(item.instance for item in report.findings.looked_at), *_segmentations(report)]


def _segmentations(report: Report) -> list[InstanceRef]:
    """The report's own segmentations, as evidence: viewers that show volumes look for them there."""
    made = [
        replace(
            report.header_of,
            sop_class_uid=SegmentationStorage,
            sop_instance_uid=segment.sop_instance_uid,
            series_instance_uid=segment.series_instance_uid,
        )
        for segment in report.segments
    ]
    return list(dict.fromkeys(made))


def dress_document(ds: Dataset, report: Report, what: str, predecessors: Sequence[SentReference]) -> None:
    """Shared headers, then the SR Document General module (PS3.3 C.17.2). Never VERIFIED: that takes a person."""
    dress(ds, report, series_name(report, what))
    ds.PreliminaryFlag = "PRELIMINARY"
    ds.VerificationFlag = "UNVERIFIED"
    ds.CompletionFlag = "PARTIAL" if is_partial(report) else "COMPLETE"
    ds.CodingSchemeIdentificationSequence = [private_scheme()]
    seen = [
        (instance.series_instance_uid, instance.sop_class_uid, instance.sop_instance_uid)
        for instance in _evidence(report)
    ]
    study = report.findings.study_instance_uid
    ds.CurrentRequestedProcedureEvidenceSequence = [instance_references(study, sorted(seen))]
    if report.header.request is not None:
        ds.ReferencedRequestSequence = [report.header.request]
    if predecessors:
        before = [(item.series_instance_uid, item.sop_class_uid, item.sop_instance_uid) for item in predecessors]
        ds.PredecessorDocumentsSequence = [instance_references(study, before)]


def separate(item: Dataset) -> None:
    """Post-edits over the whole tree (result_objects 7.8): labelled lines, and image references named as sources."""
    if item.get("ValueType") == "CONTAINER":
        item.ContinuityOfContent = "SEPARATE"
    if item.get("RelationshipType") == "SELECTED FROM" and item.get("ValueType") == "IMAGE":
        item.ConceptNameCodeSequence = [codes.ORIGINAL_SOURCE]
    for child in item.get("ContentSequence", []):
        separate(child)

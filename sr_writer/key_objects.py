"""The images of an alarm as a Key Object Selection (TID 2010), so that a viewer marks them.

The title is Of Interest (113000) and nothing else. Some titles of that list are rejection notes: an archive that
honours them hides or deletes what they name. A document with such a title is refused here, whoever asks for it.
"""

from highdicom.sr import (
    CodedConcept,
    ContainerContentItem,
    ContentSequence,
    ImageContentItem,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from ledger.records import InstanceRef, ResultObject, TriagePriority
from sr_writer import codes
from sr_writer.document import language, observation_context, separate
from sr_writer.dress import (
    ANY_IMAGE,
    Report,
    dress,
    finished,
    image_reference,
    instance_references,
    own_names,
    stand_in,
)
from sr_writer.errors import NothingToSay
from sr_writer.follow import series_name
from sr_writer.reading import Read, analysed, by_image, ranked, reads
from sr_writer.sr_document import sr_document
from sr_writer.words import DISCLAIMER, name_of, plus_minus, spoken

KIND = "key_objects"
REJECTIONS = frozenset({"113001", "113037", "113038", "113039"})  # IHE RAD TF-3, Imaging Object Change Management
_CONTAINS = RelationshipTypeValues.CONTAINS


def key_objects(report: Report) -> ResultObject:
    """Names each image that is HIGH by itself, the worst first. Raises NothingToSay where there is none."""
    found = [read for read in analysed(by_image(reads(report.findings))) if read.result.priority is TriagePriority.HIGH]
    if not found or report.findings.priority is not TriagePriority.HIGH:
        raise NothingToSay("no image of this study raises an alarm")
    images = list({read.instance.sop_instance_uid: read.instance for read in found}.values())
    return document(report, codes.OF_INTEREST, images, f"AI triage: {_said(found)}. {DISCLAIMER}")


def document(report: Report, title: CodedConcept, images: list[InstanceRef], description: str) -> ResultObject:
    """A Key Object Selection of any title but a rejection. Raises ValueError for one of those."""
    if title.scheme_designator == "DCM" and title.value in REJECTIONS:
        raise ValueError("a rejection note is never sent: an archive would hide or delete the images")
    ds = sr_document(
        KeyObjectSelectionDocumentStorage,
        evidence=[stand_in(image) for image in images],
        content=_tree(report, title, images, description),
        **own_names(report, KIND),
    )
    ds.Modality = "KO"
    del ds.PerformedProcedureCodeSequence  # of a report, not of a selection
    dress(ds, report, series_name(report, "key images"))
    seen = sorted((image.series_instance_uid, image.sop_class_uid, image.sop_instance_uid) for image in images)
    study = report.findings.study_instance_uid
    ds.CurrentRequestedProcedureEvidenceSequence = [instance_references(study, seen)]
    if report.header.request is not None:
        ds.ReferencedRequestSequence = [report.header.request]
    return finished(ds, KIND)


def _tree(report: Report, title: CodedConcept, images: list[InstanceRef], description: str) -> Dataset:
    root = Dataset(ContainerContentItem(title, is_content_continuous=False, template_id="2010"))
    items = ContentSequence()
    items.extend(language())
    items.extend(observation_context(report))
    items.append(TextContentItem(codes.KEY_OBJECT_DESCRIPTION, description, _CONTAINS))
    root.ContentSequence = [*items, *(_image(image, report) for image in images)]
    separate(root)
    return root


def _image(instance: InstanceRef, report: Report) -> Dataset:
    """An image has no concept name here: TID 2010 gives it none."""
    item = ImageContentItem(codes.ORIGINAL_SOURCE, ANY_IMAGE, instance.sop_instance_uid, relationship_type=_CONTAINS)
    item.ReferencedSOPSequence = [image_reference(report, instance)]
    del item.ConceptNameCodeSequence
    return item


def _said(found: list[Read]) -> str:
    every = [finding for read in found for finding in sorted(spoken(read.result), key=ranked)]
    texts = dict.fromkeys(f"{name_of(f)} {plus_minus(f)}" for f in every if f.present)
    return f"priority HIGH, {'; '.join(texts)}" if texts else "priority HIGH"

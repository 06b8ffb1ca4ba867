"""A structured report document around a finished tree, as highdicom's own SR classes make it.

Those classes copy and search the whole tree four times to check what this product has built itself: half of the time of
a report. Here the tree is taken as it is; a test holds both to the same bytes.
"""

from collections.abc import Iterator, Sequence

from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian


def sr_document(
    sop_class_uid: str,
    *,
    evidence: Sequence[Dataset],
    content: Dataset,
    series_instance_uid: str,
    series_number: int,
    sop_instance_uid: str,
    instance_number: int,
    manufacturer: str,
) -> Dataset:
    """content: the root container. Raises ValueError when the tree refers to an object that is no evidence.

    Evidence, flags and predecessors are written by `dress_document` afterwards.
    """
    stranger = set(_referenced(content)) - {str(item.SOPInstanceUID) for item in evidence}
    if stranger:
        raise ValueError(f"the tree refers to {len(stranger)} objects that are no evidence")
    ds = SOPClass(
        study_instance_uid=evidence[0].StudyInstanceUID,
        series_instance_uid=series_instance_uid,
        series_number=series_number,
        sop_instance_uid=sop_instance_uid,
        sop_class_uid=sop_class_uid,
        instance_number=instance_number,
        modality="SR",
        manufacturer=manufacturer,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        patient_id="",  # the source's own values are put in afterwards
        patient_name="",
        patient_birth_date="",
        patient_sex="",
        accession_number="",
        study_id="",
        referring_physician_name="",
    )
    for element in content:
        ds[element.tag] = element
    ds.PerformedProcedureCodeSequence = []
    ds.ReferencedPerformedProcedureStepSequence = []
    return ds


def _referenced(item: Dataset) -> Iterator[str]:
    """SOP Instance UIDs of images and composites, anywhere in the tree."""
    if item.get("ValueType") in ("IMAGE", "COMPOSITE"):
        yield str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    for child in item.get("ContentSequence", ()):
        yield from _referenced(child)

"""Whose results are these? Held against what the modality sent, by a reader of its own: no code of the node's."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.dataset import Dataset

WHOSE = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber")
_NO_INSTANCES = ("ReferencedStudySequence", "ReferencedPerformedProcedureStepSequence")


@dataclass(frozen=True)
class Verdict:
    """Of all results that arrived."""

    studies: int  # that were sent in
    answered: int  # of which at least one result arrived
    results: int
    wrong_patient: int  # results whose patient module is not their own input's
    wrong_reference: int  # results that refer to another study, or to an instance that is not of their own
    unknown_study: int

    @property
    def is_clean(self) -> bool:
        return not (self.wrong_patient or self.wrong_reference or self.unknown_study)


def verdict(inputs: Iterable[Dataset], results: Iterable[Dataset]) -> Verdict:
    """inputs: what the modality sent; results: what the PACS got, different SOP instances."""
    sent: dict[str, list[Dataset]] = defaultdict(list)
    for ds in inputs:
        sent[str(ds.StudyInstanceUID)].append(ds)
    got = list(results)
    own: dict[str, set[str]] = defaultdict(set)
    for ds in [*got, *(ds for every in sent.values() for ds in every)]:
        own[str(ds.StudyInstanceUID)].add(str(ds.SOPInstanceUID))
    known = [ds for ds in got if ds.StudyInstanceUID in sent]
    return Verdict(
        studies=len(sent),
        answered=len({str(ds.StudyInstanceUID) for ds in known}),
        results=len(got),
        wrong_patient=sum(whose(ds) not in {whose(one) for one in sent[str(ds.StudyInstanceUID)]} for ds in known),
        wrong_reference=sum(
            not _refers_to(ds, str(ds.StudyInstanceUID), own[str(ds.StudyInstanceUID)]) for ds in known
        ),
        unknown_study=len(got) - len(known),
    )


def whose(ds: Dataset) -> tuple[str, ...]:
    """What a PACS files by."""
    return tuple(str(ds.get(keyword, "")) for keyword in WHOSE)


def _refers_to(item: Dataset, study_uid: str, own: set[str]) -> bool:
    """Whether everything that an item refers to, at any depth, is of its own study."""
    if str(item.get("StudyInstanceUID", study_uid)) != study_uid:
        return False
    if "ReferencedSOPInstanceUID" in item and str(item.ReferencedSOPInstanceUID) not in own:
        return False
    return all(
        _refers_to(inner, study_uid, own)
        for element in item
        if element.VR == "SQ" and element.keyword not in _NO_INSTANCES
        for inner in element.value
    )

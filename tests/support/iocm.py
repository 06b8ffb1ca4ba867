"""Rejection notes as a PACS sends them (IHE RAD, Imaging Object Change Management)."""

from collections.abc import Sequence

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage, generate_uid

CR = "1.2.840.10008.5.1.4.1.1.1"


def rejection_note(study_uid: str, code: str, rejects: Sequence[str], scheme: str = "DCM") -> Dataset:
    """A Key Object Selection Document whose title is `code` and which names SOP instances of one study."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = KeyObjectSelectionDocumentStorage
    ds.SOPInstanceUID = generate_uid()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.StudyInstanceUID = study_uid
    ds.SeriesInstanceUID = generate_uid()
    ds.Modality = "KO"
    ds.Manufacturer = "An archive"
    ds.ValueType = "CONTAINER"
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = code, scheme, "Rejected"
    ds.ConceptNameCodeSequence = [title]
    series = Dataset()
    series.SeriesInstanceUID = f"{study_uid}.1"
    series.ReferencedSOPSequence = [_reference(uid) for uid in rejects]
    study = Dataset()
    study.StudyInstanceUID = study_uid
    study.ReferencedSeriesSequence = [series]
    ds.CurrentRequestedProcedureEvidenceSequence = [study]
    return ds


def _reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = CR
    item.ReferencedSOPInstanceUID = uid
    return item

"""The instances that are sent: CT slices with the header of a real scanner, small ones, and large radiographs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from tests.support.dx import make_dx


@dataclass(frozen=True)
class Kind:
    """at_most: instances in one round, so that a round neither fills the disk nor lasts long."""

    name: str
    rows: int
    columns: int
    at_most: int
    of_chest: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind("small", 111, 111, 4000),  # 27 KB
        Kind("CT", 512, 512, 2000),  # 0.53 MB
        Kind("DX", 2500, 2000, 80, of_chest=True),  # 10 MB
    )
}


def make(kind: Kind, folder: Path) -> Path:
    """One file; its UIDs are new, and senders make new ones for each repetition."""
    path = folder / f"{kind.name}.dcm"
    noise = np.random.default_rng(5).integers(0, 4096, (kind.rows, kind.columns), dtype=np.uint16)
    ds = make_dx(noise) if kind.of_chest else _slice(noise)
    if kind.of_chest:
        _scanner(ds)
    ds.save_as(path, enforce_file_format=True)
    return path


def sized(size: int, folder: Path) -> Path:
    """A CT of about `size` bytes."""
    side = max(16, int((size / 2) ** 0.5))
    return make(Kind(f"{size}", side, side, 1), folder)


def _slice(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> Dataset:
    ds = make_dx(pixels)  # patient and study
    for keyword in (
        "DetectorType",
        "PositionerType",
        "PixelIntensityRelationship",
        "PixelIntensityRelationshipSign",
        "ViewCodeSequence",
        "ImagerPixelSpacing",
        "PresentationIntentType",
        "PresentationLUTShape",
    ):
        delattr(ds, keyword)
    ds.SOPClassUID, ds.Modality, ds.SeriesDescription = CTImageStorage, "CT", "Chest 1.0 Br40"
    ds.PixelSpacing, ds.RescaleIntercept, ds.RescaleType = [0.7, 0.7], "-1024", "HU"
    _scanner(ds)
    _acquisition(ds)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    return ds


def _scanner(ds: Dataset) -> None:
    """Institution, people, request: what every modality sends along."""
    for keyword, value in {
        "InstanceCreationDate": ds.StudyDate, "InstanceCreationTime": ds.StudyTime, "InstitutionName": "Invented",
        "InstitutionAddress": "1 No Street", "InstitutionalDepartmentName": "Radiology", "StationName": "CTAWP1",
        "PerformingPhysicianName": "Nobody", "OperatorsName": "Nobody", "PhysiciansOfRecord": "Nobody",
        "PatientSize": "1.70", "PatientWeight": "70", "PatientPosition": "HFS", "PregnancyStatus": 4,
        "AdditionalPatientHistory": "none", "PatientComments": "none", "EthnicGroup": "", "Occupation": "",
        "FrameOfReferenceUID": generate_uid(prefix=None), "PositionReferenceIndicator": "",
        "ImageComments": "none", "RequestedProcedureDescription": "CT chest", "RequestingPhysician": "Nobody",
        "PerformedProcedureStepStartDate": ds.StudyDate, "PerformedProcedureStepStartTime": ds.StudyTime,
        "PerformedProcedureStepEndDate": ds.StudyDate, "PerformedProcedureStepEndTime": ds.StudyTime,
        "PerformedProcedureStepID": "P1", "PerformedProcedureStepDescription": "CT chest",
        "ProtocolName": "Thorax", "AcquisitionNumber": "1", "ContentDate": ds.StudyDate, "ContentTime": ds.StudyTime,
        "SmallestImagePixelValue": 0, "LargestImagePixelValue": 4095, "WindowCenterWidthExplanation": "WINDOW1",
        "RescaleSlope": "1", "TimezoneOffsetFromUTC": ds.TimezoneOffsetFromUTC, "IssuerOfPatientID": "Invented",
        "ConfidentialityCode": "", "FillerOrderNumberImagingServiceRequest": "1", "AdmissionID": "1",
        "PlacerOrderNumberImagingServiceRequest": "1", "ReasonForStudy": "", "RequestingService": "",
    }.items():  # fmt: skip
        setattr(ds, keyword, value)
    ds.RequestAttributesSequence = [_item(RequestedProcedureID="R1", ScheduledProcedureStepID="S1")]
    ds.ProcedureCodeSequence = [_item(CodeValue="CTCHEST", CodingSchemeDesignator="99LOCAL", CodeMeaning="CT chest")]
    ds.ReferencedStudySequence = [
        _item(ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1", ReferencedSOPInstanceUID="1.2")
    ]


def _acquisition(ds: Dataset) -> None:
    for keyword, value in {
        "ScanOptions": "HELIX", "SliceThickness": "1.0", "KVP": "120", "DataCollectionDiameter": "500",
        "ReconstructionDiameter": "360", "DistanceSourceToDetector": "1085.6", "DistanceSourceToPatient": "595",
        "GantryDetectorTilt": "0", "TableHeight": "160", "RotationDirection": "CW", "ExposureTime": "500",
        "XRayTubeCurrent": "210", "Exposure": "105", "FilterType": "WEDGE_3", "GeneratorPower": "27",
        "FocalSpots": ["1.2"], "ConvolutionKernel": "Br40d", "RevolutionTime": 0.5, "SingleCollimationWidth": 0.6,
        "TotalCollimationWidth": 38.4, "TableSpeed": 92.16, "TableFeedPerRotation": 46.08, "SpiralPitchFactor": 1.2,
        "ExposureModulationType": "XYZ_EC", "EstimatedDoseSaving": 20.0, "CTDIvol": 7.1,
        "DateOfLastCalibration": ds.StudyDate, "TimeOfLastCalibration": ds.StudyTime,
        "ReconstructionTargetCenterPatient": [0.0, 0.0, 0.0],
        "ImagePositionPatient": [-180, -180, 100], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SliceLocation": "100",
        "DataCollectionCenterPatient": [0.0, 0.0, 0.0], "ContrastBolusAgent": "none", "TablePosition": 100.0,
        "DetectorID": "1", "AcquisitionType": "SPIRAL", "SpacingBetweenSlices": "1",
    }.items():  # fmt: skip
        setattr(ds, keyword, value)


def _item(**values: str) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item

"""What all result objects share: whose they are, who made them, when, and their bytes.

highdicom is given a clean stand-in for the source, because it refuses or logs dirty patient data; the source's own
values are put in afterwards, and every time it stamps from the clock is replaced by the report's.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from config.settings import ReportSettings
from ledger.records import InstanceRef, ReportKind, ResultObject, StudyFindings, VolumeFinding
from sr_writer import codes
from sr_writer.encode import as_file
from sr_writer.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Identity, software_version
from sr_writer.profiles import NOTHING, Plan
from sr_writer.source import SourceHeader

ANY_IMAGE = DigitalXRayImageStorageForPresentation  # highdicom stumbles over classes it does not know
SERIES_NUMBERS = {
    "measurement_sr": 9901,
    "secondary_capture": 9902,
    "key_objects": 9903,
    "presentation_state": 9904,
    "text_sr": 9907,
    "segmentation": 9911,
    "parametric_map": 9913,
}


@dataclass(frozen=True)
class Segment:
    """One segment of a segmentation that belongs to the report, and the volume that it shows."""

    volume: VolumeFinding
    sop_instance_uid: str
    series_instance_uid: str
    number: int  # from 1
    widest: InstanceRef  # the slice where it covers most
    box: tuple[int, int, int, int]  # around it in that slice: top, left, bottom, right in pixels, the latter exclusive


@dataclass(frozen=True)
class Report:
    """One report on its way into objects: findings, the worst image's header, and the names it goes by."""

    findings: StudyFindings
    header: SourceHeader
    header_of: InstanceRef  # the instance the header was read from
    settings: ReportSettings
    identity: Identity
    installation_uid: str
    critical_flags: bool  # whether DICOM objects may carry them
    segments: tuple[Segment, ...] = ()  # what the report's segmentations show
    plan: Plan = NOTHING
    measurements: bool = True  # whether a measurement report goes with it
    frames: Mapping[str, int] = field(default_factory=dict)  # SOP Instance UID -> which of several frames was looked at
    image_names: Mapping[str, str] = field(default_factory=dict)  # SOP Instance UID -> what a reader calls it

    @property
    def at(self) -> datetime:
        return self.header.local(self.findings.reported_at)

    @property
    def withdrawn(self) -> bool:
        """Whether it takes back the reports before it, and says nothing else."""
        return self.findings.kind is ReportKind.WITHDRAWN

    @property
    def shows_place(self) -> bool:
        """Whether the picture may say where: boxes and heat maps."""
        return self.settings.localization != "off" and self.plan.place

    @property
    def shows_regions(self) -> bool:
        """Whether reports and marks may say where: the boxes of a model that draws boxes, never of a heat map."""
        return self.settings.localization == "box" and self.plan.place


def stand_in(instance: InstanceRef, rows: int = 1, columns: int = 1) -> Dataset:
    """A clean data set that highdicom accepts as evidence for `instance` (its class is written later)."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = ANY_IMAGE, instance.sop_instance_uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = instance.study_instance_uid, instance.series_instance_uid
    ds.PatientID = ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ""
    ds.AccessionNumber = ds.StudyID = ds.ReferringPhysicianName = ""
    ds.StudyDate = ds.StudyTime = None
    ds.Rows, ds.Columns = rows, columns
    return ds


def own_names(report: Report, kind: str, name: str = "") -> dict[str, Any]:
    """What highdicom asks for any object: the UIDs and numbers of its own and its series, and who made it.

    name: of one of several objects of a kind, in the report's identity.
    """
    return {
        "series_instance_uid": report.identity.series(name or kind),
        "series_number": SERIES_NUMBERS[kind],
        "sop_instance_uid": report.identity.instance(name or kind),
        "instance_number": 1,
        "manufacturer": report.settings.manufacturer,
    }


def own_equipment(report: Report) -> dict[str, Any]:
    """What it asks beside those for objects of many frames."""
    return {
        "manufacturer_model_name": report.settings.model_name,
        "software_versions": "0",  # and the like: `dress` puts the true one in
        "device_serial_number": report.settings.device_serial_number,
    }


def dress(ds: Dataset, report: Report, description: str) -> None:
    """Put the shared headers on: result_objects 7.6."""
    for element in report.header.patient_and_study:
        ds[element.tag] = element
    _stamp(ds, report.at)
    _equipment(ds, report.settings)
    ds.SeriesDescription = description
    ds.ContentQualification = "RESEARCH"
    ds.ContributingEquipmentSequence = [_contribution(report)]


def _stamp(ds: Dataset, at: datetime) -> None:
    date, time = f"{at:%Y%m%d}", f"{at:%H%M%S.%f}"
    for keyword in ("InstanceCreationDate", "ContentDate", "SeriesDate"):
        setattr(ds, keyword, date)
    for keyword in ("InstanceCreationTime", "ContentTime", "SeriesTime"):
        setattr(ds, keyword, time)


def _equipment(ds: Dataset, settings: ReportSettings) -> None:
    ds.Manufacturer = settings.manufacturer
    ds.ManufacturerModelName = settings.model_name
    ds.DeviceSerialNumber = settings.device_serial_number
    ds.SoftwareVersions = software_version()


def _contribution(report: Report) -> Dataset:
    item = Dataset()
    _equipment(item, report.settings)
    item.PurposeOfReferenceCodeSequence = [codes.PROCESSING_EQUIPMENT]
    # With its own offset (PS3.5 6.2, DT). One of the whole object (PS3.3 C.12.1) would speak of the times that are
    # copied from the image too, of which nobody knows it where the image does not say.
    item.ContributionDateTime = f"{report.at:%Y%m%d%H%M%S.%f%z}"
    item.ContributionDescription = "AI triage, research use only"
    return item


def private_scheme() -> Dataset:
    """The item that declares our private codes (PS3.3 C.12.1)."""
    item = Dataset()
    item.CodingSchemeDesignator = codes.PRIVATE_SCHEME
    item.CodingSchemeUID = codes.PRIVATE_SCHEME_UID
    item.CodingSchemeName = "OpenTriage private codes"
    item.CodingSchemeResponsibleOrganization = "OpenTriage"
    return item


def instance_references(study_instance_uid: str, instances: Sequence[tuple[str, str, str]]) -> Dataset:
    """One item of a Hierarchical SOP Instance Reference. instances: (series UID, SOP class UID, SOP instance UID)."""
    study = Dataset()
    study.StudyInstanceUID = study_instance_uid
    study.ReferencedSeriesSequence = []
    for series_uid in dict.fromkeys(series for series, _, _ in instances):
        series = Dataset()
        series.SeriesInstanceUID = series_uid
        series.ReferencedSOPSequence = [
            _reference(sop_class, sop) for owner, sop_class, sop in instances if owner == series_uid
        ]
        study.ReferencedSeriesSequence.append(series)
    return study


def image_reference(report: Report, image: InstanceRef) -> Dataset:
    """One item that refers to an image, and of several frames to the one that was looked at: without a number it would
    be all of them (PS3.3 10.3)."""
    item = _reference(image.sop_class_uid, image.sop_instance_uid)
    if image.sop_instance_uid in report.frames:
        item.ReferencedFrameNumber = report.frames[image.sop_instance_uid]
    return item


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


def finished(ds: Dataset, kind: str) -> ResultObject:
    """The object as the Part 10 bytes that are kept and sent."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        content = as_file(Dataset(ds), meta)
    return ResultObject(
        kind=kind,
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        content=content,
    )

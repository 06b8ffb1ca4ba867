"""Valid DX For Presentation chest radiographs of invented children."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

ROOT_UID = "2.25."


def make_dx(pixels: NDArray[Any] | None = None, **overrides: Any) -> Dataset:
    """A DX For Presentation chest PA, MONOCHROME2, 12 bit, a fresh study taken now, with file meta information.

    pixels: (rows, columns), values 0..4095, larger = brighter; None: a smooth oval. `overrides` are keywords of
    data elements: a value replaces the element, None deletes it.
    """
    ds = Dataset()
    _patient_and_study(ds)
    _series_and_image(ds)
    _pixels(ds, _oval() if pixels is None else pixels)
    for keyword, value in overrides.items():
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", DigitalXRayImageStorageForPresentation)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", generate_uid(prefix=ROOT_UID))
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def chest_dx(jpeg: Path, age: str | None = "003Y", view: str | None = "AP", **overrides: Any) -> Dataset:
    """The grey JPEG as a DX chest: 8 bit values times 16, so that 12 bits hold what the JPEG held."""
    with Image.open(jpeg) as picture:
        grey = np.asarray(picture.convert("L"), dtype=np.uint16)
    return make_dx(grey * 16, PatientAge=age, ViewPosition=view, **overrides)


def write(ds: Dataset, path: Path) -> Path:
    """Save as a DICOM Part 10 file and return `path`."""
    ds.save_as(path, enforce_file_format=True)
    return path


def _oval(side: int = 256) -> NDArray[np.uint16]:
    y, x = np.mgrid[-1.0 : 1.0 : side * 1j, -1.0 : 1.0 : side * 1j]
    return np.asarray(3600.0 * np.exp(-(x**2 * 1.5 + y**2)) + 100.0, dtype=np.uint16)


def _patient_and_study(ds: Dataset) -> None:
    now = datetime.now().astimezone() - timedelta(minutes=1)
    born = now - timedelta(days=4 * 365 + 30)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName = "Invented^Child"
    ds.PatientID = "TEST-0001"
    ds.PatientBirthDate = f"{born:%Y%m%d}"
    ds.PatientSex = "F"
    ds.PatientAge = "004Y"
    ds.StudyInstanceUID = generate_uid(prefix=ROOT_UID)
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = f"{now:%Y%m%d}"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = f"{now:%H%M%S}"
    ds.TimezoneOffsetFromUTC = f"{now:%z}"
    ds.StudyID = "1"
    ds.AccessionNumber = "A1"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Chest"


def _series_and_image(ds: Dataset) -> None:
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = generate_uid(prefix=ROOT_UID)
    ds.SeriesInstanceUID = generate_uid(prefix=ROOT_UID)
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.SeriesNumber = 1
    ds.InstanceNumber = 1
    ds.SeriesDescription = "Chest PA"
    ds.Manufacturer = "Invented"
    ds.ManufacturerModelName = "Test tube"
    ds.DeviceSerialNumber = "1"
    ds.SoftwareVersions = "1"
    ds.BodyPartExamined = "CHEST"
    ds.ViewPosition = "PA"
    ds.ImageLaterality = "U"
    ds.PatientOrientation = ["L", "F"]
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    ds.AcquisitionContextSequence = []
    ds.AnatomicRegionSequence = [_code(codes.SCT.Chest)]
    view = _code(codes.SCT.PosteroAnterior)
    view.ViewModifierCodeSequence = []
    ds.ViewCodeSequence = [view]


def _code(concept: Any) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = (
        concept.value,
        concept.scheme_designator,
        concept.meaning,
    )
    return item


def _pixels(ds: Dataset, pixels: NDArray[Any]) -> None:
    rows, columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.ImagerPixelSpacing = [0.2, 0.2]
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.DetectorType, ds.PositionerType = "SCINTILLATOR", "NONE"
    ds.PresentationLUTShape = "IDENTITY"
    ds.WindowCenter, ds.WindowWidth = "2048", "4096"
    ds.PixelData = np.ascontiguousarray(pixels, dtype="<u2").tobytes()

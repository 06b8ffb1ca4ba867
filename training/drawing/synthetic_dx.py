"""Wrap a made-up chest as a DX For Presentation instance of an invented child; the header says synthetic everywhere."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

COMMENT = "SYNTHETIC: drawn from a generative model. Shows no person. For demonstration only."
TAKEN = datetime(2026, 11, 20, 9, 0)
SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "jpeg-ls": JPEGLSLossless,
    "jpeg-2000": JPEG2000Lossless,
    "rle": RLELossless,
}


@dataclass(frozen=True)
class Coding:
    """How a sample is stored. `view_position`: False leaves ViewPosition out, so that only ViewCodeSequence tells."""

    syntax: str
    photometric: str
    view: str
    view_position: bool


CODINGS = (
    Coding("explicit", "MONOCHROME2", "PA", True),
    Coding("explicit", "MONOCHROME1", "AP", True),
    Coding("jpeg-2000", "MONOCHROME2", "PA", False),
    Coding("jpeg-ls", "MONOCHROME2", "AP", True),
    Coding("jpeg-ls", "MONOCHROME2", "AP", True),
    Coding("rle", "MONOCHROME2", "PA", True),
)


def write_dx(path: Path, pixels: NDArray[np.uint16], number: int, opacity: bool, coding: Coding) -> Path:
    """pixels: (rows, columns) 12 bit, larger is brighter. number: which child, from 1. Returns `path`."""
    ds = Dataset()
    _patient_and_study(ds, number, opacity)
    _series_and_image(ds, coding)
    _pixels(ds, pixels, coding.photometric == "MONOCHROME1")
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if coding.syntax != "explicit":
        ds.compress(SYNTAXES[coding.syntax], generate_instance_uid=False)
    ds.save_as(path, enforce_file_format=True)
    return path


def uid_of(*parts: object) -> UID:
    """2.25 and a UUIDv8 out of a hash: the same parts, the same UID."""
    digest = bytearray(hashlib.sha256(":".join(map(str, ("synthetic", *parts))).encode()).digest()[:16])
    digest[6], digest[8] = digest[6] & 0x0F | 0x80, digest[8] & 0x3F | 0x80
    return UID(f"2.25.{int.from_bytes(digest)}")


def _patient_and_study(ds: Dataset, number: int, opacity: bool) -> None:
    years = 2 + (number * 2 + number // 4) % 4
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SyntheticData = "YES"
    ds.PatientName = f"SYNTHETIC^CHILD {number}"
    ds.PatientID = f"SYNTHETIC-{number}"
    ds.PatientBirthDate = f"{TAKEN.year - years}0{number}15"
    ds.PatientAge = f"{years:03d}Y"
    ds.PatientSex = "FM"[number % 2]
    ds.PatientComments = COMMENT
    ds.StudyInstanceUID = uid_of("study", number)
    ds.SeriesInstanceUID = uid_of("series", number)
    ds.SOPInstanceUID = uid_of("instance", number)
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = f"{TAKEN:%Y%m%d}"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = f"{TAKEN:%H%M%S}"
    ds.TimezoneOffsetFromUTC = "+0000"
    ds.StudyID = str(number)
    ds.AccessionNumber = f"SYN{number}"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Synthetic chest"
    ds.ImageComments = f"{COMMENT} Drawn {'with' if opacity else 'without'} an opacity."


def _series_and_image(ds: Dataset, coding: Coding) -> None:
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.SeriesNumber = ds.InstanceNumber = 1
    ds.SeriesDescription = f"Synthetic chest {coding.view}"
    ds.Manufacturer = "OpenTriage"
    ds.ManufacturerModelName = "Synthetic chest"
    ds.DeviceSerialNumber = "1"
    ds.SoftwareVersions = "1"
    ds.ImageType = ["DERIVED", "PRIMARY", ""]
    ds.DerivationDescription = COMMENT
    ds.BodyPartExamined = "CHEST"
    if coding.view_position:
        ds.ViewPosition = coding.view
    ds.ImageLaterality = "U"
    ds.PatientOrientation = ["L", "F"]
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    ds.AcquisitionContextSequence = []
    ds.AnatomicRegionSequence = [_code(codes.SCT.Chest)]
    view = _code(codes.SCT.PosteroAnterior if coding.view == "PA" else codes.SCT.AnteroPosterior)
    view.ViewModifierCodeSequence = []
    ds.ViewCodeSequence = [view]


def _code(concept: Any) -> Dataset:
    item = Dataset()
    item.CodeValue = concept.value
    item.CodingSchemeDesignator = concept.scheme_designator
    item.CodeMeaning = concept.meaning
    return item


def _pixels(ds: Dataset, pixels: NDArray[np.uint16], inverse: bool) -> None:
    """MONOCHROME1 shows small values bright; its Presentation LUT Shape is then INVERSE (PS3.3 C.8.11.3.1.2)."""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if inverse else "MONOCHROME2"
    ds.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.ImagerPixelSpacing = [0.4, 0.4]
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", 1 if inverse else -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.DetectorType, ds.PositionerType = "SCINTILLATOR", "NONE"
    ds.WindowCenter, ds.WindowWidth = "2048", "4096"
    stored = 4095 - pixels if inverse else pixels
    ds.PixelData = np.ascontiguousarray(stored, dtype="<u2").tobytes()

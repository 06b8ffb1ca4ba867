"""MR series of invented heads: parallel slices with a place in the patient, one instance each."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from inference.masks import keep_mask
from inference.slices import read_geometry
from inference.volume import volumes_of
from ledger.records import (
    Code,
    Finding,
    ImageResult,
    InstanceResults,
    ModelIdentity,
    ReportKind,
    ResultStatus,
    SliceMask,
    StudyFindings,
    TriagePriority,
    VolumeRule,
)
from ledger.store import Store
from tests.support.dx import ROOT_UID, write
from tests.support.findings import REPORTED_AT, keep

AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
SPACING_MM, DISTANCE_MM = 0.9375, 5.0
NEOPLASM = Code("108369006", "SCT", "Neoplasm")
BRAIN = Code("12738006", "SCT", "Brain")
RULE = VolumeRule(min_slices=2, min_volume_ml=0.5)
SLICE_MODEL = ModelIdentity("tiny-brain", "1.0.0", "ef" * 32, 8, "sd over 8 masked heads", RULE)


def make_mr(pixels: Sequence[NDArray[Any]], distance_mm: float = DISTANCE_MM, **overrides: Any) -> list[Dataset]:
    """One series "AX FLAIR" of one fresh study. pixels: (rows, columns) each, 0..255; from feet to head.

    `overrides` are keywords of data elements of every slice: a value replaces the element, None deletes it.
    """
    shared = _shared()
    return [_slice(shared, image, i, distance_mm, overrides) for i, image in enumerate(pixels)]


def flair(images: Sequence[Path], **overrides: Any) -> list[Dataset]:
    """Grey pictures of slices as one series."""
    return make_mr([np.asarray(Image.open(path).convert("L"), np.uint16) for path in images], **overrides)


def head(marked: bool, side: int = 256) -> NDArray[np.uint16]:
    """A dim slice, with a bright square in its upper left quarter when `marked`."""
    pixels = np.full((side, side), 40, np.uint16)
    pixels[::8, ::8] = 44
    if marked:
        pixels[side // 8 : side // 4, side // 8 : side // 4] = 250
    return pixels


def save_series(series: Sequence[Dataset], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [write(ds, folder / f"{i:03}.dcm") for i, ds in enumerate(series)]


def slice_result(
    pixels: int = 0,
    probability: float = 0.9,
    *,
    path: str = "",
    label: str = "tumour",
    model: ModelIdentity = SLICE_MODEL,
    present: bool | None = None,
    shape: tuple[int, int] = (256, 256),
) -> ImageResult:
    """What a slice model says of one slice; `pixels` marked."""
    finding = Finding(
        label=label,
        code=NEOPLASM,
        score=probability,
        probability=probability,
        probability_sd=0.02,
        mutual_information=0.01,
        present=probability >= 0.5 if present is None else present,
        in_doubt=False,
        operating_point=0.5,
        high_operating_point=0.8,
        site=BRAIN,
    )
    return ImageResult(
        status=ResultStatus.ANALYSED,
        reason="",
        reason_code="",
        priority=TriagePriority.LOW,
        model=model,
        findings=(finding,),
        source_rows=shape[0],
        source_columns=shape[1],
        settings_hash="00" * 32,
        masks=(SliceMask(label, path, pixels),) if pixels else (),
    )


def slice_refused(model: ModelIdentity = SLICE_MODEL) -> ImageResult:
    return ImageResult(
        ResultStatus.NOT_ASSESSED,
        "The image shows one grey only.",
        "constant_pixels",
        TriagePriority.NOT_ASSESSED,
        model,
        settings_hash="00" * 32,
    )


def _shared() -> dict[str, Any]:
    now = datetime.now().astimezone() - timedelta(minutes=1)
    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": "Invented^Grown-Up",
        "PatientID": "TEST-0002",
        "PatientBirthDate": "19800101",
        "PatientSex": "O",
        "PatientAge": "046Y",
        "StudyInstanceUID": generate_uid(prefix=ROOT_UID),
        "StudyDate": f"{now:%Y%m%d}",
        "SeriesDate": f"{now:%Y%m%d}",
        "AcquisitionDate": f"{now:%Y%m%d}",
        "ContentDate": f"{now:%Y%m%d}",
        "StudyTime": f"{now:%H%M%S}",
        "SeriesTime": f"{now:%H%M%S}",
        "AcquisitionTime": f"{now:%H%M%S}",
        "ContentTime": f"{now:%H%M%S}",
        "TimezoneOffsetFromUTC": f"{now:%z}",
        "StudyID": "2",
        "AccessionNumber": "A2",
        "ReferringPhysicianName": "",
        "StudyDescription": "Head",
        "SOPClassUID": MRImageStorage,
        "SeriesInstanceUID": generate_uid(prefix=ROOT_UID),
        "FrameOfReferenceUID": generate_uid(prefix=ROOT_UID),
        "PositionReferenceIndicator": "",
        "Modality": "MR",
        "SeriesNumber": 3,
        "SeriesDescription": "AX FLAIR",
        "Manufacturer": "Invented",
        "ManufacturerModelName": "Magnet",
        "DeviceSerialNumber": "1",
        "SoftwareVersions": "1",
        "BodyPartExamined": "BRAIN",
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
        "ScanningSequence": "SE",
        "SequenceVariant": "SK",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "RepetitionTime": "9000",
        "EchoTime": "120",
        "EchoTrainLength": "16",
        "AcquisitionNumber": 1,
        "PatientPosition": "HFS",
    }


def _slice(
    shared: dict[str, Any], pixels: NDArray[Any], i: int, distance_mm: float, overrides: dict[str, Any]
) -> Dataset:
    ds = Dataset()
    values: dict[str, Any] = {
        **shared,
        "SOPInstanceUID": generate_uid(prefix=ROOT_UID),
        "InstanceNumber": i + 1,
        "ImageOrientationPatient": AXIAL,
        "ImagePositionPatient": [-120.0, -120.0, -40.0 + i * distance_mm],
        "PixelSpacing": [SPACING_MM, SPACING_MM],
        "SliceThickness": distance_mm,
        "SpacingBetweenSlices": distance_mm,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "WindowCenter": "128",
        "WindowWidth": "256",
        "PixelData": np.ascontiguousarray(pixels, "<u2").tobytes(),
        **overrides,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", MRImageStorage)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def measured_study(
    store: Store, series: Sequence[Dataset], marks: Sequence[NDArray[np.bool_] | None], **changes: Any
) -> StudyFindings:
    """A reported study of one series; marks: (rows, columns) of each slice, None where nothing is marked."""
    looked_at = []
    for i, (ds, marked) in enumerate(zip(series, marks, strict=True)):
        mask = keep_mask("tumour", marked, store) if marked is not None else None
        result = slice_result(
            mask.pixels if mask else 0,
            0.9 if mask else 0.1,
            path=mask.path if mask else "",
            shape=(ds.Rows, ds.Columns),
        )
        looked_at.append(InstanceResults(replace(keep(ds, store), instance_id=i), (result,)))
    return with_volumes(
        StudyFindings(
            study_instance_uid=str(series[0].StudyInstanceUID),
            kind=ReportKind.FINAL,
            priority=TriagePriority.LOW,
            looked_at=tuple(looked_at),
            reported_at=REPORTED_AT,
        ),
        store,
        **changes,
    )


def with_volumes(findings: StudyFindings, store: Store, **changes: Any) -> StudyFindings:
    """As the report role hands it to the writer."""
    volumes = volumes_of(findings.looked_at, lambda ref: read_geometry(store.path(ref.path)))
    return replace(findings, volumes=volumes, **changes)


def squares(*sides: int, side: int = 64) -> list[NDArray[np.bool_] | None]:
    """A square mark of each side, each at a place of its own; 0: none."""
    marks: list[NDArray[np.bool_] | None] = []
    for i, length in enumerate(sides):
        marked = np.zeros((side, side), np.bool_)
        marked[8 + i : 8 + i + length, 4 + 2 * i : 4 + 2 * i + length] = True
        marks.append(marked if length else None)
    return marks

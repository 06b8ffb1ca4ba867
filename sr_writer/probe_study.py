"""The study of a probe: invented test cards, and every object kind in every SOP class that the node can make of them.

The builders are the node's own, so that a PACS gets exactly what results look like; the words are a probe's, and
nothing in it is urgent. UIDs and bytes stay the same for a version of the node: probed twice, a PACS holds it once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from config.settings import ReportSettings
from ledger.reconcile import dataset_sha256
from ledger.records import (
    ActivationMap,
    Code,
    Finding,
    ImageResult,
    InstanceRef,
    InstanceResults,
    ModelIdentity,
    Region,
    ReportKind,
    ResultObject,
    ResultStatus,
    SliceMask,
    StudyFindings,
    TriagePriority,
    VolumeFinding,
    VolumeRule,
)
from ledger.store import Store
from sr_writer import codes, key_objects, profiles
from sr_writer.dress import Report, finished
from sr_writer.identity import WRITER_VERSION, Identity, software_version, uid_from
from sr_writer.measurement_report import measurement_report
from sr_writer.parametric_map import parametric_maps
from sr_writer.presentation_state import presentation_state
from sr_writer.profiles import PROFILES, Plan
from sr_writer.secondary_capture import secondary_capture
from sr_writer.segmentation import segmentations
from sr_writer.source import read_header
from sr_writer.text_report import text_report

PATIENT_NAME, PATIENT_ID = "Probe^OpenTriage^^^Not a patient", "OPENTRIAGE-PROBE"
STUDY_DATE = "20000101"  # far from the top of every list
STUDY_UID = uid_from("probe", "study")
WORDS = "Connection test of OpenTriage with an invented image. Not a result: nothing was looked at. It may be deleted."
SOURCE = "source"  # the kind of the test cards themselves

_AT = datetime(2000, 1, 1, tzinfo=UTC)
_INSTALLATION = uid_from("probe", "installation")
_LABEL = "connection_test"
_BRAIN = Code("12738006", "SCT", "Brain")
_CODE = Code(codes.CONNECTION_TEST.value, codes.PRIVATE_SCHEME, codes.CONNECTION_TEST.meaning)
_CARD_SIDE, _SLICE_SIDE, _SLICES = 256, 64, 3
_MARK = (96.0, 96.0, 160.0, 160.0)  # top, left, bottom, right of the test card's square
_FOR_READERS = frozenset(
    concept.value
    for concept in (codes.COMMENT, codes.FINDING, codes.IMPRESSION, codes.RECOMMENDATION, codes.KEY_OBJECT_DESCRIPTION)
)


@dataclass(frozen=True)
class _Images:
    """The invented images as the store holds them: one test card, and slices that say where they lie."""

    card: InstanceRef
    slices: tuple[InstanceRef, ...]
    masks: tuple[SliceMask, ...]


def probe_objects(folder: Path) -> list[ResultObject]:
    """The invented images (kind SOURCE), then every kind in every class that any profile asks for.

    folder: scratch space. Of a choice, too, each is there to be tried.
    """
    store = Store(folder)
    store.prepare()
    made = _sources()
    refs = [_keep(one, store) for one in made]
    images = _Images(refs[0], tuple(refs[1:]), tuple(_mask(store) for _ in refs[1:]))
    return [*made, *map(_in_words_of_a_probe, _results(_report(images, store), store))]


def _results(report: Report, store: Store) -> Iterator[ResultObject]:
    masks, segments = segmentations(report, store)
    report = replace(report, segments=segments)
    yield from measurement_report(report)
    yield from text_report(report)
    yield secondary_capture(report, store, banner_only=True)
    yield key_objects.document(report, codes.OF_INTEREST, [report.header_of], WORDS)
    if marks := presentation_state(report, store):
        yield marks
    yield from parametric_maps(report, store)
    yield from masks


def _report(images: _Images, store: Store) -> Report:
    card = _looked("probe-card", _finding((Region(_MARK, 0.5),)))
    mapped = _looked("probe-map", _finding(activation=_activation()))
    sliced = [_looked("probe-slices", _finding(), VolumeRule(1, 0.0), (mask,)) for mask in images.masks]
    looked_at = [InstanceResults(images.card, (card,))]
    looked_at += [InstanceResults(ref, (result, mapped)) for ref, result in zip(images.slices, sliced, strict=True)]
    findings = StudyFindings(
        study_instance_uid=STUDY_UID,
        kind=ReportKind.FINAL,
        priority=TriagePriority.LOW,
        looked_at=tuple(looked_at),
        reported_at=_AT,
        volumes=(_volume(images, sliced[0]),),
    )
    return Report(
        findings=findings,
        header=read_header(store.path(images.card.path), STUDY_UID),
        header_of=images.card,
        settings=ReportSettings(localization="box"),
        identity=Identity(("probe", WRITER_VERSION, software_version())),
        installation_uid=_INSTALLATION,
        critical_flags=False,
        plan=_plan(),
    )


def _plan() -> Plan:
    """Whatever any profile may have, in every class."""
    rows = PROFILES.values()
    return Plan(
        measurement_sr=tuple(dict.fromkeys(uid for row in rows for uid in row.measurement_sr)),
        text_sr=tuple(dict.fromkeys(uid for row in rows for uid in row.text_sr)),
        picture="banner",
        key_objects=True,
        presentation_state=True,
        parametric_map=True,
        segmentation=True,
    )


def _looked(
    name: str, finding: Finding, rule: VolumeRule | None = None, masks: tuple[SliceMask, ...] = ()
) -> ImageResult:
    side = _CARD_SIDE if name == "probe-card" else _SLICE_SIDE
    model = ModelIdentity(name, software_version(), sha256(name.encode()).hexdigest(), 1, "no model ran", rule)
    return ImageResult(
        status=ResultStatus.ANALYSED,
        reason="",
        reason_code="",
        priority=TriagePriority.LOW,
        model=model,
        findings=(finding,),
        source_rows=side,
        source_columns=side,
        masks=masks,
    )


def _finding(regions: tuple[Region, ...] = (), activation: ActivationMap | None = None) -> Finding:
    return Finding(_LABEL, _CODE, 0.5, 0.5, 0.0, 0.0, True, False, 0.5, 0.5, None, activation, regions)


def _activation() -> ActivationMap:
    values = np.zeros((4, 4))
    values[1:3, 1:3] = 2.0
    return ActivationMap(tuple(map(tuple, values.tolist())), (0.0, 0.0, float(_SLICE_SIDE), float(_SLICE_SIDE)))


def _volume(images: _Images, result: ImageResult) -> VolumeFinding:
    assert result.model is not None
    pixels = sum(mask.pixels for mask in images.masks)
    return VolumeFinding(
        series_instance_uid=images.slices[0].series_instance_uid,
        label=_LABEL,
        code=_CODE,
        site=_BRAIN,
        model=result.model,
        present=True,
        volume_ml=pixels * 5.0 / 1000.0,
        longest_run=_SLICES,
        slices_looked_at=_SLICES,
        probability=0.5,
        probability_sd=0.0,
        slices=tuple(zip(images.slices, images.masks, strict=True)),
        distance_mm=5.0,
    )


# --- the invented images ---


def _sources() -> list[ResultObject]:
    return [finished(_card(), SOURCE), *(finished(_slice(i), SOURCE) for i in range(_SLICES))]


def _keep(made: ResultObject, store: Store) -> InstanceRef:
    path = store.put("instances", sha256(made.content).hexdigest(), ".dcm", made.content)
    return InstanceRef(
        instance_id=0,
        sop_class_uid=made.sop_class_uid,
        sop_instance_uid=made.sop_instance_uid,
        series_instance_uid=made.series_instance_uid,
        study_instance_uid=STUDY_UID,
        transfer_syntax_uid=made.transfer_syntax_uid,
        modality="MR" if made.sop_class_uid == MRImageStorage else "OT",
        sha256=dataset_sha256(store.path(path)),
        path=path,
        received_at=_AT,
    )


def _mask(store: Store) -> SliceMask:
    marked = _squared(_SLICE_SIDE, 0, 255)
    buffer = BytesIO()
    Image.fromarray(marked).save(buffer, "PNG")
    content = buffer.getvalue()
    path = store.put("masks", sha256(content).hexdigest(), ".png", content)
    return SliceMask(_LABEL, path, int((marked > 0).sum()))


def _squared(side: int, ground: int, mark: int) -> NDArray[np.uint8]:
    """(side, side) of `ground`, with a square of `mark` in the middle, a quarter as wide."""
    pixels = np.full((side, side), ground, np.uint8)
    low, high = side * 3 // 8, side * 5 // 8
    pixels[low:high, low:high] = mark
    return pixels


def _card() -> Dataset:
    ds = _image("card", 1, _squared(_CARD_SIDE, 32, 192))
    ds.SOPClassUID, ds.Modality, ds.ConversionType = SecondaryCaptureImageStorage, "OT", "SYN"
    ds.ImageType, ds.SeriesNumber, ds.SeriesDescription = ["DERIVED", "SECONDARY"], 1, "OpenTriage PROBE: test card"
    ds.PatientOrientation, ds.BodyPartExamined = None, "CHEST"
    return ds


def _slice(number: int) -> Dataset:
    ds = _image("slices", number + 1, _squared(_SLICE_SIDE, 32, 192))
    ds.SOPClassUID, ds.Modality = MRImageStorage, "MR"
    ds.ImageType, ds.SeriesNumber, ds.SeriesDescription = (
        ["DERIVED", "SECONDARY", "OTHER"],
        2,
        "OpenTriage PROBE: test slices",
    )
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "RM", "NONE", "", ""
    ds.RepetitionTime = ds.EchoTime = ds.EchoTrainLength = None
    ds.PatientPosition, ds.PositionReferenceIndicator, ds.BodyPartExamined = "HFS", "", "BRAIN"
    ds.FrameOfReferenceUID = uid_from("probe", "frame of reference")
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, number * 5]
    ds.PixelSpacing, ds.SliceThickness, ds.SpacingBetweenSlices = [1, 1], 5, 5
    return ds


def _image(series: str, number: int, pixels: NDArray[np.uint8]) -> Dataset:
    ds = Dataset()
    settings = ReportSettings()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = PATIENT_NAME, PATIENT_ID, "", "O"
    ds.StudyInstanceUID, ds.StudyDate, ds.StudyTime, ds.StudyID = STUDY_UID, STUDY_DATE, "000000", "PROBE"
    ds.StudyDescription, ds.AccessionNumber, ds.ReferringPhysicianName = "OpenTriage PROBE, not a patient", "", ""
    ds.TimezoneOffsetFromUTC = "+0000"
    ds.SeriesInstanceUID = uid_from("probe", series)
    ds.SOPInstanceUID = uid_from("probe", series, software_version(), str(number))
    ds.InstanceNumber, ds.ImageComments = number, WORDS
    ds.Manufacturer, ds.ManufacturerModelName = settings.manufacturer, settings.model_name  # a node knows it as its own
    ds.SoftwareVersions, ds.DeviceSerialNumber = software_version(), "PROBE"
    ds.BurnedInAnnotation = "NO"
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 8, 7, 0
    ds.WindowCenter, ds.WindowWidth = "128", "256"
    ds.PixelData = pixels.astype("<u2").tobytes()
    return ds


# --- the words ---


def _in_words_of_a_probe(made: ResultObject) -> ResultObject:
    """The same object, saying nowhere that a model looked or how urgent something is."""
    ds = dcmread(BytesIO(made.content))
    ds.SeriesDescription = f"OpenTriage PROBE: {made.kind.replace('_', ' ')}, not a result"
    for item in (ds, *_below(ds)):
        if "UnformattedTextValue" in item:
            item.UnformattedTextValue = WORDS
        if "ContentSequence" in item:
            item.ContentSequence = _said_once(item.ContentSequence)
    if made.kind == profiles.SECONDARY_CAPTURE:
        _draw(ds)
    return replace(finished(ds, made.kind), choice=made.choice, preference=made.preference)


def _said_once(items: Sequence[Dataset]) -> list[Dataset]:
    """The content items of one container; of the texts for a reader one of each name."""
    kept: dict[object, Dataset] = {}
    for i, item in enumerate(items):
        name = item.ConceptNameCodeSequence[0].CodeValue if item.get("ConceptNameCodeSequence") else ""
        if item.ValueType == "TEXT" and name in _FOR_READERS:
            item.TextValue = WORDS
            kept.setdefault(name, item)
        else:
            kept[i] = item
    return list(kept.values())


def _below(ds: Dataset) -> Iterator[Dataset]:
    """The items of every sequence, at every depth."""
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from _below(item)


def _draw(ds: Dataset) -> None:
    picture = Image.new("RGB", (960, 240), (14, 17, 22))
    pen = ImageDraw.Draw(picture)
    for y, size, text in _lines():
        pen.text((24, y), text, (240, 243, 247), ImageFont.load_default(size))
    ds.Columns, ds.Rows = picture.size
    ds.PixelData = np.asarray(picture, np.uint8).tobytes()
    ds.DerivationDescription = "Words of a connection test; research use only"


def _lines() -> Sequence[tuple[int, int, str]]:
    first, second, third = WORDS.split(". ", 2)
    return ((24, 64, "PROBE: not a result"), (110, 28, f"{first}."), (150, 28, f"{second}."), (190, 28, third))

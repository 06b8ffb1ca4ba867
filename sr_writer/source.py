"""The header of a stored source instance, read tolerantly and spoken in one character set.

Real headers are dirty: character sets are missing or wrong, dates are words, type 2 elements are absent. What we
copy is cleaned so that our own objects are valid; the patient's identity is kept as the source says it, because PACS
files our objects by it. Nothing here is ever logged.
"""

import re
import struct
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from pydicom import dcmread
from pydicom import uid as uids
from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import Tag
from pydicom.valuerep import STR_VR, format_number_as_ds

from sr_writer.clean import code_string, date, is_broken, numbers_in, offset_of, one_of, printable, time, visible
from sr_writer.errors import SourceUnreadable

UNREADABLE = (  # what pydicom raises over bytes that are not what they are said to be, of a value or of a whole file
    AttributeError, BytesLengthException, EOFError, InvalidDicomError, LookupError, NotImplementedError, OSError,
    OverflowError, RecursionError, TypeError, ValueError, struct.error,
)  # fmt: skip
_TYPE_2 = ("PatientName", "PatientID", "ReferringPhysicianName", "StudyID", "AccessionNumber")
_TYPE_3 = ("IssuerOfPatientID", "StudyDescription", "InstitutionName")
_LONGEST = {  # characters (PS3.5 6.2): what names something is left out when longer, what describes it is cut
    "StudyID": 16,
    "AccessionNumber": 16,
    "RequestedProcedureID": 16,
    "StudyDescription": 64,
    "InstitutionName": 64,
    "RequestedProcedureDescription": 64,
}
_ONE_FRAME = frozenset(  # classes whose images have one, whatever a header says (PS3.3 A)
    {
        uids.ComputedRadiographyImageStorage,
        uids.CTImageStorage,
        uids.DigitalIntraOralXRayImageStorageForPresentation,
        uids.DigitalIntraOralXRayImageStorageForProcessing,
        uids.DigitalMammographyXRayImageStorageForPresentation,
        uids.DigitalMammographyXRayImageStorageForProcessing,
        uids.DigitalXRayImageStorageForPresentation,
        uids.DigitalXRayImageStorageForProcessing,
        uids.MRImageStorage,
        uids.PositronEmissionTomographyImageStorage,
        uids.SecondaryCaptureImageStorage,
        uids.UltrasoundImageStorage,
        uids.VLEndoscopicImageStorage,
        uids.VLMicroscopicImageStorage,
        uids.VLPhotographicImageStorage,
        uids.VLSlideCoordinatesMicroscopicImageStorage,
    }
)
_IDS = ("PatientID", "IssuerOfPatientID")
_DESCRIBING = frozenset({"StudyDescription", "InstitutionName", "RequestedProcedureDescription"})
PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")  # PS3.3 C.7.1.1
_REQUEST = ("RequestedProcedureID", "RequestedProcedureDescription")
_ISSUER = ("LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType")


@dataclass(frozen=True)
class SourceHeader:
    """What results inherit from the image they are about."""

    patient_and_study: Dataset = field(repr=False)  # Unicode values, valid for their VR
    request: Dataset | None = field(repr=False)  # one item for Referenced Request Sequence
    utc_offset: timedelta | None  # TimezoneOffsetFromUTC, for the times we write beside the source's
    body_part: str
    laterality: str
    patient_orientation: tuple[str, ...]
    imager_pixel_spacing: tuple[float, ...]
    rows: int
    columns: int
    lossy: dict[str, str | list[str]]  # LossyImageCompression and its companions, where the source was lossy

    def local(self, moment: datetime) -> datetime:
        """`moment` on the clock of the source's other times: its declared offset, else this machine's."""
        return moment.astimezone(timezone(self.utc_offset)) if self.utc_offset is not None else moment.astimezone()


@dataclass(frozen=True)
class SliceHeader:
    """Where one slice lies: what a segmentation of it needs (PS3.3 C.7.6.2). Lengths in mm."""

    frame_of_reference_uid: str
    rows: int
    columns: int
    orientation: tuple[float, ...]  # direction cosines of the rows, then of the columns
    position: tuple[float, ...]
    pixel_spacing: tuple[float, ...]  # between rows, between columns
    thickness: float | None


def read_slice(path: Path) -> SliceHeader:
    """Raises SourceUnreadable when it is not DICOM, or does not say where the slice lies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        found = _slice(_read(path))
    lengths = (len(found.orientation), len(found.position), len(found.pixel_spacing))
    whole = found.rows and found.columns and re.fullmatch(r"[0-9.]{1,64}", found.frame_of_reference_uid)
    if lengths != (6, 3, 2) or not whole or min(found.pixel_spacing) <= 0.0:
        raise SourceUnreadable("a stored slice does not say where it lies")
    return found


def _slice(values: "Values") -> SliceHeader:
    return SliceHeader(
        frame_of_reference_uid=values.text("FrameOfReferenceUID"),
        rows=values.whole("Rows"),
        columns=values.whole("Columns"),
        orientation=numbers_in(values.text("ImageOrientationPatient")),
        position=numbers_in(values.text("ImagePositionPatient")),
        pixel_spacing=numbers_in(values.text("PixelSpacing")),
        thickness=next((abs(length) for length in numbers_in(values.text("SliceThickness")) if length), None),
    )


@dataclass(frozen=True)
class SourceIdentity:
    """Whose an instance is and what it is called, as its file says now."""

    patient: tuple[str, ...] = field(repr=False)  # values of PATIENT, as results inherit them
    study_instance_uid: str
    sop_instance_uid: str


def read_identity(path: Path) -> SourceIdentity:
    """Raises SourceUnreadable when it is not DICOM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        values = _read(path)
        inherited = _patient_and_study(values, "")
        patient = tuple(value_text(inherited, keyword) for keyword in PATIENT)
        return SourceIdentity(patient, values.text("StudyInstanceUID"), values.text("SOPInstanceUID"))


def value_text(ds: Dataset, keyword: str) -> str:
    """Of a data set that we wrote: stripped, values joined by a backslash; empty when absent."""
    return Values(ds, ["utf-8"]).text(keyword)


def read_header(path: Path, study_instance_uid: str) -> SourceHeader:
    """Read up to the pixels; odd values are emptied, not fatal. Raises SourceUnreadable when it is not DICOM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        return _header(_read(path), study_instance_uid)


def frame_looked_at(path: Path, sop_class_uid: str) -> int | None:
    """Which frame of several the model saw, from 1: the middle one (inference/pixels.py). None for an image of one.

    Of a class whose images have one frame nothing is read. Raises SourceUnreadable when it is not DICOM.
    """
    if sop_class_uid in _ONE_FRAME:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        frames = _read(path, ["NumberOfFrames"]).whole("NumberOfFrames")
    return frames // 2 + 1 if frames > 1 else None


def read_view(path: Path) -> tuple[str, int | None, int | None]:
    """View Position, Series Number and Instance Number; empty and None where the header does not say.

    Raises SourceUnreadable when it is not DICOM.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        values = _read(path, ["SpecificCharacterSet", "ViewPosition", "SeriesNumber", "InstanceNumber"])
        texts = [values.text(keyword) for keyword in ("SeriesNumber", "InstanceNumber")]
    series, instance = (int(text) if text.isdecimal() else None for text in texts)
    return code_string(values.text("ViewPosition")), series, instance


def _read(path: Path, keywords: list[str] | None = None) -> "Values":
    """keywords: of the elements that are wanted; None for all."""
    try:
        return Values(dcmread(path, stop_before_pixels=True, force=True, specific_tags=keywords))
    except UNREADABLE as error:
        raise SourceUnreadable(f"a stored source cannot be read ({type(error).__name__})") from None


def _header(values: "Values", study_instance_uid: str) -> SourceHeader:
    return SourceHeader(
        patient_and_study=_patient_and_study(values, study_instance_uid),
        request=_request(values, study_instance_uid),
        utc_offset=offset_of(values.text("TimezoneOffsetFromUTC")),
        body_part=code_string(values.text("BodyPartExamined")),
        laterality=one_of(values.text("Laterality") or values.text("ImageLaterality"), "LR"),
        patient_orientation=tuple(
            p for p in values.text("PatientOrientation").split("\\") if re.fullmatch("[ARLPHF]{1,3}", p)
        ),
        imager_pixel_spacing=numbers_in(values.text("ImagerPixelSpacing")),
        rows=values.whole("Rows"),
        columns=values.whole("Columns"),
        lossy=_lossy(values),
    )


def _patient_and_study(values: "Values", study_instance_uid: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _TYPE_2:
        setattr(ds, keyword, _fitting(values, keyword))
    for keyword in _TYPE_3:
        if text := _fitting(values, keyword):
            setattr(ds, keyword, text)
    ds.PatientBirthDate = date(values.text("PatientBirthDate"))
    ds.PatientSex = one_of(values.text("PatientSex"), "MFO")
    if re.fullmatch(r"\d{3}[DWMY]", age := values.text("PatientAge")):
        ds.PatientAge = age
    ds.StudyInstanceUID = study_instance_uid
    ds.StudyDate, ds.StudyTime = date(values.text("StudyDate")), time(values.text("StudyTime"))
    if offset_of(offset := values.text("TimezoneOffsetFromUTC")) is not None:
        ds.TimezoneOffsetFromUTC = offset
    for keyword in ("IssuerOfAccessionNumberSequence",):
        if items := [
            item
            for item in values.items(keyword)
            if item.text("LocalNamespaceEntityID") or item.text("UniversalEntityID")
        ]:
            setattr(ds, keyword, [_copy(items[0], _ISSUER)])
    return ds


def _request(values: "Values", study_instance_uid: str) -> Dataset | None:
    """An item of Referenced Request Sequence (PS3.3 C.17.2) when the source knows its request."""
    requests = values.items("RequestAttributesSequence")
    accession = _fitting(values, "AccessionNumber")
    if not requests and not accession:
        return None
    item = Dataset()
    item.StudyInstanceUID = study_instance_uid
    item.ReferencedStudySequence = []
    item.AccessionNumber = accession
    item.PlacerOrderNumberImagingServiceRequest = ""
    item.FillerOrderNumberImagingServiceRequest = ""
    item.RequestedProcedureCodeSequence = []
    for keyword in _REQUEST:
        setattr(item, keyword, _fitting(requests[0], keyword) if requests else "")
    return item


def _fitting(values: "Values", keyword: str) -> str:
    """A number cut short, or without its control characters, would be another number: then it is better not said.

    The patient's identity is never cut; an id shows its control characters (`visible`).
    """
    if keyword in _IDS:
        return values.text(keyword, visible)
    text = values.text(keyword)
    if keyword in _LONGEST and keyword not in _DESCRIBING and is_broken(values.text(keyword, str)):
        return ""
    longest = _LONGEST.get(keyword, len(text))
    if len(text) <= longest:
        return text
    return text[:longest].rstrip() if keyword in _DESCRIBING else ""


def _lossy(values: "Values") -> dict[str, str | list[str]]:
    if values.text("LossyImageCompression") != "01":
        return {}
    found: dict[str, str | list[str]] = {"LossyImageCompression": "01"}
    if ratios := values.numbers("LossyImageCompressionRatio"):
        found["LossyImageCompressionRatio"] = [format_number_as_ds(ratio) for ratio in ratios]
    methods = [code_string(method) for method in values.text("LossyImageCompressionMethod").split("\\")]
    if all(methods):
        found["LossyImageCompressionMethod"] = methods
    return found


def _copy(item: "Values", keywords: Sequence[str]) -> Dataset:
    ds = Dataset()
    for keyword in keywords:
        if text := item.text(keyword):
            setattr(ds, keyword, text)
    return ds


class Values:
    """Element values of one data set as clean Unicode; what cannot be read is empty."""

    def __init__(self, ds: Dataset, encodings: list[str] | None = None) -> None:
        self._ds = ds
        self._declared = encodings if encodings is not None else self._encodings()

    def text(self, keyword: str, clean: Callable[[str], str] = printable) -> str:
        """Each value cleaned, joined by a backslash; empty when absent, unreadable, or text in a binary VR."""
        try:
            element = self._element(keyword)
            value = None if element is None else element.value
            if element is None or value is None or (element.VR not in STR_VR and dictionary_VR(keyword) in STR_VR):
                return ""
            parts = value if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]
            return "\\".join(clean(str(part)) for part in parts)
        except UNREADABLE:
            return ""

    def whole(self, keyword: str) -> int:
        text = self.text(keyword)
        return int(text) if text.isdecimal() else 0

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Empty when any of them is no number, or endless."""
        return numbers_in(self.text(keyword))

    def items(self, keyword: str) -> list["Values"]:
        try:
            element = self._element(keyword)
            return [] if element is None else [Values(item, self._declared) for item in element.value or ()]
        except UNREADABLE:
            return []

    def _element(self, keyword: str) -> DataElement | None:
        tag = Tag(keyword)
        if tag not in self._ds:
            return None
        element = self._ds.get_item(tag)
        if isinstance(element, RawDataElement):
            return convert_raw_data_element(element, encoding=self._encoding_of(element), ds=self._ds)
        return element

    def _encodings(self) -> list[str]:
        """The declared character sets as Python's codecs; empty when nothing, ASCII or nonsense is declared."""
        try:
            declared = self._ds.get("SpecificCharacterSet")
            if not declared or declared == "ISO_IR 6":
                return []
            return [str(codec) for codec in convert_encodings(declared)]
        except UNREADABLE:
            return []

    def _encoding_of(self, element: RawDataElement) -> list[str]:
        """With nothing declared, bytes that are valid UTF-8 are that; else Latin-1, which never fails."""
        if self._declared:
            return self._declared
        try:
            (element.value or b"").decode("utf-8")
        except UnicodeDecodeError:
            return ["latin_1"]
        return ["utf-8"]

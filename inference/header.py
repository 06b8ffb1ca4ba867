"""From an untrusted data set to typed facts: what kind of image this claims to be, and of whom only the age.

Real headers lack View Position, Body Part Examined and Presentation Intent Type, so each fact has its fallbacks, and
says which element it came from. Nothing here raises for garbage in a descriptive element.
"""

import math
from dataclasses import asdict, dataclass, fields
from datetime import date
from typing import Any

from pydicom.dataset import Dataset

from inference.body_parts import (
    SiteTables,
    body_part_of_codes,
    body_part_of_term,
    body_part_of_text,
    view_of_codes,
    view_of_term,
    view_of_text,
)
from inference.elements import MalformedElement, has, integer, items, strings, text, unsigned

DESCRIPTIONS = ("ProtocolName", "SeriesDescription", "StudyDescription")
OWN_ELEMENTS = ("BodyPartExamined", "AnatomicRegionSequence")  # sources of a body part that are no free text
SERIES_TEXTS = {"ProtocolName": ("LO",), "SeriesDescription": ("LO",), "AcquisitionContrast": ("CS",)}
DAYS_PER_YEAR = 365.2425
MAX_AGE_YEARS = 130.0
MAX_FACT_CHARACTERS = 300
MAX_NUMBER = 10**12  # an Integer String has at most twelve characters (PS3.5 6.2)
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True)
class HeaderFacts:
    """What the header says, None or empty where it says nothing that can be believed."""

    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    sop_class_uid: str | None = None
    modality: str | None = None
    body_part: str | None = None  # a defined term such as CHEST
    body_part_source: str = ""
    view: str | None = None  # PA, AP, FRONTAL (one of the two), LATERAL, OBLIQUE, ...
    view_source: str = ""
    series_texts: tuple[str, ...] = ()  # what the protocol, the series and an enhanced MR's contrast are called
    age_years: float | None = None
    age_source: str = ""
    for_processing: bool = False
    image_type: tuple[str, ...] = ()
    has_pixels: bool = False
    rows: int = 0
    columns: int = 0
    frames: int = 1
    samples: int = 1
    bits_stored: int = 0
    photometric: str = ""
    malformed: str = ""  # the first element about pixels that breaks its rule, as a sentence
    unverified: bool = False  # a picture without a DICOM header, described by the person who gave it

    @property
    def secondary(self) -> bool:
        """ORIGINAL or DERIVED does not matter, PRIMARY or SECONDARY does (PS3.3 C.7.6.1.1.2)."""
        return len(self.image_type) > 1 and self.image_type[1] == "SECONDARY"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def facts_from_json(value: dict[str, Any]) -> HeaderFacts:
    """What a child sent, believed only where the types are right, numbers are finite and no larger than a header can
    say, and texts can be written down. Raises ValueError or TypeError otherwise."""
    known = {field.name: field for field in fields(HeaderFacts)}
    if not isinstance(value, dict) or set(value) != set(known):
        raise ValueError("not header facts")
    value = {**value, **{name: tuple(value[name]) for name in ("image_type", "series_texts")}}
    for name, item in value.items():
        if not _fits(item, _type_name(known[name].type)) or not _is_bounded(item):
            raise ValueError(f"header fact {name} has a wrong type")
        if name.endswith("_uid") and item is not None and not _is_uid(item):
            raise ValueError(f"header fact {name} is no UID")
    return HeaderFacts(**value)


def read_header(ds: Dataset, tables: SiteTables) -> HeaderFacts:
    """The facts of one data set. Warnings of pydicom must be captured by the caller: they quote values."""
    texts = {keyword: text(ds, keyword, ("LO",)) for keyword in DESCRIPTIONS}
    body_part, body_part_source = _body_part(ds, texts, tables)
    view, view_source = _view(ds, texts, tables)
    age, age_source = _age(ds)
    return HeaderFacts(
        study_instance_uid=_uid(ds, "StudyInstanceUID"),
        series_instance_uid=_uid(ds, "SeriesInstanceUID"),
        sop_instance_uid=_uid(ds, "SOPInstanceUID"),
        sop_class_uid=_uid(ds, "SOPClassUID"),
        modality=text(ds, "Modality", ("CS",)).upper()[:16] or None,
        body_part=body_part,
        body_part_source=body_part_source,
        view=view,
        view_source=view_source,
        series_texts=_series_texts(ds),
        age_years=age,
        age_source=age_source,
        for_processing=_for_processing(ds),
        image_type=tuple(part.upper()[:32] for part in strings(ds, "ImageType", ("CS",))[:16]),
        has_pixels=any(has(ds, keyword) for keyword in PIXEL_KEYWORDS),
        **_pixel_facts(ds),
    )


def age_in_years(age_string: str) -> float | None:
    """An Age String such as 003Y, 018M, 010W or 030D (PS3.5 6.2) in years; None when it is not one."""
    number, unit = age_string[:-1].strip(), age_string[-1:].upper()
    if not number.isascii() or not number.isdigit() or len(number) > 3:
        return None
    years = {"Y": 1.0, "M": 1.0 / 12.0, "W": 7.0 / DAYS_PER_YEAR, "D": 1.0 / DAYS_PER_YEAR}.get(unit)
    return None if years is None else int(number) * years


def years_between(born: date, then: date) -> float:
    """Completed years plus the share of the running one: a birthday is exactly a whole number."""
    years = then.year - born.year - ((then.month, then.day) < (born.month, born.day))
    last = _birthday(born, born.year + years)
    following = _birthday(born, born.year + years + 1)
    return years + (then - last).days / (following - last).days


def _birthday(born: date, year: int) -> date:
    try:
        return born.replace(year=year)
    except ValueError:  # 29 February
        return date(year, 3, 1)


def _body_part(ds: Dataset, texts: dict[str, str], tables: SiteTables) -> tuple[str | None, str]:
    part = body_part_of_term(text(ds, "BodyPartExamined", ("CS", "LO", "SH")), tables)
    if part:
        return part, "BodyPartExamined"
    part = body_part_of_codes(_codes(ds, "AnatomicRegionSequence"))
    if part:
        return part, "AnatomicRegionSequence"
    for keyword, words in texts.items():
        part = body_part_of_text(words, tables)
        if part:
            return part, keyword
    return None, ""


def _view(ds: Dataset, texts: dict[str, str], tables: SiteTables) -> tuple[str | None, str]:
    position = text(ds, "ViewPosition", ("CS", "LO", "SH"))
    view = view_of_term(position) or view_of_text(position, tables)
    if view:
        return view, "ViewPosition"
    view = view_of_codes(_codes(ds, "ViewCodeSequence"))
    if view:
        return view, "ViewCodeSequence"
    for keyword, words in texts.items():
        view = view_of_text(words, tables)
        if view:
            return view, keyword
    return None, ""


def _series_texts(ds: Dataset) -> tuple[str, ...]:
    said = (text(ds, keyword, vrs)[:64] for keyword, vrs in SERIES_TEXTS.items())
    return tuple(words for words in said if words)


def _codes(ds: Dataset, keyword: str) -> list[tuple[str, str]]:
    return [
        (text(item, "CodeValue", ("SH",)), text(item, "CodingSchemeDesignator", ("SH",))) for item in items(ds, keyword)
    ]


def _age(ds: Dataset) -> tuple[float | None, str]:
    age = age_in_years(text(ds, "PatientAge", ("AS",)))
    if age is not None and age <= MAX_AGE_YEARS:
        return age, "PatientAge"
    born = _date(ds, "PatientBirthDate")
    for keyword in ("StudyDate", "AcquisitionDate", "SeriesDate", "ContentDate"):
        then = _date(ds, keyword)
        if born and then:
            years = years_between(born, then) if then >= born else -1.0
            return (years, f"PatientBirthDate and {keyword}") if 0.0 <= years <= MAX_AGE_YEARS else (None, "")
    return None, ""


def _date(ds: Dataset, keyword: str) -> date | None:
    digits = text(ds, keyword, ("DA",)).replace(".", "")  # ACR-NEMA wrote 2020.01.25
    if len(digits) != 8 or not digits.isascii() or not digits.isdigit():
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def _for_processing(ds: Dataset) -> bool:
    """By Presentation Intent Type, else by a SOP class that is For Processing by definition."""
    intent = text(ds, "PresentationIntentType", ("CS",)).upper()
    return intent == "FOR PROCESSING" or (not intent and _uid(ds, "SOPClassUID") in FOR_PROCESSING_CLASSES)


FOR_PROCESSING_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("1.1.1", "1.2.1", "1.3.1"))


def _uid(ds: Dataset, keyword: str) -> str | None:
    uid = text(ds, keyword, ("UI",))
    return uid if _is_uid(uid) else None


def _is_uid(said: str) -> bool:
    return 0 < len(said) <= 64 and set(said) <= set("0123456789.")


def _pixel_facts(ds: Dataset) -> dict[str, Any]:
    try:
        return {
            "rows": unsigned(ds, "Rows") or 0,
            "columns": unsigned(ds, "Columns") or 0,
            "frames": integer(ds, "NumberOfFrames") or 1,
            "samples": unsigned(ds, "SamplesPerPixel") or 1,
            "bits_stored": unsigned(ds, "BitsStored") or 0,
            "photometric": text(ds, "PhotometricInterpretation", ("CS",)).upper()[:16],
        }
    except MalformedElement as error:
        return {"malformed": str(error)}


def _type_name(declared: Any) -> str:
    return str(declared.__name__ if isinstance(declared, type) else declared)


def _is_bounded(item: Any) -> bool:
    """A lone surrogate, which only JSON can say, raises UnicodeEncodeError: a ValueError."""
    if isinstance(item, tuple):
        return all(_is_bounded(part) for part in item)
    if isinstance(item, str):
        return len(item.encode()) <= 4 * MAX_FACT_CHARACTERS and len(item) <= MAX_FACT_CHARACTERS
    return item is None or (math.isfinite(item) and abs(item) < MAX_NUMBER)


def _fits(item: Any, declared: str) -> bool:
    if declared.startswith("tuple"):
        return isinstance(item, tuple) and len(item) <= 16 and all(isinstance(part, str) for part in item)
    kinds: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (float, int), "bool": (bool,)}
    if item is None:
        return "None" in declared
    expected = kinds[declared.split(" ")[0]]
    return isinstance(item, expected) and (bool in expected or not isinstance(item, bool))

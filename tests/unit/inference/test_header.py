"""Header facts: each fallback, each age, and garbage that must count as absent."""

import io
import struct
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from inference.body_parts import SiteTables, view_of_text
from inference.elements import MalformedElement, decimals, integer, numbers, unsigned
from inference.header import HeaderFacts, age_in_years, facts_from_json, read_header, years_between
from tests.support.dx import make_dx

TABLES = SiteTables(
    {"CHEST": ("chest", "thorax", "cxr"), "HAND": ("hand",)},
    ("pa", "ap", "frontal", "p.a.", "a-p"),
    ("lat", "lateral", "profil"),
)


def facts(**overrides: Any) -> HeaderFacts:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of values that a scanner sends all the same
        return read_header(make_dx(**overrides), TABLES)


def coded(value: str, scheme: str = "SCT") -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "as the code says"
    return [item]


def raw_copy(ds: Dataset) -> Dataset:
    """As it comes from a file: raw elements, not parsed ones."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer)


BARE: dict[str, Any] = {
    "ViewPosition": None, "ViewCodeSequence": None, "BodyPartExamined": None, "AnatomicRegionSequence": None,
    "SeriesDescription": None, "StudyDescription": None, "ProtocolName": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"ViewPosition": "PA"}, ("PA", "ViewPosition")),
        ({"ViewPosition": "ap"}, ("AP", "ViewPosition")),
        ({"ViewPosition": "LL"}, ("LATERAL", "ViewPosition")),
        ({"ViewPosition": "Lateral view"}, ("LATERAL", "ViewPosition")),
        ({"ViewCodeSequence": coded("272479007")}, ("PA", "ViewCodeSequence")),
        ({"ViewCodeSequence": coded("R-10206", "SNM3")}, ("AP", "ViewCodeSequence")),
        ({"ViewCodeSequence": coded("399067008")}, ("LATERAL", "ViewCodeSequence")),
        ({"ViewPosition": "??", "ViewCodeSequence": coded("399348003")}, ("AP", "ViewCodeSequence")),
        ({"ProtocolName": "Thorax p.a."}, ("PA", "ProtocolName")),
        ({"SeriesDescription": "W chest LAT"}, ("LATERAL", "SeriesDescription")),
        ({"SeriesDescription": "PA and LAT", "StudyDescription": "frontal"}, ("FRONTAL", "StudyDescription")),
        ({"StudyDescription": "chest, profil"}, ("LATERAL", "StudyDescription")),
        ({"SeriesDescription": "CHEST 2 VIEWS"}, (None, "")),
        ({"SeriesDescription": "plate, palate, lap"}, (None, "")),
    ],
)
def test_view_falls_back_from_position_to_codes_to_words(overrides: dict[str, Any], expected: tuple[Any, str]) -> None:
    found = facts(**{**BARE, **overrides})
    assert (found.view, found.view_source) == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"BodyPartExamined": "CHEST"}, ("CHEST", "BodyPartExamined")),
        ({"BodyPartExamined": "thorax"}, ("CHEST", "BodyPartExamined")),
        ({"BodyPartExamined": "Chest PA"}, ("CHEST", "BodyPartExamined")),
        ({"BodyPartExamined": "HAND"}, ("HAND", "BodyPartExamined")),
        (
            {"BodyPartExamined": "OTHER", "AnatomicRegionSequence": coded("816094009")},
            ("CHEST", "AnatomicRegionSequence"),
        ),
        ({"AnatomicRegionSequence": coded("T-D3000", "SRT")}, ("CHEST", "AnatomicRegionSequence")),
        ({"AnatomicRegionSequence": coded("72696002")}, ("KNEE", "AnatomicRegionSequence")),
        ({"ProtocolName": "CXR portable"}, ("CHEST", "ProtocolName")),
        ({"SeriesDescription": "Thoraxaufnahme"}, ("CHEST", "SeriesDescription")),
        ({"StudyDescription": "orchestra"}, (None, "")),
    ],
)
def test_body_part_falls_back_from_term_to_codes_to_words(overrides: dict[str, Any], expected: tuple[Any, str]) -> None:
    found = facts(**{**BARE, **overrides})
    assert (found.body_part, found.body_part_source) == expected


def test_words_of_a_site_are_whole_words() -> None:
    assert view_of_text("Chest_pa", TABLES) == "PA"
    assert view_of_text("papa", TABLES) is None
    assert view_of_text("AP/PA", TABLES) == "FRONTAL"


@pytest.mark.parametrize(
    ("age", "years"),
    [("005Y", 5.0), ("018M", 1.5), ("052W", 52 * 7 / 365.2425), ("030D", 30 / 365.2425), ("000Y", 0.0),
     ("5Y", 5.0), ("Y", None), ("", None), ("abcY", None), ("005X", None), ("٠٠٥Y", None), ("-05Y", None)],
)  # fmt: skip
def test_age_strings(age: str, years: float | None) -> None:
    assert age_in_years(age) == (pytest.approx(years) if years is not None else None)


@pytest.mark.parametrize(
    ("born", "studied", "years"),
    [("20200101", "20260101", 6.0), ("20200101", "20251231", 5.997), ("20200229", "20210301", 1.0),
     ("20260101", "20250101", None),
     ("18000101", "20260101", None), ("2020", "20260101", None), ("20201399", "20260101", None)],
)  # fmt: skip
def test_age_from_birth_date_and_study_date(born: str, studied: str, years: float | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = facts(PatientAge=None, PatientBirthDate=born, StudyDate=studied)
    assert found.age_years == (pytest.approx(years, abs=1e-3) if years is not None else None)


def test_age_from_another_date_when_the_study_has_none() -> None:
    found = facts(PatientAge=None, PatientBirthDate="20200601", StudyDate=None, AcquisitionDate="20250601")
    assert (found.age_years, found.age_source) == (5.0, "PatientBirthDate and AcquisitionDate")


@given(st.dates(date(1900, 1, 1), date(2025, 12, 31)), st.integers(0, 40_000))
def test_ages_grow_with_time(born: date, days: int) -> None:
    then = date.fromordinal(born.toordinal() + days)
    later = date.fromordinal(then.toordinal() + 1)
    assert 0 <= years_between(born, then) < years_between(born, later)
    assert abs(years_between(born, then) - days / 365.2425) < 0.02


def test_the_patients_own_age_comes_before_the_dates() -> None:
    assert facts(PatientAge="002Y", PatientBirthDate="19500101").age_years == 2.0


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, True),
        ({"PresentationIntentType": "FOR PRESENTATION"}, False),
        ({"PresentationIntentType": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}, True),
        ({"PresentationIntentType": None}, False),
    ],
)
def test_for_processing_by_intent_or_sop_class(overrides: dict[str, Any], expected: bool) -> None:
    assert facts(**overrides).for_processing is expected


@pytest.mark.parametrize(
    ("image_type", "secondary"),
    [
        (["DERIVED", "PRIMARY"], False),
        (["ORIGINAL", "PRIMARY", ""], False),
        (["DERIVED", "SECONDARY"], True),
        ("X", False),
    ],
)
def test_derived_primary_is_eligible_and_secondary_is_not(image_type: Any, secondary: bool) -> None:
    assert facts(ImageType=image_type).secondary is secondary


def test_rows_with_the_vr_ul_are_an_attack_not_a_number() -> None:
    ds = make_dx()
    del ds["Rows"]
    ds.add_new("Rows", "UL", 256)
    found = read_header(raw_copy(ds), TABLES)
    assert "Rows" in found.malformed
    assert "UL" in found.malformed


@pytest.mark.parametrize("keyword", ["Columns", "BitsStored", "SamplesPerPixel"])
def test_two_values_where_one_is_due_are_malformed(keyword: str) -> None:
    ds = make_dx()
    del ds[keyword]
    ds.add_new(keyword, "US", [8, 8])
    assert keyword in read_header(raw_copy(ds), TABLES).malformed


@pytest.mark.parametrize("content", [b"", b"\x01", b"\x01\x02\x03"])
def test_cut_numbers_are_malformed_or_absent(content: bytes) -> None:
    ds = raw_copy(make_dx())
    ds[0x00280010] = ds.get_item("Rows")._replace(value=content, length=len(content))  # type: ignore[union-attr]
    if content:
        with pytest.raises(MalformedElement):
            unsigned(ds, "Rows")
    else:
        assert unsigned(ds, "Rows") is None


def test_words_where_numbers_are_due_are_malformed() -> None:
    ds = raw_copy(make_dx())
    ds[0x00281053] = ds.get_item("RescaleSlope")._replace(value=b"one")  # type: ignore[union-attr]
    ds[0x00280008] = ds.get_item("RescaleSlope")._replace(tag=0x00280008, VR="IS", value=b"1e9")  # type: ignore[union-attr]
    with pytest.raises(MalformedElement):
        decimals(ds, "RescaleSlope")
    with pytest.raises(MalformedElement):
        integer(ds, "NumberOfFrames")


@pytest.mark.parametrize("value", [b"nan", b"inf", b"-1e40"])
def test_decimals_that_are_not_finite_are_malformed(value: bytes) -> None:
    ds = raw_copy(make_dx())
    ds[0x00281053] = ds.get_item("RescaleSlope")._replace(value=value)  # type: ignore[union-attr]
    with pytest.raises(MalformedElement):
        decimals(ds, "RescaleSlope")


def test_signed_and_unsigned_numbers_of_either_byte_order() -> None:
    ds = raw_copy(make_dx(PixelPaddingValue=0))
    element = ds.get_item("PixelPaddingValue")
    ds[0x00280120] = element._replace(VR="SS", value=struct.pack("<h", -7))  # type: ignore[union-attr]
    assert numbers(ds, "PixelPaddingValue", ("US", "SS")) == [-7]
    ds[0x00280120] = element._replace(VR="US", value=struct.pack(">H", 7), is_little_endian=False)  # type: ignore[union-attr]
    assert numbers(ds, "PixelPaddingValue", ("US", "SS")) == [7]


def test_text_of_a_wrong_vr_counts_as_absent() -> None:
    ds = make_dx()
    del ds["Modality"]
    ds.add_new("Modality", "US", 17)
    assert read_header(raw_copy(ds), TABLES).modality is None


CLEAN = io.BytesIO()
make_dx().save_as(CLEAN, enforce_file_format=True)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_garbage_in_any_element_never_raises(data: st.DataObject) -> None:
    ds = dcmread(io.BytesIO(CLEAN.getvalue()))
    for tag in data.draw(st.lists(st.sampled_from(sorted(set(ds.keys()) - {0x00080005})), max_size=6)):
        element = ds.get_item(tag)
        value = data.draw(st.binary(max_size=40))
        vr = data.draw(st.sampled_from([element.VR, "UL", "US", "SQ", "LO", "UN", "OB"]))  # type: ignore[union-attr]
        ds[tag] = element._replace(VR=vr, value=value, length=len(value))  # type: ignore[union-attr]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = read_header(ds, TABLES)
    assert facts_from_json({**found.to_json()}) == found


@pytest.mark.parametrize(
    "change",
    [{"rows": "256"}, {"rows": True}, {"modality": 5}, {"modality": "x" * 301}, {"image_type": [1]}, {"more": 1}],
)
def test_a_child_that_lies_about_types_is_not_believed(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="header fact"):
        facts_from_json({**HeaderFacts().to_json(), **change})


def test_no_fact_holds_a_name_or_an_id() -> None:
    ds = make_dx(PatientName="SENTINEL^NAME", PatientID="SENTINEL-ID", PatientBirthDate="20200101")
    assert "SENTINEL" not in repr(read_header(ds, TABLES))
    assert "20200101" not in repr(read_header(ds, TABLES))


def test_facts_survive_json(tmp_path: Path) -> None:
    found = facts()
    assert facts_from_json({**found.to_json(), "image_type": list(found.image_type)}) == found


@pytest.mark.parametrize(
    ("description", "part"),
    [
        ("HAND PA", "HAND"),
        ("Handgelenk", "HAND"),
        ("Thoraxaufnahme", "CHEST"),
        ("chest and hand", None),
        ("knob", None),
    ],
)
def test_a_description_names_a_body_part_by_the_sites_words(description: str, part: str | None) -> None:
    assert facts(**(BARE | {"SeriesDescription": description})).body_part == part

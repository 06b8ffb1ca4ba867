"""Who is analysed, who is a prior, who is ours, who is no image."""

from datetime import UTC, datetime, timedelta

import pytest
from pynetdicom.sop_class import _STORAGE_CLASSES

from config.settings import Settings
from ledger.records import Disposition
from scp.admission.disposition import disposition_of, is_image_class, study_moment
from scp.admission.structure import walk
from tests.support.encoded import CR, CT, SC, TEXT_SR, data_set

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SETTINGS = Settings()
OURS = {"Manufacturer": "OpenTriage", "ManufacturerModelName": "OpenTriage node"}


def decide(now: datetime = NOW, settings: Settings = SETTINGS, **changes: str | None) -> Disposition:
    base: dict[str, str | None] = {"StudyDate": "20261120", "StudyTime": "110000", "TimezoneOffsetFromUTC": "+0000"}
    values = walk(data_set(**{**base, **changes}), "1.2.840.10008.1.2.1")
    return disposition_of(values, settings, now)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Disposition.ANALYSE),
        ({"StudyDate": "20261119", "StudyTime": "120001"}, Disposition.ANALYSE),
        ({"StudyDate": "20261119", "StudyTime": "115959"}, Disposition.PRIOR),
        ({"StudyDate": "20200101"}, Disposition.PRIOR),
        ({"StudyDate": "2020.01.01"}, Disposition.PRIOR),
        ({"StudyDate": "20261119", "StudyTime": None}, Disposition.ANALYSE),  # the end of that day
        ({"StudyDate": "20261119", "StudyTime": "garbled"}, Disposition.ANALYSE),
        ({"StudyDate": "20261118", "StudyTime": None}, Disposition.PRIOR),
        ({"StudyDate": None}, Disposition.ANALYSE),
        ({"StudyDate": ""}, Disposition.ANALYSE),
        ({"StudyDate": "20261332"}, Disposition.ANALYSE),
        ({"StudyDate": "00010101"}, Disposition.PRIOR),
        ({"StudyDate": "yesterday"}, Disposition.ANALYSE),
        ({"StudyDate": "20991231"}, Disposition.ANALYSE),  # the future is no prior
        ({"StudyDate": "20261119", "StudyTime": "130000", "TimezoneOffsetFromUTC": "+0200"}, Disposition.PRIOR),
        ({"StudyDate": "20261119", "StudyTime": "110000", "TimezoneOffsetFromUTC": "-0200"}, Disposition.ANALYSE),
    ],
)
def test_a_study_older_than_the_limit_is_a_prior(changes: dict[str, str | None], expected: Disposition) -> None:
    assert decide(**changes) is expected


def test_the_age_limit_is_configured() -> None:
    settings = Settings(study={"triage_max_age_h": 24 * 365 * 20})
    assert decide(settings=settings, StudyDate="20200101") is Disposition.ANALYSE


def test_without_an_offset_the_clock_of_the_node_holds() -> None:
    local = study_moment("20261120", "110000", "")
    assert local == datetime(2026, 11, 20, 11, 0).astimezone()
    assert study_moment("20261120", "11", "+0100") == datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
    assert study_moment("20261120", "1130", "+0100") == datetime(2026, 11, 20, 10, 30, tzinfo=UTC)
    assert study_moment("20261120", "235960.5", "+0000") == datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)
    assert study_moment("20261120", "250000", "+0000") == datetime(2026, 11, 20, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("sop_class", [TEXT_SR, SC, "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.59"])
def test_our_own_objects_are_known_by_their_equipment(sop_class: str) -> None:
    assert decide(SOPClassUID=sop_class, **OURS) is Disposition.OWN_RESULT
    assert decide(SOPClassUID=sop_class, StudyDate="20200101", **OURS) is Disposition.OWN_RESULT


def test_an_acquired_image_is_analysed_whoever_claims_to_have_made_it() -> None:
    assert decide(SOPClassUID=CR, **OURS) is Disposition.ANALYSE


def test_the_equipment_names_are_configured_and_both_count() -> None:
    settings = Settings(report={"manufacturer": "Site", "model_name": "Node"})
    assert decide(settings=settings, SOPClassUID=TEXT_SR, **OURS) is Disposition.NOT_AN_IMAGE
    assert decide(SOPClassUID=SC, Manufacturer="OpenTriage", ManufacturerModelName="other") is Disposition.ANALYSE


def test_what_is_no_image_is_not_analysed() -> None:
    assert decide(SOPClassUID=TEXT_SR) is Disposition.NOT_AN_IMAGE
    assert decide(SOPClassUID=TEXT_SR, StudyDate="20200101") is Disposition.NOT_AN_IMAGE
    assert decide(SOPClassUID="1.3.12.2.1107.5.9.1") is Disposition.ANALYSE  # private: the gate decides
    assert decide(SOPClassUID=CT) is Disposition.ANALYSE


def test_the_rule_for_images_agrees_with_the_names_of_the_dictionary() -> None:
    """Every class whose name says Image Storage is an image; of the others only these few are."""
    others = {keyword for keyword, uid in _STORAGE_CLASSES.items() if is_image_class(uid) and "Image" not in keyword}
    assert others == {
        "EnhancedUSVolumeStorage",
        "ParametricMapStorage",
        "CornealTopographyMapStorage",
        "OphthalmicThicknessMapStorage",
        "OphthlamicOpticalCoherenceTomographyBscanVolumeAnalysisStorage",
    }
    assert all(is_image_class(uid) for keyword, uid in _STORAGE_CLASSES.items() if "ImageStorage" in keyword)


def test_ages_are_measured_against_the_time_of_receipt() -> None:
    assert decide(now=NOW + timedelta(days=2)) is Disposition.PRIOR

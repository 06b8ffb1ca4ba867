"""What each destination gets: by its profile, by the site's wishes, by what the study is."""

import dataclasses
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from config.settings import Destination, ReportSettings, Settings
from ledger.records import ReportKind, ResultObject, SentReference, StudyFindings, TriagePriority
from ledger.store import Store
from sr_writer.build import build_objects, plan_of
from sr_writer.profiles import PROFILES, Plan, Profile, plan_for
from tests.support.dx import make_dx
from tests.support.findings import analysed, finding, flagged_study, keep, new_store, not_assessed, study
from tests.support.mr import head, make_mr, measured_study, squares
from tests.unit.sr_writer.test_boxes import groups, hand, region_of
from tests.unit.sr_writer.test_result_objects import all_text, items, values

HIGH, MEDIUM, LOW, NOT_ASSESSED = (TriagePriority(name) for name in ("HIGH", "MEDIUM", "LOW", "NOT_ASSESSED"))
FIRST_33 = (ComprehensiveSRStorage, Comprehensive3DSRStorage, EnhancedSRStorage)
FIRST_34 = (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage)
SR, TEXT, PICTURE, KEYS = "measurement_sr", "text_sr", "secondary_capture", "key_objects"
SEG, MARKS, MAP = "segmentation", "presentation_state", "parametric_map"
BOX = Settings(report=ReportSettings(localization="box"))


def to(profile: str = "generic-pacs", **wishes: Any) -> Destination:
    return Destination.model_validate(
        {"ae_title": "PACS", "host": "localhost", "port": 104, "profile": profile, **wishes}
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def build(
    findings: StudyFindings, store: Store, destination: Destination, settings: Settings = BOX
) -> list[ResultObject]:
    return build_objects(findings, store, settings, "2.25.7", plan_of(destination, findings))


def kinds(made: list[ResultObject]) -> list[str]:
    return list(dict.fromkeys(item.kind for item in made))


def one(made: list[ResultObject], kind: str) -> Dataset:
    return dcmread(BytesIO(next(item.content for item in made if item.kind == kind)))


@pytest.mark.parametrize(
    ("profile", "kinds_of_high", "measurement", "text"),
    [
        ("generic-pacs", (SR, TEXT, PICTURE, KEYS, SEG), FIRST_33, (EnhancedSRStorage,)),
        ("ohif", (SR, TEXT, PICTURE, SEG), FIRST_33, (EnhancedSRStorage,)),
        ("orthanc-stone", (SR, TEXT, PICTURE, SEG), FIRST_33, (EnhancedSRStorage,)),
        ("air", (SR, TEXT, PICTURE, KEYS, SEG), FIRST_34, FIRST_34),
        ("triage-only", (TEXT, PICTURE, KEYS), (), (EnhancedSRStorage,)),
    ],
)
def test_each_profile_has_its_kinds_in_its_classes(
    profile: str, kinds_of_high: tuple[str, ...], measurement: tuple[str, ...], text: tuple[str, ...]
) -> None:
    plan = plan_for(to(profile), HIGH, flagged=True)
    assert plan.kinds == kinds_of_high
    assert (plan.measurement_sr, plan.text_sr) == (measurement, text)
    assert plan.picture == ("banner" if profile == "triage-only" else "whole")
    offered = PROFILES[to(profile).profile].sop_classes()
    assert set(plan.kinds) <= set(offered)
    assert offered[TEXT] == text


@pytest.mark.parametrize("which", ["flagged", "unflagged"])
@pytest.mark.parametrize(
    ("wanted", "high", "low"),
    [
        ("all", (SR, TEXT, PICTURE, KEYS, MARKS, MAP, SEG), (SR, TEXT, MAP, SEG)),
        ("sr", (SR, TEXT, KEYS, SEG), (SR, TEXT, SEG)),
        ("text", (TEXT,), (TEXT,)),
        ("none", (), ()),
    ],
)
def test_what_a_study_brings_is_a_wish_of_the_destination(
    which: str, wanted: str, high: tuple[str, ...], low: tuple[str, ...]
) -> None:
    destination = to(
        presentation_state=True, parametric_map=True, **{"flagged": "none", "unflagged": "none"} | {which: wanted}
    )
    flagged = which == "flagged"
    assert plan_for(destination, HIGH, flagged=flagged).kinds == high
    assert plan_for(destination, LOW, flagged=flagged).kinds == low
    assert plan_for(destination, HIGH, flagged=not flagged).kinds == ()


def test_by_default_all_of_a_flagged_study_and_the_text_of_any_other() -> None:
    assert plan_for(to(), MEDIUM, flagged=True).kinds == (SR, TEXT, PICTURE, SEG)
    assert plan_for(to(), LOW, flagged=False).kinds == (TEXT,)
    assert plan_for(to(), NOT_ASSESSED, flagged=False).kinds == (TEXT,)


@pytest.mark.parametrize("profile", PROFILES)
def test_key_objects_are_of_high_studies_only_and_the_sites_to_choose(profile: str) -> None:
    assert plan_for(to(profile, key_objects="high"), HIGH, flagged=True).key_objects
    assert not plan_for(to(profile, key_objects="high"), MEDIUM, flagged=True).key_objects
    assert not plan_for(to(profile, key_objects="off"), HIGH, flagged=True).key_objects


def test_a_viewer_that_cannot_show_an_object_is_not_sent_it() -> None:
    for profile in ("ohif", "triage-only"):
        plan = plan_for(to(profile, presentation_state=True, parametric_map=True), HIGH, flagged=True)
        assert not plan.presentation_state
        assert not plan.parametric_map


def test_the_measurement_report_is_one_tree_in_three_classes_under_three_names(store: Store) -> None:
    made = [item for item in build(flagged_study(store), store, to()) if item.kind == SR]
    assert tuple(item.sop_class_uid for item in made) == FIRST_33
    assert [(item.choice, item.preference) for item in made] == [(SR, 0), (SR, 1), (SR, 2)]
    assert len({item.sop_instance_uid for item in made} | {item.series_instance_uid for item in made}) == 6
    documents = [dcmread(BytesIO(item.content)) for item in made]
    for item, ds in zip(made, documents, strict=True):
        assert (item.sop_class_uid, item.sop_instance_uid, item.series_instance_uid) == (
            ds.SOPClassUID,
            ds.SOPInstanceUID,
            ds.SeriesInstanceUID,
        )
        assert ds.file_meta.MediaStorageSOPClassUID == ds.SOPClassUID
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert ds.ContentSequence == documents[0].ContentSequence


def test_every_kind_but_a_choice_is_sent_whatever_else_is(store: Store) -> None:
    assert [item.choice for item in build(flagged_study(store), store, to()) if item.kind != SR] == ["", "", ""]


def test_destinations_with_equal_plans_share_their_objects_and_others_do_not(store: Store) -> None:
    findings = flagged_study(store)

    def uids(destination: Destination) -> set[str]:
        return {item.sop_instance_uid for item in build(findings, store, destination)}

    assert uids(to()) == uids(to(ae_title="OTHER", unflagged="none"))
    assert not uids(to()) & uids(to("air"))
    assert not uids(to()) & uids(to(key_objects="off"))
    text_only = uids(to(flagged="text"))
    assert text_only == uids(to("ohif", flagged="text"))
    assert len(text_only) == 1


def test_ohif_gets_a_measurement_report_only_with_boxes(store: Store) -> None:
    """A group without coordinates leaves its viewer blank, and a frame around the image says nothing."""
    assert kinds(build(flagged_study(store), store, to("ohif"))) == [TEXT, PICTURE]
    boxes = hand(store, priority=HIGH)
    assert kinds(build(boxes, store, to("ohif"), Settings())) == [TEXT, PICTURE]  # heat map: boxes are in the picture
    report = one(build(boxes, store, to("ohif")), SR)
    assert [region_of(group)[:2] for group in groups(report)] == [[40.0, 30.0], [5.0, 100.0]]
    for group in groups(report):
        number = next(item for item in group.ContentSequence if item.ValueType == "NUM")
        assert number.ContentSequence[0].ValueType == "SCOORD"  # what OHIF makes a measurement of


def test_ohif_never_gets_a_group_without_coordinates(store: Store) -> None:
    hand_study = hand(store, priority=HIGH)
    seen = hand_study.looked_at[0]
    mixed = study((seen.instance, [*seen.results, analysed(finding())]))
    for group in groups(one(build(mixed, store, to("ohif")), SR)):
        assert "Fracture" in next(item.TextValue for item in group.ContentSequence if item.ValueType == "TEXT")
    volumes = measured_study(store, make_mr([head(False, 64)] * 4), squares(0, 20, 22, 0))
    assert kinds(build(volumes, store, to("ohif"), Settings())) == [TEXT, SEG]
    for group in groups(one(build(volumes, store, to("ohif")), SR)):
        assert [item.ValueType for item in group.ContentSequence].count("SCOORD") == 1


def test_air_gets_its_class_first_and_no_text_beside_it(store: Store) -> None:
    made = build(flagged_study(store), store, to("air"))
    assert kinds(made) == [SR, PICTURE, KEYS]
    assert [item.sop_class_uid for item in made if item.kind == SR] == list(FIRST_34)


def test_air_hears_of_what_could_not_be_assessed_in_its_own_class(store: Store) -> None:
    unjudged = study((keep(make_dx(), store), [not_assessed()]))
    for wanted in ("text", "sr", "all"):
        made = build(unjudged, store, to("air", unflagged=wanted))
        assert kinds(made) == [TEXT]
        assert [item.sop_class_uid for item in made] == list(FIRST_34)
        assert {item.choice for item in made} == {TEXT}


def test_triage_only_says_nowhere_where(store: Store) -> None:
    """Not as a region, not in words, not in the picture."""
    findings = hand(store, priority=HIGH)
    made = build(findings, store, to("triage-only"))
    assert kinds(made) == [TEXT, PICTURE, KEYS]
    for item in made:
        ds = dcmread(BytesIO(item.content))
        assert not [content for content in items(ds) if content.get("ValueType") == "SCOORD"]
        assert "box" not in " ".join(all_text(ds)).lower().replace("opentriage", "")
    elsewhere = dataclasses.replace(findings.looked_at[0].results[0].findings[0], regions=())
    result = dataclasses.replace(findings.looked_at[0].results[0], findings=(elsewhere,))
    other = build(study((findings.looked_at[0].instance, [result])), store, to("triage-only"))
    assert one(made, PICTURE).PixelData == one(other, PICTURE).PixelData
    volumes = measured_study(store, make_mr([head(False, 64)] * 4), squares(0, 20, 22, 0))
    assert kinds(build(volumes, store, to("triage-only"))) == [TEXT]


def test_no_object_says_where_when_localization_is_off(store: Store) -> None:
    off = Settings(report=ReportSettings(localization="off"))
    volumes = measured_study(store, make_mr([head(False, 64)] * 4), squares(0, 20, 22, 0))
    assert kinds(build(volumes, store, to(), off)) == [TEXT]


def test_what_a_model_without_an_alarm_marked_is_something_to_show(store: Store) -> None:
    assert kinds(build(hand(store), store, to())) == [SR, TEXT]
    assert kinds(build(hand(store), store, to(flagged="none", unflagged="all"))) == []


def test_an_unflagged_study_may_be_measured_where_the_site_wants_it(store: Store) -> None:
    low = study((keep(make_dx(), store), [analysed(finding(probability=0.1), priority=LOW)]))
    made = build(low, store, to(unflagged="all"))
    assert kinds(made) == [SR, TEXT]
    assert values(one(made, SR), "233604007") == ["272519000"]  # pneumonia: absent
    assert build(low, store, to(unflagged="none")) == []


def test_a_report_without_measurements_takes_the_earlier_ones_back_in_every_plan(store: Store) -> None:
    before = (SentReference(SR, ComprehensiveSRStorage, "2.25.11", "2.25.12"),)
    findings = dataclasses.replace(flagged_study(store), predecessors=before)
    assert "PredecessorDocumentsSequence" in one(build(findings, store, to("ohif")), TEXT)
    assert "PredecessorDocumentsSequence" not in one(build(findings, store, to()), TEXT)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_withdrawal_reaches_every_profile(store: Store, profile: str) -> None:
    before = (
        SentReference(SR, ComprehensiveSRStorage, "2.25.11", "2.25.12"),
        SentReference(TEXT, EnhancedSRStorage, "2.25.13", "2.25.14"),
    )
    taken_back = dataclasses.replace(
        flagged_study(store),
        kind=ReportKind.WITHDRAWN,
        priority=NOT_ASSESSED,
        predecessors=before,
        cause="The model was recalled.",
    )
    made = build(taken_back, store, to(profile, flagged="none", unflagged="none"))
    assert kinds(made) == {"generic-pacs": [SR, TEXT], "orthanc-stone": [SR, TEXT], "air": [SR]}.get(profile, [TEXT])
    for item in made:
        ds = dcmread(BytesIO(item.content))
        assert "withdrawn" in str(ds.SeriesDescription).lower()
        assert "PredecessorDocumentsSequence" in ds


def test_there_is_no_profile_without_a_text_report() -> None:
    """A withdrawal, and a correction where nothing else is wanted, would be said in nothing and pass for done."""
    with pytest.raises(ValueError, match="withdrawn"):
        Profile(text_sr=())


def test_a_plan_has_what_it_says_and_no_text_beside_it(store: Store) -> None:
    made = build_objects(flagged_study(store), store, BOX, "2.25.7", Plan(picture="whole"))
    assert kinds(made) == [PICTURE]


def test_a_plan_has_a_name_that_says_what_is_in_it() -> None:
    names = {
        plan_for(to(profile, flagged=wanted), priority, flagged=True).name
        for profile in PROFILES
        for wanted in ("all", "sr", "text", "none")
        for priority in (HIGH, MEDIUM)
    }
    plans = {
        plan_for(to(profile, flagged=wanted), priority, flagged=True)
        for profile in PROFILES
        for wanted in ("all", "sr", "text", "none")
        for priority in (HIGH, MEDIUM)
    }
    assert len(names) == len(plans)
    assert Plan(text_sr=(EnhancedSRStorage,)).name == f"text_sr {EnhancedSRStorage}"

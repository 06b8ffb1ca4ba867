"""A box in a report is where the detector drew it; what a model marked without raising the priority is said plainly."""

import dataclasses
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from config.settings import ProfileName, ReportSettings, Settings
from ledger.records import Code, Finding, Region, SentReference, StudyFindings, TriagePriority
from ledger.store import Store
from sr_writer.build import build_objects
from sr_writer.picture import Picture, boxed, draw
from tests.support.dx import make_dx
from tests.support.findings import analysed, finding, keep, new_store, picture, preferred, study
from tests.unit.sr_writer.test_result_objects import all_text, items, values

LOW, HIGH = TriagePriority.LOW, TriagePriority.HIGH
FRACTURE = Code("125605004", "SCT", "Fracture of bone")
FIRST, SECOND = Region((30.0, 40.0, 90.0, 120.0), 0.71), Region((100.0, 5.0, 130.0, 30.0), 0.52)
OFF, HEATMAP, BOX = (Settings(report=ReportSettings(localization=which)) for which in ("off", "heatmap", "box"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def fracture(*regions: Region, probability: float = 0.7) -> Finding:
    return finding(
        "fracture", probability, code=FRACTURE, site=None, activation=None, regions=regions or (FIRST, SECOND)
    )


def hand(store: Store, said: Finding | None = None, priority: TriagePriority = LOW) -> StudyFindings:
    source = make_dx(BodyPartExamined="HAND")
    shown = picture(store, source) if priority is HIGH else None
    result = analysed(said or fracture(), priority=priority, recommendations=(), display_path=shown)
    return study((keep(source, store), [result]))


def build(
    findings: StudyFindings, store: Store, settings: Settings | None = None, profile: ProfileName = "generic-pacs"
) -> dict[str, Dataset]:
    made = preferred(build_objects(findings, store, settings or BOX, "2.25.7", profile))
    return {item.kind: dcmread(BytesIO(item.content)) for item in made}


def groups(ds: Dataset) -> list[Dataset]:
    return [item for item in items(ds) if item.ConceptNameCodeSequence[0].CodeValue == "125007"]


def numbers(ds: Dataset) -> list[Dataset]:
    return [item for group in groups(ds) for item in group.ContentSequence if item.ValueType == "NUM"]


def region_of(group: Dataset) -> list[float]:
    (scoord,) = [item for item in group.ContentSequence if item.ValueType == "SCOORD"]
    assert scoord.GraphicType == "POLYLINE"
    return [float(value) for value in scoord.GraphicData]


def test_each_box_is_the_image_region_of_a_group_of_its_own(store: Store) -> None:
    found = groups(build(hand(store), store)["measurement_sr"])
    assert [region_of(group) for group in found] == [
        [40.0, 30.0, 120.0, 30.0, 120.0, 90.0, 40.0, 90.0, 40.0, 30.0],  # column, row; closed
        [5.0, 100.0, 30.0, 100.0, 30.0, 130.0, 5.0, 130.0, 5.0, 100.0],
    ]


def test_a_box_says_its_own_probability_under_a_name_of_its_own(store: Store) -> None:
    findings = hand(store)
    ds = build(findings, store)["measurement_sr"]
    assert values(ds, "122157") == ["71.0", "52.0"]
    assert values(ds, "PROB_SD") == []
    assert values(ds, "112039") == ["AI-1 Fracture", "AI-2 Fracture"]
    tracking = [
        str(item.UID) for item in items(ds) if item.get("ConceptNameCodeSequence") and item.ValueType == "UIDREF"
    ]
    assert len(set(tracking)) == len(tracking)
    sources = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for group in groups(ds)
        for scoord in group.ContentSequence
        if scoord.ValueType == "SCOORD"
        for item in scoord.ContentSequence
    ]
    assert sources == [findings.looked_at[0].instance.sop_instance_uid] * 2


@pytest.mark.parametrize("profile", ["generic-pacs", "ohif"])
def test_the_only_box_of_a_finding_has_the_findings_number_everywhere(store: Store, profile: ProfileName) -> None:
    made = build(hand(store, fracture(FIRST), priority=HIGH), store, profile=profile)
    ds = made["measurement_sr"]
    assert [str(item.MeasuredValueSequence[0].NumericValue) for item in numbers(ds)] == ["70.0"]
    assert "AI (research): Fracture 70.0 % ± 3.0 %" in values(ds, "121106")
    assert not [text for ds in made.values() for text in all_text(ds) if "71.0" in text]


def test_each_of_several_boxes_says_that_the_number_is_its_own(store: Store) -> None:
    made = build(hand(store), store)["measurement_sr"]
    assert [text for text in values(made, "121106") if "this box" in text] == [
        "AI (research): Fracture, this box 71.0 %",
        "AI (research): Fracture, this box 52.0 %",
    ]
    ohif = build(hand(store), store, profile="ohif")["measurement_sr"]
    names = [str(item.ConceptNameCodeSequence[0].CodeMeaning) for item in numbers(ohif)]
    assert names == ["Fracture box probability"] * 2


def test_what_was_marked_without_raising_the_priority_is_measured_and_told_plainly(store: Store) -> None:
    made = build(hand(store), store)
    assert list(made) == ["measurement_sr", "text_sr"]
    (headline, named, *_) = values(made["text_sr"], "121073")
    assert headline.startswith("AI marked fracture, by a model that may not raise a priority")
    assert named == "Fracture 70.0 % ± 3.0 % (2 boxes)"
    assert values(made["text_sr"], "121071")[:2] == [
        "Fracture: MARKED, priority not raised.",
        "Fracture: probability 70.0 % ± 3.0 %, operating point 50.0 %.",
    ]
    assert "Fracture: 2 boxes in the measurement report." in values(made["text_sr"], "121071")
    assert values(made["measurement_sr"], "121073") == ["Priority not raised. Fracture 70.0 % ± 3.0 %."]
    assert values(made["measurement_sr"], "125605004") == ["52101004"]
    texts = [text for ds in made.values() for text in all_text(ds)]
    assert not [text for text in texts if "LOW" in text or "FLAGGED" in text or "flagged" in text]
    assert {str(ds.SeriesDescription) for ds in made.values()} == {
        "AI result: measurements (research)",
        "AI result: report (research)",
    }


def test_nothing_marked_is_the_text_alone(store: Store) -> None:
    silent = dataclasses.replace(fracture(probability=0.1), regions=())
    assert list(build(hand(store, silent), store)) == ["text_sr"]


def test_a_report_without_measurements_takes_the_earlier_ones_back(store: Store) -> None:
    before = (
        SentReference("measurement_sr", "1.2.840.10008.5.1.4.1.1.88.33", "2.25.11", "2.25.12"),
        SentReference("text_sr", "1.2.840.10008.5.1.4.1.1.88.22", "2.25.13", "2.25.14"),
    )
    for said, taken_back in ((fracture(), 1), (dataclasses.replace(fracture(probability=0.1), regions=()), 2)):
        text = build(dataclasses.replace(hand(store, said), predecessors=before), store)["text_sr"]
        named = [
            instance
            for entry in text.PredecessorDocumentsSequence
            for series in entry.ReferencedSeriesSequence
            for instance in series.ReferencedSOPSequence
        ]
        assert len(named) == taken_back


def test_no_place_is_told_where_the_site_wants_none(store: Store) -> None:
    made = build(hand(store, priority=HIGH), store, OFF)
    (group,) = groups(made["measurement_sr"])
    assert region_of(group)[:4] == [0.0, 0.0, 255.0, 0.0]
    assert "box" not in " ".join(text for text in all_text(made["text_sr"]))


def test_only_the_picture_shows_boxes_unless_the_site_wants_them_as_regions(store: Store) -> None:
    made = build(hand(store, priority=HIGH), store, HEATMAP)
    (group,) = groups(made["measurement_sr"])
    assert region_of(group)[:4] == [0.0, 0.0, 255.0, 0.0]
    assert "box" not in " ".join(text for text in all_text(made["text_sr"]))
    plain = build(hand(store, priority=HIGH), store, OFF)
    assert made["secondary_capture"].PixelData != plain["secondary_capture"].PixelData


def test_a_flagged_study_shows_its_boxes_in_the_picture(store: Store) -> None:
    made = build(hand(store, priority=HIGH), store)
    assert list(made) == ["measurement_sr", "text_sr", "secondary_capture", "key_objects"]
    said = fracture(FIRST)
    shown = Image.new("L", (256, 256), 90)
    with_box = draw(shown, Picture(HIGH, (said,), said, (256, 256), ()))
    without = draw(shown, Picture(HIGH, (said,), None, (256, 256), ()))
    top, scale = 132, 4  # the banner; 1024 drawn pixels for 256
    changed = np.argwhere((with_box[top : top + 1024] != without[top : top + 1024]).any(axis=2))
    assert len(changed) > 0
    assert (changed.min(axis=0) // scale).tolist() == [28, 38]
    assert (changed.max(axis=0) // scale).tolist() == [91, 121]


def test_a_frame_lies_outside_of_what_it_marks() -> None:
    drawn = np.asarray(boxed(Image.new("L", (512, 256), 90), (Region((30.0, 40.0, 90.0, 120.0), 0.7),), (128, 256)))
    assert (drawn[60:180, 80:240] == 90).all()
    assert (drawn != 90).any()

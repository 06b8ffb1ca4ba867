"""For a viewer that draws no segments, a volume is a rectangle on the slice where it is largest."""

import pytest
from pydicom.dataset import Dataset

from config.settings import ReportSettings, Settings
from ledger.records import StudyFindings
from ledger.store import Store
from sr_writer.build import build_objects
from tests.support.findings import new_store
from tests.support.mr import head, make_mr, measured_study, squares
from tests.support.reports import dataset
from tests.unit.sr_writer.test_result_objects import items, values

MARKS = squares(0, 20, 22, 18, 0)
BOX = Settings(report=ReportSettings(localization="box"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return new_store(tmp_path_factory.mktemp("results"))


def study(store: Store) -> StudyFindings:
    return measured_study(store, make_mr([head(False, 64)] * 5), MARKS)


def report(findings: StudyFindings, store: Store) -> Dataset:
    made = build_objects(findings, store, BOX, "2.25.7", "ohif")
    return dataset(next(one for one in made if one.kind == "measurement_sr"))


def test_the_rectangle_is_around_the_mark_where_it_is_largest(store: Store) -> None:
    findings = study(store)
    ds = report(findings, store)
    (group,) = [item for item in items(ds) if item.ConceptNameCodeSequence[0].CodeValue == "125007"]
    assert group.ContentTemplateSequence[0].TemplateIdentifier == "1410"
    (region,) = [item for item in group.ContentSequence if item.ValueType == "SCOORD"]
    left, top, right, bottom = 8.0, 10.0, 30.0, 32.0  # of the third slice: 22 pixels a side
    assert list(region.GraphicData) == [left, top, right, top, right, bottom, left, bottom, left, top]
    widest = findings.looked_at[2].instance
    image = region.ContentSequence[0].ReferencedSOPSequence[0]
    assert (image.ReferencedSOPInstanceUID, image.ReferencedSOPClassUID) == (
        widest.sop_instance_uid,
        widest.sop_class_uid,
    )


def test_the_volume_comes_first_and_carries_the_coordinates(store: Store) -> None:
    """OHIF takes the geometry of a measurement from its first number, and its name from the comment."""
    ds = report(study(store), store)
    (group,) = [item for item in items(ds) if item.ConceptNameCodeSequence[0].CodeValue == "125007"]
    numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
    assert numbers[0].ConceptNameCodeSequence[0].CodeValue == "118565006"
    (region,) = [item for item in group.ContentSequence if item.ValueType == "SCOORD"]
    (child,) = numbers[0].ContentSequence
    assert list(child.GraphicData) == list(region.GraphicData)
    assert child.RelationshipType == "INFERRED FROM"
    assert child.ContentSequence[0].RelationshipType == "SELECTED FROM"
    assert [text for text in values(ds, "121106") if text.startswith("AI (research): Tumour suspected: volume ")]


def test_the_same_tracking_as_in_the_segmentation(store: Store) -> None:
    made = {one.kind: dataset(one) for one in build_objects(study(store), store, BOX, "2.25.7", "ohif")}
    (uid,) = [
        item.UID for item in items(made["measurement_sr"]) if item.ConceptNameCodeSequence[0].CodeValue == "112040"
    ]
    assert made["segmentation"].SegmentSequence[0].TrackingUID == uid


def test_other_profiles_keep_the_volume_whole(store: Store) -> None:
    made = {one.kind: dataset(one) for one in build_objects(study(store), store, BOX, "2.25.7", "air")}
    groups = [item for item in items(made["measurement_sr"]) if item.ConceptNameCodeSequence[0].CodeValue == "125007"]
    assert [group.ContentTemplateSequence[0].TemplateIdentifier for group in groups] == ["1411"]

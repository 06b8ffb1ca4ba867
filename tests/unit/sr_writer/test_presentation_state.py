"""Marks lie over the source image as the source itself is shown, in its own pixels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage

from config.settings import ReportSettings, Settings
from ledger.records import Code, Region, ResultObject, StudyFindings
from ledger.store import Store
from sr_writer.presentation_state import presentation_state
from tests.support.dx import make_dx
from tests.support.findings import analysed, finding, keep, new_store, study
from tests.support.reports import dataset, report_of

FRACTURE = Code("125605004", "SCT", "Fracture of bone")
BOX = Settings(report=ReportSettings(localization="box"))
REGION = Region((30.25, 40.0, 90.0, 120.5), 0.71)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def marked(store: Store, source: Dataset | None = None) -> StudyFindings:
    said = finding("fracture", 0.9, code=FRACTURE, site=None, regions=(REGION,))
    return study((keep(source or make_dx(), store), [analysed(said)]))


def made(findings: StudyFindings, store: Store, settings: Settings = BOX) -> Dataset:
    one = presentation_state(report_of(findings, store, settings), store)
    assert isinstance(one, ResultObject)
    return dataset(one)


def test_a_box_lies_where_the_detector_drew_it(store: Store) -> None:
    findings = marked(store)
    ds = made(findings, store)
    source = findings.looked_at[0].instance
    (annotation,) = ds.GraphicAnnotationSequence
    (frame,) = annotation.GraphicObjectSequence
    assert list(frame.GraphicData) == [40.0, 30.25, 120.5, 30.25, 120.5, 90.0, 40.0, 90.0, 40.0, 30.25]
    assert (frame.GraphicType, frame.GraphicAnnotationUnits, frame.GraphicFilled) == ("POLYLINE", "PIXEL", "N")
    said = annotation.TextObjectSequence[0].UnformattedTextValue
    assert said == "AI (research): Fracture 90.0 % ± 3.0 %"  # the finding's number: the box is its only one
    assert annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID == source.sop_instance_uid
    assert annotation.GraphicLayer == ds.GraphicLayerSequence[0].GraphicLayer
    series = ds.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == source.series_instance_uid
    assert series.ReferencedImageSequence[0].ReferencedSOPClassUID == source.sop_class_uid
    assert ds.Modality == "PR"


def test_a_heat_map_is_no_box_and_by_default_no_box_is_shown(store: Store) -> None:
    """Then there is no presentation state: a frame around the whole image would mark nothing."""
    for findings, settings in ((marked(store), Settings()), (study((keep(make_dx(), store), [analysed()])), BOX)):
        assert presentation_state(report_of(findings, store, settings), store) is None


def test_the_label_stays_on_the_image(store: Store) -> None:
    for region in (REGION, Region((0.0, 250.0, 20.0, 256.0), 0.6)):
        said = finding("fracture", 0.9, code=FRACTURE, site=None, regions=(region,))
        ds = made(study((keep(make_dx(), store), [analysed(said)])), store)
        (text,) = ds.GraphicAnnotationSequence[0].TextObjectSequence
        left, top = text.BoundingBoxTopLeftHandCorner
        right, bottom = text.BoundingBoxBottomRightHandCorner
        assert 0.0 <= left < right <= 256.0
        assert 0.0 <= top < bottom <= 256.0


@pytest.mark.parametrize(
    ("header", "shape"),
    [({}, "IDENTITY"), ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, "INVERSE")],
)
def test_the_image_looks_as_its_own_header_says(header: dict[str, Any], shape: str, store: Store) -> None:
    """A presentation state replaces the grey pipeline: what it leaves out would be lost."""
    source = make_dx(
        **header, RescaleIntercept="-3", RescaleSlope="2", WindowCenter=["700", "1"], WindowWidth=["90", "2"]
    )
    ds = made(marked(store, source), store)
    assert (ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType) == (-3, 2, "US")
    assert (ds.SoftcopyVOILUTSequence[0].WindowCenter, ds.SoftcopyVOILUTSequence[0].WindowWidth) == (700, 90)
    assert ds.PresentationLUTShape == shape


def test_a_look_up_table_of_the_source_is_carried_over(store: Store) -> None:
    table = Dataset()
    table.LUTDescriptor = [4, 10, 12]
    table.add_new("LUTData", "OW", bytes([0, 0, 1, 2, 3, 4, 255, 15]))
    ds = made(marked(store, make_dx(WindowCenter=None, WindowWidth=None, VOILUTSequence=[table])), store)
    (copied,) = ds.SoftcopyVOILUTSequence[0].VOILUTSequence
    assert list(copied.LUTDescriptor) == [4, 10, 12]
    assert copied.LUTData == bytes([0, 0, 1, 2, 3, 4, 255, 15])


def test_a_table_that_is_not_whole_is_left_out(store: Store) -> None:
    table = Dataset()
    table.LUTDescriptor = [4, 10, 12]
    table.add_new("LUTData", "OW", b"\0\0")
    source = make_dx(WindowCenter=None, WindowWidth=None, VOILUTSequence=[table])
    assert "SoftcopyVOILUTSequence" not in made(marked(store, source), store)


def test_a_colour_image_gets_none(store: Store) -> None:
    source = make_dx(PhotometricInterpretation="RGB")
    assert presentation_state(report_of(marked(store, source), store), store) is None


def test_of_several_frames_the_one_that_was_looked_at_is_marked(store: Store) -> None:
    several = make_dx(SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage, NumberOfFrames=4)
    (image,) = made(marked(store, several), store).GraphicAnnotationSequence[0].ReferencedImageSequence
    assert image.ReferencedFrameNumber == 3
    (image,) = (
        made(marked(store, make_dx(NumberOfFrames=4)), store).GraphicAnnotationSequence[0].ReferencedImageSequence
    )
    assert "ReferencedFrameNumber" not in image, "by its class a DX image has one frame"


def test_the_same_report_gives_the_same_bytes(store: Store) -> None:
    report = report_of(marked(store), store, BOX)
    first, again = presentation_state(report, store), presentation_state(replace(report), store)
    assert first is not None
    assert again is not None
    assert first.content == again.content

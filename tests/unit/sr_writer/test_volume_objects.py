"""What is sent of a volume: the very mask, a measurement tied to it, and words that raise no alarm."""

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from config.settings import Settings
from ledger.records import (
    Code,
    InstanceResults,
    ReportKind,
    ResultObject,
    SentReference,
    SliceMask,
    StudyFindings,
    TriagePriority,
)
from ledger.store import Store
from sr_writer.build import build_objects
from tests.support.dx import make_dx
from tests.support.findings import analysed, finding, keep, new_store, not_assessed, picture, preferred
from tests.support.mr import head, make_mr, measured_study, slice_refused, squares, with_volumes
from tests.support.peers import need

MARKS = squares(0, 20, 22, 18, 0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return new_store(tmp_path_factory.mktemp("results"))


def _series(count: int = 5, **overrides: Any) -> list[Dataset]:
    return make_mr([head(False, 64)] * count, **overrides)


def _build(findings: StudyFindings, store: Store) -> list[ResultObject]:
    return preferred(build_objects(findings, store, Settings(), "2.25.7", "generic-pacs"))


def _kinds(made: Sequence[ResultObject]) -> list[str]:
    return [item.kind for item in made]


def _one(made: Sequence[ResultObject], kind: str) -> Dataset:
    (content,) = [item.content for item in made if item.kind == kind]
    return dcmread(BytesIO(content))


def _texts(ds: Dataset) -> list[str]:
    found = [str(ds.TextValue)] if "TextValue" in ds else []
    return found + [text for item in ds.get("ContentSequence", []) for text in _texts(item)]


def _items(ds: Dataset) -> list[Dataset]:
    return [ds, *(item for child in ds.get("ContentSequence", []) for item in _items(child))]


def _named(ds: Dataset, value: str) -> list[Dataset]:
    return [i for i in _items(ds) if "ConceptNameCodeSequence" in i and i.ConceptNameCodeSequence[0].CodeValue == value]


def _valid(made: Sequence[ResultObject], folder: Path) -> None:
    tool = need("dciodvfy")
    for i, item in enumerate(made):
        path = folder / f"{i}-{item.kind}.dcm"
        path.write_bytes(item.content)
        said = subprocess.run([tool, "-new", str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in said.stdout + said.stderr, said.stdout + said.stderr
        assert any(name in said.stdout + said.stderr for name in ("SR", "Segmentation", "SCImage", "KeyObject"))


def test_the_segmentation_gives_back_the_very_masks_at_their_slices(store: Store, tmp_path: Path) -> None:
    series = _series()
    made = _build(measured_study(store, series, MARKS), store)
    assert _kinds(made) == ["measurement_sr", "text_sr", "segmentation"]
    seg = hd.seg.segread(BytesIO(made[2].content))
    back = seg.get_pixels_by_source_instance([ds.SOPInstanceUID for ds in series[1:4]], combine_segments=False)
    assert np.array_equal(back[..., 0], np.stack([mark for mark in MARKS if mark is not None]))
    assert seg.number_of_segments == 1
    assert seg.segmentation_type is hd.seg.SegmentationTypeValues.BINARY
    assert seg.FrameOfReferenceUID == series[0].FrameOfReferenceUID
    assert seg.StudyInstanceUID == series[0].StudyInstanceUID
    assert seg.PatientID == series[0].PatientID
    geometry = seg.get_volume_geometry()
    assert geometry is not None
    assert geometry.spacing == pytest.approx((5.0, 0.9375, 0.9375))
    described = seg.get_segment_description(1)
    assert described.segmented_property_type.value == "108369006"
    assert described.segmented_property_category.value == "49755003"
    assert described.algorithm_type is hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
    assert described.anatomic_regions[0].value == "12738006"
    assert {ds.ReferencedSOPInstanceUID for ds in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence} == {
        ds.SOPInstanceUID for ds in series[1:4]
    }
    _valid(made, tmp_path)


def test_the_measurement_names_the_segment_its_volume_and_its_evidence(store: Store) -> None:
    series = _series()
    findings = measured_study(store, series, MARKS)
    made = _build(findings, store)
    report, seg = _one(made, "measurement_sr"), _one(made, "segmentation")
    (number,) = _named(report, "118565006")
    measured = number.MeasuredValueSequence[0]
    pixels = sum(int(mark.sum()) for mark in MARKS if mark is not None)
    assert float(measured.NumericValue) == pytest.approx(pixels * 0.9375**2 * 5 / 1000, abs=0.001)
    assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "ml"
    (reference,) = _named(report, "121191")
    assert reference.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == seg.SOPInstanceUID
    assert reference.ReferencedSOPSequence[0].ReferencedSegmentNumber == 1
    assert series[0].SeriesInstanceUID == _named(report, "121232")[0].UID
    assert seg.SegmentSequence[0].TrackingUID == _named(report, "112040")[0].UID
    assert _named(report, "363698007")[0].ConceptCodeSequence[0].CodeValue == "12738006"
    assert _named(report, "108369006")[0].ConceptCodeSequence[0].CodeMeaning == "Present"
    evidence = {
        image.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for one in study.ReferencedSeriesSequence
        for image in one.ReferencedSOPSequence
    }
    assert evidence == {seg.SOPInstanceUID, *(ds.SOPInstanceUID for ds in series)}
    assert not _named(report, "111030"), "no slice has a group of its own"


def test_no_alarm_and_never_the_all_clear(store: Store) -> None:
    suspected = _build(measured_study(store, _series(), MARKS), store)
    absent = _build(measured_study(store, _series(3), squares(0, 0, 0)), store)
    assert _kinds(absent) == ["text_sr"]
    said = _texts(_one(suspected, "text_sr"))
    assert any(line.startswith("Tumour suspected: volume 5.3 ml in 3 of 5 slices, contiguous.") for line in said)
    assert any(line.endswith("No alarm is raised by this model.") for line in said)
    nothing = _texts(_one(absent, "text_sr"))
    assert "Tumour: not found in 3 slices; other disease was not looked for." in nothing
    for line in (*said, *nothing, *_texts(_one(suspected, "measurement_sr"))):
        assert "LOW" not in line
        assert "normal" not in line.lower()
    assert all("TRIAGE" not in _one(suspected, kind).SeriesDescription for kind in _kinds(suspected))


def test_a_mark_that_is_too_little_is_shown_and_called_absent(store: Store, tmp_path: Path) -> None:
    made = _build(measured_study(store, _series(), squares(0, 0, 12, 0, 0)), store)
    assert _kinds(made) == ["measurement_sr", "text_sr", "segmentation"]
    assert _named(_one(made, "measurement_sr"), "108369006")[0].ConceptCodeSequence[0].CodeMeaning == "Absent"
    said = " ".join(_texts(_one(made, "text_sr")))
    assert "not found in 5 slices; other disease was not looked for. 1 of 5 slices marked, volume 0.63 ml" in said
    assert "the model asks for 2 contiguous slices and 0.5 ml" in said
    assert "suspected" not in said
    _valid(made, tmp_path)


def test_marks_without_a_place_are_told_and_not_drawn(store: Store, tmp_path: Path) -> None:
    made = _build(measured_study(store, _series(ImagePositionPatient=None), MARKS), store)
    assert _kinds(made) == ["text_sr"]
    said = " ".join(_texts(_one(made, "text_sr")))
    assert "Tumour: cannot be determined. 3 slices with a mark have no position in the header" in said
    assert "AI marked tumour" in said
    _valid(made, tmp_path)


def test_without_spacing_nothing_is_drawn_and_nothing_denied(store: Store) -> None:
    made = _build(measured_study(store, _series(PixelSpacing=None), MARKS), store)
    assert _kinds(made) == ["text_sr"]
    assert "The header does not give the spacing" in " ".join(_texts(_one(made, "text_sr")))


def test_a_lost_mask_costs_the_segmentation_not_the_report(store: Store) -> None:
    findings = measured_study(store, _series(), MARKS)
    store.path(findings.volumes[0].slices[0][1].path).unlink()
    assert _kinds(_build(findings, store)) == ["text_sr"]


def test_the_same_findings_are_the_same_bytes(store: Store) -> None:
    findings = measured_study(store, _series(), MARKS)
    assert [item.content for item in _build(findings, store)] == [item.content for item in _build(findings, store)]


def _labelled(findings: StudyFindings, store: Store) -> StudyFindings:
    """Every slice also has a second label, the mask of the first moved by one row."""
    looked_at = []
    for item in findings.looked_at:
        result = item.results[0]
        second = replace(result.findings[0], label="oedema", code=Code("79654002", "SCT", "Edema"))
        masks = tuple(SliceMask("oedema", mask.path, mask.pixels) for mask in result.masks)
        result = replace(result, findings=(*result.findings, second), masks=(*result.masks, *masks))
        looked_at.append(InstanceResults(item.instance, (result,)))
    return with_volumes(replace(findings, looked_at=tuple(looked_at)), store)


def test_every_label_is_a_segment_and_every_series_an_object(store: Store, tmp_path: Path) -> None:
    one = _labelled(measured_study(store, _series(), MARKS), store)
    two = measured_study(store, _series(StudyInstanceUID=one.study_instance_uid), squares(0, 0, 30, 30, 30))
    both = with_volumes(replace(one, looked_at=(*one.looked_at, *two.looked_at)), store)
    made = _build(both, store)
    assert _kinds(made) == ["measurement_sr", "text_sr", "segmentation", "segmentation"]
    segs = [hd.seg.segread(BytesIO(item.content)) for item in made[2:]]
    assert len({seg.SOPInstanceUID for seg in segs} | {seg.SeriesInstanceUID for seg in segs}) == 4
    assert sorted(seg.number_of_segments for seg in segs) == [1, 2]
    report = _one(made, "measurement_sr")
    assert len(_named(report, "118565006")) == 3
    assert len({item.UID for item in _named(report, "112040")}) == 3
    assert "(series 1 of 2, " in " ".join(_texts(_one(made, "text_sr")))
    _valid(made, tmp_path)


def test_a_chest_and_a_head_of_one_study_are_reported_in_one_go(store: Store, tmp_path: Path) -> None:
    chest = make_dx()
    result = analysed(finding(), display_path=picture(store, chest))
    mr = measured_study(store, _series(StudyInstanceUID=chest.StudyInstanceUID), MARKS)
    chest_first = (InstanceResults(keep(chest, store), (result,)), *mr.looked_at)
    findings = with_volumes(replace(mr, looked_at=chest_first, priority=TriagePriority.HIGH), store)
    made = _build(findings, store)
    assert _kinds(made) == ["measurement_sr", "text_sr", "secondary_capture", "key_objects", "segmentation"]
    report = _one(made, "measurement_sr")
    assert report.SeriesDescription.startswith("AI TRIAGE HIGH")
    assert len(_named(report, "125007")) == 2
    assert len(_named(report, "111030")) == 1
    said = " ".join(_texts(_one(made, "text_sr")))
    assert "Pneumonia 93.1 %" in said
    assert "Tumour suspected" in said
    assert "image 1 of" not in said, "slices are not counted among the images"
    assert _one(made, "segmentation").BodyPartExamined == "BRAIN"
    assert _one(made, "secondary_capture").BodyPartExamined == "CHEST"
    _valid(made, tmp_path)


def test_a_provisional_report_promises_the_series(store: Store) -> None:
    chest = make_dx()
    mr = measured_study(store, _series(StudyInstanceUID=chest.StudyInstanceUID), MARKS)
    looked_at = (InstanceResults(keep(chest, store), (analysed(finding()),)), *mr.looked_at)
    refused = InstanceResults(mr.looked_at[0].instance, (replace(slice_refused(), recommendations=("READ IT",)),))
    looked_at = (looked_at[0], refused, *looked_at[2:])
    early = replace(mr, looked_at=looked_at, priority=TriagePriority.HIGH, kind=ReportKind.PROVISIONAL, volumes=())
    made = _build(early, store)
    assert _kinds(made) == ["measurement_sr", "text_sr", "secondary_capture", "key_objects"]
    said = " ".join(_texts(_one(made, "text_sr")))
    assert "Series that are read slice by slice are reported when the study is complete." in said
    assert "umour" not in said
    assert "one grey" not in said
    assert "READ IT" not in said
    assert "could not be assessed" not in said
    assert not _named(_one(made, "text_sr"), "111101")


def test_slices_that_could_not_be_looked_at_take_one_line(store: Store) -> None:
    findings = measured_study(store, _series(), squares(0, 0, 0, 0, 0))
    made = _build(_with_refused(findings, store, 3, 4, priority=TriagePriority.NOT_ASSESSED), store)
    said = _texts(_one(made, "text_sr"))
    assert "AI triage cannot assess 2 of 5 slices: The image shows one grey only" in said
    assert "2 of 5 slices could not be assessed: The image shows one grey only" in said
    assert sum("one grey" in line for line in said) == 2
    assert any(line.startswith("Tumour: cannot be determined. 2 of 5 slices could not be assessed.") for line in said)
    assert "READ IT" in said
    assert _named(_one(made, "text_sr"), "111101")[0].ConceptCodeSequence[0].CodeValue == "RID14"
    assert _one(made, "text_sr").SeriesDescription == "AI result: not assessed (research)"
    assert _one(made, "text_sr").CompletionFlag == "PARTIAL"


def _with_refused(findings: StudyFindings, store: Store, *numbers: int, **changes: Any) -> StudyFindings:
    """Slices of these numbers were refused, in all the words that a node gives them."""
    refused = replace(slice_refused(), recommendations=("READ IT",))
    looked_at = tuple(
        InstanceResults(item.instance, (refused,)) if i in numbers else item
        for i, item in enumerate(findings.looked_at)
    )
    return with_volumes(replace(findings, looked_at=looked_at, volumes=(), **changes), store)


def test_a_refused_slice_of_a_marked_volume_is_a_remark_and_never_the_headline(store: Store, tmp_path: Path) -> None:
    marks = [None] * 8 + squares(20, 22, 18) + [None] * 9
    findings = _with_refused(measured_study(store, _series(20), marks), store, 0, 19)
    made = _build(findings, store)
    assert _kinds(made) == ["measurement_sr", "text_sr", "segmentation"]
    text, measured = _one(made, "text_sr"), _one(made, "measurement_sr")
    impressions = [str(item.TextValue) for item in _named(text, "121073")]
    assert impressions[0].startswith("AI marked tumour, by a model that may not raise a priority")
    assert impressions[1].startswith("Tumour suspected: volume 5.3 ml in 3 of 20 slices, contiguous.")
    remark = "2 of 20 slices could not be assessed: The image shows one grey only"
    assert impressions[2] == remark
    assert text.SeriesDescription == "AI result: tumour marked (research)"
    for ds in (text, measured):
        assert ds.CompletionFlag == "COMPLETE"
        assert remark in _texts(ds)
        assert not _named(ds, "111101"), "Image Quality of a slice is not that of the study"
        assert "READ IT" not in " ".join(_texts(ds))
        assert not any("cannot assess" in line.lower() for line in _texts(ds))
    assert _named(measured, "108369006")[0].ConceptCodeSequence[0].CodeMeaning == "Present"
    _valid(made, tmp_path)


def test_findings_have_a_line_for_each_reason_since_viewers_cut_long_ones_off(store: Store) -> None:
    findings = _with_refused(measured_study(store, _series(20), [*squares(20, 22, 18), *[None] * 17]), store, 18, 19)
    odd = replace(slice_refused(), reason="It is odd.")
    last = InstanceResults(findings.looked_at[19].instance, (odd,))
    findings = with_volumes(replace(findings, looked_at=(*findings.looked_at[:19], last)), store)
    text = _one(_build(findings, store), "text_sr")
    both = "2 of 20 slices could not be assessed: It is odd (1); The image shows one grey only (1)"
    assert both in [str(item.TextValue) for item in _named(text, "121073")]
    said = [str(item.TextValue) for item in _named(text, "121071")]
    assert [line for line in said if "could not be assessed" in line] == [
        "1 of 20 slices could not be assessed: It is odd",
        "1 of 20 slices could not be assessed: The image shows one grey only",
    ]


def test_nothing_is_denied_of_slices_that_were_refused(store: Store) -> None:
    findings = _with_refused(measured_study(store, _series(10), [None] * 10), store, 9)
    (made,) = _build(findings, store)
    ds = dcmread(BytesIO(made.content))
    said = _texts(ds)
    assert _named(ds, "121073")[0].TextValue == "AI triage: no flagged finding; other disease was not looked for."
    assert "1 of 10 slices could not be assessed: The image shows one grey only" in said
    assert any(line.startswith("Tumour: cannot be determined. 1 of 10 slices could not be assessed.") for line in said)


def test_a_remark_names_its_series_where_there_are_several(store: Store) -> None:
    one = measured_study(store, _series(), MARKS)
    two = measured_study(store, _series(10, StudyInstanceUID=one.study_instance_uid), [None] * 10)
    two = _with_refused(two, store, 0)
    both = with_volumes(replace(one, looked_at=(*one.looked_at, *two.looked_at)), store)
    said = _texts(_one(_build(both, store), "text_sr"))
    uid = two.looked_at[0].instance.series_instance_uid
    assert f"1 of 10 slices of series {uid} could not be assessed: The image shows one grey only" in said


def test_an_image_that_could_not_be_judged_stays_the_headline_beside_a_volume(store: Store) -> None:
    chest = make_dx()
    mr = measured_study(store, _series(20, StudyInstanceUID=chest.StudyInstanceUID), [None] * 17 + squares(20, 22, 18))
    mr = _with_refused(mr, store, 0)
    unjudged = InstanceResults(keep(chest, store), (not_assessed("The age is not known.", "age_unknown"),))
    both = replace(mr, looked_at=(unjudged, *mr.looked_at), priority=TriagePriority.NOT_ASSESSED)
    text = _one(_build(with_volumes(both, store), store), "text_sr")
    assert _named(text, "121073")[0].TextValue == "AI triage cannot assess: The age is not known"
    assert text.SeriesDescription == "AI result: not assessed (research)"
    assert [item.ConceptCodeSequence[0].CodeValue for item in _named(text, "NOT_ASSESSED")] == ["AGE_UNKNOWN"]
    assert not _named(text, "111101")


def test_a_revision_follows_the_measurements_before_it(store: Store) -> None:
    before = (
        SentReference("measurement_sr", "1.2.840.10008.5.1.4.1.1.88.33", "2.25.11", "2.25.12"),
        SentReference("text_sr", "1.2.840.10008.5.1.4.1.1.88.22", "2.25.13", "2.25.14"),
        SentReference("segmentation", "1.2.840.10008.5.1.4.1.1.66.4", "2.25.15", "2.25.16"),
    )
    made = _build(measured_study(store, _series(), MARKS, predecessors=before), store)
    for kind, uid in (("measurement_sr", "2.25.11"), ("text_sr", "2.25.13")):
        (study,) = _one(made, kind).PredecessorDocumentsSequence
        assert [
            r.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for r in s.ReferencedSOPSequence
        ] == [uid]
    assert "PredecessorDocumentsSequence" not in _one(made, "segmentation")


def test_a_lossy_slice_that_is_not_square_keeps_its_shape(store: Store, tmp_path: Path) -> None:
    series = make_mr(
        [np.full((48, 80), 40, np.uint16)] * 3,
        PixelSpacing=[0.71234567891234, 1.31234567891234],
        LossyImageCompression="01",
        LossyImageCompressionRatio="12.5",
        LossyImageCompressionMethod="ISO_10918_1",
        BodyPartExamined=None,
        SliceThickness=None,
    )
    marks: list[NDArray[np.bool_] | None] = [np.zeros((48, 80), np.bool_) for _ in range(3)]
    for mark in marks:
        assert mark is not None
        mark[10:40, 50:79] = True
    made = _build(measured_study(store, series, marks), store)
    seg = hd.seg.segread(BytesIO(made[2].content))
    back = seg.get_pixels_by_source_instance([ds.SOPInstanceUID for ds in series], combine_segments=False)
    assert np.array_equal(back[..., 0], np.stack([mark for mark in marks if mark is not None]))
    assert seg.LossyImageCompression == "01"
    assert seg.BodyPartExamined == "BRAIN"  # by where the finding sits
    _valid(made, tmp_path)


def test_passes_that_agree_closely_are_not_said_to_agree_wholly(store: Store) -> None:
    """As of a single image: an sd is never 0.0 in words."""
    findings = measured_study(store, _series(), MARKS)
    sure = replace(findings, volumes=tuple(replace(one, probability_sd=0.0002) for one in findings.volumes))
    for kind in ("text_sr", "measurement_sr"):
        said = " ".join(_texts(_one(_build(sure, store), kind)))
        assert "± <0.1 %" in said
        assert "± 0.0 %" not in said

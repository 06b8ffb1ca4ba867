"""A series has a finding by volume and contiguous slices, never by its worst slice."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from inference.slices import Geometry, read_geometry, slice_distance, stacks
from inference.volume import volumes_of
from ledger.records import ImageResult, InstanceRef, InstanceResults, VolumeFinding, VolumeRule
from ledger.store import Store
from tests.support.findings import MODEL, analysed, keep
from tests.support.mr import (
    DISTANCE_MM,
    SLICE_MODEL,
    SPACING_MM,
    head,
    make_mr,
    slice_refused,
    slice_result,
)

PIXEL_ML = SPACING_MM**2 * DISTANCE_MM / 1000.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", fsync=lambda descriptor: None)
    made.prepare()
    return made


def _series(count: int, **overrides: Any) -> list[Dataset]:
    return make_mr([head(False, 32)] * count, **overrides)


def _said(store: Store, series: Sequence[Dataset], results: Sequence[ImageResult]) -> tuple[VolumeFinding, ...]:
    looked_at = [
        InstanceResults(replace(keep(ds, store), instance_id=i), (result,))
        for i, (ds, result) in enumerate(zip(series, results, strict=True))
    ]
    return volumes_of(looked_at, lambda ref: _place(store, ref))


def _place(store: Store, ref: InstanceRef) -> Geometry:
    return read_geometry(store.path(ref.path))


def _one(store: Store, series: Sequence[Dataset], marks: Sequence[int], **result: Any) -> VolumeFinding:
    (found,) = _said(store, series, [slice_result(n, 0.9 if n else 0.1, **result) for n in marks])
    return found


def test_contiguous_marked_slices_make_a_volume(store: Store) -> None:
    found = _one(store, _series(5), [0, 100, 200, 300, 0])
    assert found.present
    assert found.longest_run == 3
    assert found.volume_ml == pytest.approx(600 * PIXEL_ML)
    assert [mask.pixels for _, mask in found.slices] == [100, 200, 300]
    assert found.slices_looked_at == 5
    assert found.probability == pytest.approx(0.9)
    assert found.ordered
    assert not found.undetermined
    assert not found.remark


def test_one_glaring_slice_is_no_finding_of_the_series(store: Store) -> None:
    found = _one(store, _series(5), [0, 0, 5000, 0, 0])
    assert not found.present
    assert found.longest_run == 1
    assert not found.undetermined


def test_scattered_slices_are_no_run(store: Store) -> None:
    assert _one(store, _series(5), [400, 0, 400, 0, 400]).longest_run == 1


def test_a_small_volume_is_no_finding_however_many_slices(store: Store) -> None:
    few = int(0.5 / PIXEL_ML)
    assert not _one(store, _series(3), [1, 1, 1]).present
    assert not _one(store, _series(2), [few // 2, few // 2]).present
    assert _one(store, _series(2), [few, few]).present


def test_the_order_is_that_of_the_position_not_of_arrival_or_number(store: Store) -> None:
    series = _series(4)
    for ds, number in zip(series, (3, 1, 4, 2), strict=True):
        ds.InstanceNumber = number
    mixed = [series[2], series[0], series[3], series[1]]
    found = _one(store, mixed, [300, 0, 0, 300])  # slices 2 and 1 of four: neighbours
    assert found.longest_run == 2
    assert [ref.sop_instance_uid for ref, _ in found.slices] == [series[1].SOPInstanceUID, series[2].SOPInstanceUID]


def test_a_missing_slice_ends_a_run(store: Store) -> None:
    series = _series(6)
    del series[3]
    assert _one(store, series, [0, 0, 300, 300, 0]).longest_run == 1


def test_uneven_positions_within_half_a_slice_still_touch(store: Store) -> None:
    series = _series(4)
    for ds, z in zip(series, (0.0, 5.0, 12.4, 17.4), strict=True):
        ds.ImagePositionPatient = [0.0, 0.0, z]
    assert _one(store, series, [300, 300, 300, 300]).longest_run == 4


def test_a_mark_that_the_slices_own_score_does_not_believe_in_does_not_count(store: Store) -> None:
    found = _said(store, _series(3), [slice_result(900, 0.9), slice_result(900, 0.2), slice_result(900, 0.9)])[0]
    assert found.longest_run == 1
    assert found.volume_ml == pytest.approx(1800 * PIXEL_ML)


def test_the_distance_counts_not_the_thickness(store: Store) -> None:
    series = _series(3, SliceThickness=3.0, SpacingBetweenSlices=None)
    assert _one(store, series, [100, 100, 100]).volume_ml == pytest.approx(300 * PIXEL_ML)


def test_without_spacing_the_volume_is_unknown_and_nothing_is_denied(store: Store) -> None:
    found = _one(store, _series(3, PixelSpacing=None), [300, 300, 300])
    assert found.volume_ml is None
    assert not found.present
    assert found.undetermined
    assert "spacing" in found.remark


def test_without_spacing_a_run_is_enough_where_no_volume_is_asked_for(store: Store) -> None:
    model = replace(SLICE_MODEL, volume_rule=VolumeRule(2, 0.0))
    assert _one(store, _series(3, PixelSpacing=None), [300, 300, 300], model=model).present


def test_nothing_marked_is_absent_even_without_geometry(store: Store) -> None:
    found = _one(store, _series(3, PixelSpacing=None, ImagePositionPatient=None), [0, 0, 0])
    assert not found.present
    assert not found.undetermined
    assert found.volume_ml == 0.0


@pytest.mark.parametrize(
    "broken",
    [
        {"ImagePositionPatient": None},
        {"ImageOrientationPatient": None},
        {"ImageOrientationPatient": [0.0] * 6},
        {"ImageOrientationPatient": [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]},
    ],
)
def test_marked_slices_without_a_place_are_neither_present_nor_absent(broken: dict[str, Any], store: Store) -> None:
    found = _one(store, _series(3, **broken), [300, 300, 300])
    assert not found.present
    assert found.undetermined
    assert not found.ordered
    assert "no position" in found.remark
    assert len(found.slices) == 3


def test_two_acquisitions_of_a_position_are_never_summed(store: Store) -> None:
    series = _series(3)
    again = _series(3, AcquisitionNumber=2)
    for ds in again:
        ds.SeriesInstanceUID, ds.FrameOfReferenceUID = series[0].SeriesInstanceUID, series[0].FrameOfReferenceUID
        ds.StudyInstanceUID = series[0].StudyInstanceUID
    found = _one(store, [*series, *again], [100, 100, 0, 200, 200, 0])
    assert found.volume_ml == pytest.approx(400 * PIXEL_ML)
    assert found.longest_run == 2
    assert found.slices_looked_at == 6
    assert "2 stacks" in found.remark


def test_orientations_are_measured_apart(store: Store) -> None:
    series = _series(6)
    for i, ds in enumerate(series[3:]):
        ds.ImageOrientationPatient = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
        ds.ImagePositionPatient = [-40.0 + 5.0 * i, 0.0, 0.0]
    found = _one(store, series, [0, 50, 300, 300, 0, 0])
    assert found.longest_run == 2
    assert found.volume_ml == pytest.approx(350 * PIXEL_ML)
    assert "2 stacks" in found.remark


def test_a_slice_nobody_could_look_at_leaves_an_absent_series_undetermined(store: Store) -> None:
    results = [slice_result(0, 0.1), slice_refused(), slice_result(0, 0.1)]
    found = _said(store, _series(3), results)[0]
    assert found.undetermined
    assert found.slices_unjudged == 1
    results = [slice_result(400), slice_refused(), slice_result(400)]
    assert _said(store, _series(3), results)[0].longest_run == 1
    results = [slice_result(400), slice_result(400), slice_refused()]
    present = _said(store, _series(3), results)[0]
    assert present.present
    assert not present.undetermined


def test_series_and_models_are_counted_apart_and_radiographs_not_at_all(store: Store) -> None:
    one, other = _series(2), _series(2)
    second = replace(SLICE_MODEL, name="other", digest="01" * 32)
    results = [
        slice_result(400),
        slice_result(400),
        slice_result(400, model=second),
        slice_result(0, 0.1, model=second),
    ]
    found = {item.model.name: item for item in _said(store, [*one, *other], results)}
    assert found["tiny-brain"].present
    assert not found["other"].present
    assert found["other"].series_instance_uid == other[0].SeriesInstanceUID
    looked_at = [
        InstanceResults(keep(ds, store), (slice_result(400), slice_result(0, 0.1, model=second))) for ds in one
    ]
    twice = {item.model.name: item.present for item in volumes_of(looked_at, lambda ref: _place(store, ref))}
    assert twice == {"tiny-brain": True, "other": False}
    assert _said(store, _series(2), [analysed(model=MODEL)] * 2) == ()
    assert _said(store, _series(2), [slice_refused()] * 2) == ()


def test_other_bytes_under_the_same_uid_count_once(store: Store) -> None:
    series = _series(3)
    series[2].SOPInstanceUID = series[1].SOPInstanceUID
    found = _one(store, series, [400, 400, 0])
    assert found.slices_looked_at == 2
    assert found.longest_run == 2, "the first bytes speak"


def test_a_single_slice_stands_for_its_thickness(store: Store, tmp_path: Path) -> None:
    geometry = read_geometry(store.path(keep(_series(1)[0], store).path))
    assert slice_distance([geometry]) == DISTANCE_MM
    assert stacks([geometry]) == [[0]]
    (tmp_path / "garbage").write_bytes(b"\0" * 300)
    assert not read_geometry(tmp_path / "garbage").placed
    assert not read_geometry(tmp_path / "absent").placed

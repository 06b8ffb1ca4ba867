"""A box from a heat map: around its strongest evidence, in the picture alone, and of a model that points well."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from config.settings import ReportSettings, Settings
from ledger.records import ActivationMap, ResultObject
from ledger.store import Store
from sr_writer.build import build_objects
from sr_writer.map_box import box_around_peak
from tests.support.dx import make_dx
from tests.support.findings import analysed, blob, finding, keep, new_store, picture, study
from tests.unit.sr_writer.test_boxes import groups, region_of

SIZE = (256, 256)
HEATMAP, BOX = (Settings(report=ReportSettings(localization=which)) for which in ("heatmap", "box"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path)


def planted(
    rows: slice, columns: slice, box: tuple[float, float, float, float] = (0.0, 0.0, 256.0, 256.0)
) -> ActivationMap:
    values = np.full((8, 8), -1.0)
    values[rows, columns] = 4.0
    return ActivationMap(tuple(tuple(map(float, row)) for row in values), box)


def test_a_planted_square_is_framed_where_it_lies() -> None:
    assert box_around_peak(planted(slice(2, 4), slice(5, 8)), SIZE) == (64.0, 160.0, 128.0, 256.0)


def test_a_letterboxed_map_is_framed_in_pixels_of_the_source_and_cut_at_its_border() -> None:
    wide = (-64.0, 0.0, 192.0, 256.0)  # a source of 128 rows, padded above and below
    assert box_around_peak(planted(slice(3, 7), slice(0, 1), wide), (128, 256)) == (32.0, 0.0, 128.0, 32.0)
    assert box_around_peak(planted(slice(0, 2), slice(0, 1), wide), (128, 256)) is None  # in the padding


def test_only_what_hangs_together_with_the_peak_is_framed() -> None:
    values = np.asarray(planted(slice(1, 2), slice(1, 2)).values)
    values[6, 6] = 3.9
    apart = ActivationMap(tuple(tuple(map(float, row)) for row in values), (0.0, 0.0, 256.0, 256.0))
    assert box_around_peak(apart, SIZE) == (32.0, 32.0, 64.0, 64.0)


def test_no_evidence_is_no_box() -> None:
    assert box_around_peak(ActivationMap(((-1.0, 0.0), (0.0, -3.0)), (0.0, 0.0, 256.0, 256.0)), SIZE) is None


def made(store: Store, settings: Settings, accuracy: float | None) -> list[ResultObject]:
    source = make_dx()
    said = finding(activation=blob(), pointing_accuracy=accuracy)
    findings = study((keep(source, store), [analysed(said, display_path=picture(store, source))]))
    return build_objects(findings, store, settings, "2.25.7", "generic-pacs")


def pixels(store: Store, settings: Settings, accuracy: float | None) -> NDArray[np.uint8]:
    every = made(store, settings, accuracy)
    return dcmread(BytesIO(next(item.content for item in every if item.kind == "secondary_capture"))).pixel_array


def test_the_picture_shows_it_where_the_site_wants_boxes_and_the_model_points_well(store: Store) -> None:
    plain = pixels(store, HEATMAP, 0.8)
    assert np.array_equal(pixels(store, BOX, None)[:1150], plain[:1150])
    framed = pixels(store, BOX, 0.8)
    assert not np.array_equal(framed[:1150], plain[:1150])


def test_it_is_never_a_region_that_a_reader_could_track(store: Store) -> None:
    report = next(item for item in made(store, BOX, 0.8) if item.kind == "measurement_sr")
    for group in groups(dcmread(BytesIO(report.content))):
        assert region_of(group) == [0.0, 0.0, 255.0, 0.0, 255.0, 255.0, 0.0, 255.0, 0.0, 0.0]


def test_padding_is_not_where_a_model_points() -> None:
    """To a model that looks for what is dark, a letterbox's padding is the strongest evidence of all."""
    wide = (-64.0, 0.0, 192.0, 256.0)
    values = np.asarray(planted(slice(3, 4), slice(5, 6), wide).values)
    values[:2] = 9.0
    padded = ActivationMap(tuple(tuple(map(float, row)) for row in values), wide)
    assert box_around_peak(padded, (128, 256)) == (32.0, 160.0, 64.0, 192.0)

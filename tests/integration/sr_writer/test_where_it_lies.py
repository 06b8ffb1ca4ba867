"""What is planted in an image is drawn and told where it was planted, within one cell of the model's grid.

The real path: a DX file, decoded in a child, fitted to the model's input, seen in its views, read by its task, written
as Secondary Capture, Structured Report and presentation state.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, EnhancedSRStorage

from config.settings import DecideSettings, LookSettings, ReportSettings, Settings
from inference.analyser import Analyser, Source
from inference.package import load_packages
from ledger.records import ImageResult, InstanceRef
from ledger.store import Store
from sr_writer.build import build_objects
from sr_writer.picture import BANNER_HEIGHT, IMAGE_SIDE, MIN_WIDTH
from sr_writer.profiles import Plan
from tests.support.detectors import tiny_detector, write_detector
from tests.support.dx import make_dx
from tests.support.findings import keep, new_store, study
from tests.support.packages import GRID, SIDE, label, tiny_model, write_package
from tests.support.reports import dataset
from tests.unit.sr_writer.test_result_objects import items

SQUARE = 112  # pixels: half as much again as a cell, so that some cell sees little else
LANDSCAPE, PORTRAIT = (300, 518), (518, 300)
VIEWS = ["as_is", "mirrored", "closer", "left"]
PLACES = {"upper left": (0.0, 0.0), "lower right": (1.0, 1.0), "middle": (0.4, 0.55)}  # of the room for the square
OF_A_MAP = 0.4  # of a cell: what is promised is one, but a map of few cells drawn at a wrong scale is hardly more off
MAPS = {
    "bright-squash": {"fit": "squash"},
    "bright-letterbox": {"fit": "letterbox"},
    "views-squash": {"fit": "squash", "test_time": VIEWS},
    "views-letterbox": {"fit": "letterbox", "test_time": VIEWS},
    "dark-squash": {"fit": "squash"},
    "dark-letterbox": {"fit": "letterbox"},
}
FRAMES = {"bright-framed": "squash", "dark-framed": "letterbox"}  # models whose pointing was measured
BOXES = {"boxes-squash": "squash", "boxes-letterbox": "letterbox"}
SEEN_BRIGHT = [*[name for name in MAPS if "dark" not in name], *BOXES]
CHEST: dict[str, Any] = {"body_parts": ["CHEST"], "modalities": ["DX"], "ages_years": None, "views": []}
SETTINGS = {
    "report": ReportSettings(localization="box"),
    "decide": DecideSettings(high_probability=0.5),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return new_store(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def analyser(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Analyser]:
    """Packages that mark what is bright, and what is dark, fitted in both ways; detectors of what is bright."""
    root = tmp_path_factory.mktemp("models")
    for name, spec in MAPS.items():
        gain = -8.0 if name.startswith("dark") else 8.0
        write_package(root, name, model=tiny_model(gain=gain, offset=12.0), input_spec=spec, reads=CHEST)
    pointing = {"accuracy": 0.8, "images": 100, "measured_on": "nothing"}
    for name, fit in FRAMES.items():
        model = tiny_model(gain=-8.0 if name.startswith("dark") else 8.0, offset=12.0)
        labels = [{**label(), "pointing_accuracy": pointing}]
        write_package(root, name, model=model, input_spec={"fit": fit}, reads=CHEST, labels=labels)
    for name, fit in BOXES.items():
        detection = {"box_threshold": 0.9, "max_boxes": 1}
        model, reads = tiny_detector(gain=30.0), {**CHEST, "min_side_pixels": 128}
        write_detector(
            root, name, model, input_spec={"fit": fit}, reads=reads, detection=detection, may_raise_priority=True
        )
    look = LookSettings(models_dir=root, threads=1)
    made = Analyser(Settings(look=look, **SETTINGS), load_packages(look), store, children=1)
    yield made
    made.close()


class Planted:
    """A grey image with one square in it. centre: (row, column) in pixels; bright or dark to the eye."""

    def __init__(self, shape: tuple[int, int], place: tuple[float, float], bright: bool, monochrome1: bool) -> None:
        self.shape = shape
        top, left = (round(share * (side - SQUARE)) for share, side in zip(place, shape, strict=True))
        self.centre = (top + SQUARE / 2, left + SQUARE / 2)
        seen = np.full(shape, 200 if bright else 3800, np.uint16)
        seen[top : top + SQUARE, left : left + SQUARE] = 4000 if bright else 100
        inverted = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
        self.source = make_dx(4095 - seen if monochrome1 else seen, **(inverted if monochrome1 else {}))

    def cell(self, fit: str) -> tuple[float, float]:
        """(rows, columns) of the source in one cell of the model's grid."""
        rows, columns = self.shape if fit == "squash" else (max(self.shape), max(self.shape))
        return rows / GRID, columns / GRID


def looked_at(planted: Planted, analyser: Analyser, store: Store) -> tuple[InstanceRef, dict[str, ImageResult]]:
    instance = keep(planted.source, store)
    (looked,) = analyser.analyse([Source(store.path(instance.path))])
    return instance, {result.model.name: result for result in looked.results if result.model}


def objects(instance: InstanceRef, result: ImageResult, store: Store) -> dict[str, Dataset]:
    classes = {"measurement_sr": (ComprehensiveSRStorage,), "text_sr": (EnhancedSRStorage,)}
    plan = Plan(**classes, picture="whole", presentation_state=True)
    made = build_objects(study((instance, [result])), store, Settings(**SETTINGS), "2.25.7", plan)
    return {one.kind: dataset(one) for one in made}


def drawn(capture: Dataset, shape: tuple[int, int]) -> NDArray[np.int64]:
    """How much redder than blue the picture of the image is, the rest of the capture cut off."""
    scale = IMAGE_SIDE / max(shape)
    rows, columns = (round(side * scale) for side in shape)
    left = (max(MIN_WIDTH, columns) - columns) // 2
    body = capture.pixel_array[BANNER_HEIGHT : BANNER_HEIGHT + rows, left : left + columns].astype(np.int64)
    return np.asarray(body[..., 0] - body[..., 2])


def hottest(capture: Dataset, shape: tuple[int, int]) -> tuple[float, float]:
    """The middle of what is at least half as strong as the strongest colour: (row, column) in pixels of the source."""
    heat = drawn(capture, shape)
    strong = np.where(heat >= 0.5 * heat.max(), heat, 0)
    scale = IMAGE_SIDE / max(shape)
    rows, columns = (strong.sum(axis=axis) for axis in (1, 0))
    return (
        float(rows @ (np.arange(rows.size) + 0.5) / strong.sum() / scale),
        float(columns @ (np.arange(columns.size) + 0.5) / strong.sum() / scale),
    )


def within(share: float, found: tuple[float, float], planted: Planted, fit: str) -> bool:
    """Of a cell, in both directions."""
    distances = (abs(a - b) / cell for a, b, cell in zip(found, planted.centre, planted.cell(fit), strict=True))
    return max(distances) <= share


EVERY_PLACE = pytest.mark.parametrize("place", PLACES)
EVERY_SHAPE = pytest.mark.parametrize("shape", [LANDSCAPE, PORTRAIT], ids=["landscape", "portrait"])
EITHER_GREY = pytest.mark.parametrize("monochrome1", [False, True], ids=["MONOCHROME2", "MONOCHROME1"])


def assert_hottest(name: str, capture: Dataset, planted: Planted) -> None:
    """In the picture of what this model says, the colour lies where the square was planted."""
    found = hottest(capture, planted.shape)
    assert within(OF_A_MAP, found, planted, str(MAPS[name]["fit"])), (name, found, planted.centre)


@EVERY_PLACE
@EVERY_SHAPE
@EITHER_GREY
def test_a_bright_square_is_shown_where_it_is(
    monochrome1: bool, shape: tuple[int, int], place: str, analyser: Analyser, store: Store
) -> None:
    planted = Planted(shape, PLACES[place], True, monochrome1)
    instance, results = looked_at(planted, analyser, store)
    assert set(SEEN_BRIGHT) <= set(results)
    for name in MAPS:
        if not name.startswith("dark"):
            assert_hottest(name, objects(instance, results[name], store)["secondary_capture"], planted)
    for name, fit in BOXES.items():
        made = objects(instance, results[name], store)
        boxes = [told(made["measurement_sr"]), marked(made["presentation_state"])]
        assert boxes[0] == boxes[1]
        for top, left, bottom, right in boxes:
            middle = ((top + bottom) / 2, (left + right) / 2)
            assert within(1.0, middle, planted, fit), (name, middle, planted.centre)
        assert framed(made["secondary_capture"], shape) == pytest.approx(boxes[0], abs=6.0 * max(shape) / IMAGE_SIDE)


@EVERY_PLACE
@EVERY_SHAPE
@EITHER_GREY
def test_a_dark_square_is_shown_where_it_is(
    monochrome1: bool, shape: tuple[int, int], place: str, analyser: Analyser, store: Store
) -> None:
    """Beside a letterbox's dark padding, too, which is no part of the image."""
    planted = Planted(shape, PLACES[place], False, monochrome1)
    instance, results = looked_at(planted, analyser, store)
    for name in ("dark-squash", "dark-letterbox"):
        assert_hottest(name, objects(instance, results[name], store)["secondary_capture"], planted)


@EVERY_PLACE
@EVERY_SHAPE
@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_from_a_map_is_drawn_around_what_it_points_at(
    name: str, shape: tuple[int, int], place: str, analyser: Analyser, store: Store
) -> None:
    planted = Planted(shape, PLACES[place], name.startswith("bright"), False)
    instance, results = looked_at(planted, analyser, store)
    top, left, bottom, right = framed(objects(instance, results[name], store)["secondary_capture"], shape)
    middle = ((top + bottom) / 2, (left + right) / 2)
    assert within(1.0, middle, planted, FRAMES[name]), (middle, planted.centre)


def told(report: Dataset) -> tuple[float, ...]:
    """The one region of a measurement report, which its number repeats: (top, left, bottom, right)."""
    (region,) = {tuple(item.GraphicData) for item in items(report) if item.ValueType == "SCOORD"}
    return _around(region)


def marked(state: Dataset) -> tuple[float, ...]:
    (frame,) = state.GraphicAnnotationSequence[0].GraphicObjectSequence
    return _around(frame.GraphicData)


def _around(points: Any) -> tuple[float, ...]:
    columns, rows = list(map(float, points))[::2], list(map(float, points))[1::2]
    return min(rows), min(columns), max(rows), max(columns)


def framed(capture: Dataset, shape: tuple[int, int]) -> tuple[float, ...]:
    """What the drawn frame encloses, in pixels of the source."""
    rows, columns = np.nonzero(drawn(capture, shape) > 200)
    scale = IMAGE_SIDE / max(shape)
    return rows.min() / scale, columns.min() / scale, (rows.max() + 1) / scale, (columns.max() + 1) / scale


def test_the_cells_of_these_packages_are_what_the_test_takes_them_for() -> None:
    assert SIDE % GRID == 0
    assert max(LANDSCAPE) / GRID < SQUARE

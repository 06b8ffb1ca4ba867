"""A detector's boxes lie in the source image where its input showed them, and only where something was found."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from config.settings import DecideSettings
from inference.manifest import Manifest
from inference.package import load_package
from inference.tasks import SeenImage, reader
from inference.tasks.detection import Detection, to_source
from inference.verify import verify
from ledger.records import Finding
from tests.support.detectors import tiny_detector, write_detector

WIDE = (100, 200)  # rows, columns: letterboxed into a square, a quarter is padding above and below


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return load_package(write_detector(tmp_path_factory.mktemp("models"))).manifest


def _said(
    manifest: Manifest,
    boxes: list[list[float]],
    scores: list[float],
    image: float = 0.95,
    shape: tuple[int, int] = WIDE,
) -> Finding:
    places = {
        "cam": np.zeros((1, 7, 7), np.float32),
        "boxes": np.array(boxes, np.float32),
        "box_scores": np.array(scores, np.float32)[:, np.newaxis],
    }
    passes: NDArray[np.float32] = np.full((8, 1), image, np.float32)
    seen = SeenImage(manifest, DecideSettings(), passes, places, shape)  # type: ignore[arg-type]
    return reader(manifest).read(seen).findings[0]


MIDDLE, CORNER = [0.4, 0.4, 0.6, 0.6], [0.0, 0.0, 0.3, 0.1]


def test_a_letterboxed_box_comes_back_to_source_pixels(manifest: Manifest) -> None:
    (box,) = to_source(np.array([[0.25, 0.0, 0.75, 1.0]], np.float32), manifest, WIDE)
    assert box.tolist() == pytest.approx([0.0, 0.0, 100.0, 200.0])
    (region,) = _said(manifest, [MIDDLE], [0.95]).regions
    assert region.box == pytest.approx((30.0, 80.0, 70.0, 120.0))


def test_a_box_ends_where_the_image_ends(manifest: Manifest) -> None:
    """The padding above a wide image is no image."""
    (region,) = _said(manifest, [CORNER], [0.95]).regions
    assert region.box == pytest.approx((0.0, 0.0, 10.0, 20.0))


def test_a_box_in_the_padding_is_none(manifest: Manifest) -> None:
    assert _said(manifest, [[0.0, 0.2, 0.2, 0.4]], [0.95]).regions == ()


def test_boxes_are_counted_from_the_threshold_on_and_stand_by_probability(manifest: Manifest) -> None:
    said = _said(manifest, [MIDDLE, CORNER, MIDDLE], [0.92, 0.97, 0.5])
    assert [round(region.probability, 2) for region in said.regions] == [0.97, 0.92]


def test_no_more_boxes_than_the_manifest_allows(manifest: Manifest) -> None:
    assert len(_said(manifest, [MIDDLE] * 5, [0.95] * 5).regions) == 2


def test_a_finding_that_is_present_is_shown_somewhere(manifest: Manifest) -> None:
    said = _said(manifest, [MIDDLE, CORNER], [0.8, 0.7])
    assert said.present
    assert [round(region.probability, 2) for region in said.regions] == [0.8]


def test_what_is_absent_has_no_box(manifest: Manifest) -> None:
    said = _said(manifest, [MIDDLE], [0.95], image=0.2)
    assert not said.present
    assert not said.in_doubt
    assert said.regions == ()


def test_a_box_has_a_calibrated_probability(manifest: Manifest) -> None:
    spec = manifest.labels[0]
    shifted = spec.model_copy(
        update={"calibration": spec.calibration.model_copy(update={"method": "platt", "bias": 2.0})}
    )
    said = _said(manifest.model_copy(update={"labels": (shifted,)}), [MIDDLE], [0.9])
    assert said.regions[0].probability == pytest.approx(1 / (1 + np.exp(-(np.log(9.0) + 2.0))), abs=1e-4)


def test_outputs_that_are_no_boxes_do_not_fit(manifest: Manifest) -> None:
    cam, boxes, scores = np.zeros((2, 1, 7, 7)), np.zeros((2, 3, 4)), np.full((2, 3, 1), 0.5)

    def fits(**other: NDArray[np.float64]) -> bool:
        return Detection().fits(manifest, 2, {"cam": cam, "boxes": boxes, "box_scores": scores} | other)  # type: ignore[arg-type]

    assert fits()
    assert not fits(boxes=np.zeros((2, 3, 5)))
    assert not fits(box_scores=np.full((2, 2, 1), 0.5))
    assert not fits(box_scores=np.full((2, 3, 1), 1.5))
    assert not fits(cam=np.zeros((2, 2, 7, 7)))


@pytest.mark.parametrize(
    "model", [tiny_detector(corners=3), tiny_detector(box_gain=-2.0)], ids=["three corners", "scores beyond 1"]
)
def test_a_detector_whose_boxes_cannot_be_believed_is_refused(model: object, tmp_path: Path) -> None:
    (problem,) = verify(write_detector(tmp_path, model=model))  # type: ignore[arg-type]
    assert "outputs" in problem


def test_a_good_detector_is_not_refused(tmp_path: Path) -> None:
    assert verify(write_detector(tmp_path)) == []

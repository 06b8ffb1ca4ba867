"""A package says how well its map points; without a measurement it says nothing, and no box is drawn from it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.settings import DecideSettings
from inference.findings import findings_of
from inference.manifest import Manifest, parse_manifest, read_manifest
from tests.support.detectors import write_detector
from tests.support.packages import label, write_package

MEASURED = {"accuracy": 0.78, "images": 120, "measured_on": "boxes of a held-out set"}


def manifest(tmp_path: Path, pointing: dict[str, Any] | None) -> Manifest:
    whole = read_manifest(write_package(tmp_path)).model_dump(mode="json")
    return parse_manifest(
        Manifest.model_validate(whole | {"labels": [label() | pointing_of(pointing)]}).to_json().encode()
    )


def pointing_of(pointing: dict[str, Any] | None) -> dict[str, Any]:
    return {} if pointing is None else {"pointing_accuracy": pointing}


@pytest.mark.parametrize(("pointing", "told"), [(None, None), (MEASURED, 0.78)])
def test_a_finding_carries_the_measured_accuracy_of_its_map(
    tmp_path: Path, pointing: dict[str, Any] | None, told: float | None
) -> None:
    package = manifest(tmp_path, pointing)
    scores, cam = np.full((4, 1), 0.9, np.float32), np.zeros((1, 7, 7), np.float32)
    (found,) = findings_of(scores, cam, package, DecideSettings(), (100, 100))
    assert found.pointing_accuracy == told
    assert package.shows_boxes is (told is not None)


def test_a_detector_shows_boxes_by_itself(tmp_path: Path) -> None:
    assert read_manifest(write_detector(tmp_path)).shows_boxes


def test_an_accuracy_measured_on_nothing_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images"):
        manifest(tmp_path, MEASURED | {"images": 0})

"""A slice model in the analyser: a mask in source geometry, a finding, and never an alarm."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from config.settings import LookSettings, Settings
from inference.analyser import Analyser, Source
from inference.package import load_packages
from ledger.records import ImageResult, ResultStatus, TriagePriority, VolumeRule
from ledger.store import Store
from tests.support.dx import write
from tests.support.findings import new_store
from tests.support.mr import head, make_mr
from tests.support.packages import write_package
from tests.support.slice_packages import write_slice_package


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_slice_package(root, may_raise_priority=True)  # even then: a slice by itself raises nothing
    write_package(root)
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return new_store(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def analyser(models_dir: Path, store: Store) -> Iterator[Analyser]:
    settings = Settings(look=LookSettings(models_dir=models_dir, threads=1))
    analyser = Analyser(settings, load_packages(settings.look), store, children=1)
    yield analyser
    analyser.close()


def _look(analyser: Analyser, folder: Path, *series: Dataset) -> list[ImageResult]:
    looked = analyser.analyse([Source(write(ds, folder / f"{i}.dcm")) for i, ds in enumerate(series)])
    assert all(len(entry.results) == 1 for entry in looked)
    return [entry.results[0] for entry in looked]


def test_a_marked_slice_is_a_mask_a_finding_and_no_alarm(analyser: Analyser, store: Store, tmp_path: Path) -> None:
    pixels = head(True)
    unmarked, marked = _look(analyser, tmp_path, *make_mr([head(False), pixels]))
    assert marked.status is ResultStatus.ANALYSED
    assert marked.priority is TriagePriority.LOW
    assert marked.findings[0].present
    assert marked.findings[0].activation is None
    assert (marked.critical_flags, marked.recommendations, marked.display_path) == ((), (), None)
    assert marked.model is not None
    assert marked.model.volume_rule == VolumeRule(2, 0.5)
    (mask,) = marked.masks
    with Image.open(io.BytesIO(store.read(mask.path))) as picture:
        drawn = np.asarray(picture) > 0
    assert drawn.shape == pixels.shape
    assert mask.pixels == drawn.sum()
    truth = pixels > 200
    assert np.logical_and(drawn, truth).sum() / np.logical_or(drawn, truth).sum() > 0.9
    assert not unmarked.findings[0].present
    assert unmarked.masks == ()


def test_a_slice_that_is_not_square_keeps_its_place(analyser: Analyser, store: Store, tmp_path: Path) -> None:
    pixels = np.full((320, 192), 40, np.uint16)
    pixels[200:280, 20:60] = 250
    pixels[0, 0] = 41
    (result,) = _look(analyser, tmp_path, *make_mr([pixels]))
    with Image.open(io.BytesIO(store.read(result.masks[0].path))) as picture:
        drawn = np.asarray(picture) > 0
    assert drawn.shape == (320, 192)
    truth = pixels > 200
    assert np.logical_and(drawn, truth).sum() / np.logical_or(drawn, truth).sum() > 0.85


def test_a_multi_frame_image_is_not_assessed_and_says_why(analyser: Analyser, tmp_path: Path) -> None:
    (ds,) = make_mr([head(True)])
    ds.NumberOfFrames = 3
    ds.PixelData = ds.PixelData * 3
    (result,) = _look(analyser, tmp_path, ds)
    assert (result.status, result.reason_code) == (ResultStatus.NOT_ASSESSED, "multi_frame")
    assert "several frames" in result.reason
    assert result.masks == ()


def test_without_a_store_only_the_pixels_are_counted(models_dir: Path, tmp_path: Path) -> None:
    settings = Settings(look=LookSettings(models_dir=models_dir, threads=1))
    analyser = Analyser(settings, load_packages(settings.look), None, children=1)
    try:
        (result,) = _look(analyser, tmp_path, *make_mr([head(True)]))
    finally:
        analyser.close()
    assert result.masks[0].path == ""
    assert result.masks[0].pixels > 500

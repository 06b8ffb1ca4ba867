"""A picture for a page is decoded and drawn by the analyse role: of stored images alone, with the evidence over it."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from config import Settings
from inference.analyser import Analyser
from inference.package import load_packages
from node.looking.server import LookServer
from node.looking.turns import Turns
from node.looking.wire import Refusal, ask, uploads_dir
from tests.support.chests import bright, save
from tests.support.packages import write_package

HOT = {"values": [[0.0, 0.0], [0.0, 9.0]], "box": [0.0, 0.0, 256.0, 256.0]}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("pictures")
    write_package(folder / "models")
    made = Settings.model_validate({"node": {"state_dir": folder / "state"}, "look": {"models_dir": folder / "models"}})
    analyser = Analyser(made, load_packages(made.look))
    server = LookServer(made, analyser, Turns())
    server.start()
    yield made
    server.stop()
    analyser.close()


def picture(settings: Settings, path: Path, **question: object) -> Image.Image:
    reply = ask(settings, "picture", 30, path=str(path), **question)
    return Image.open(io.BytesIO(reply.blob), formats=("PNG",))


def test_it_is_the_stored_image_no_larger_than_asked(settings: Settings) -> None:
    path = save(bright(), uploads_dir(settings))
    shown = picture(settings, path, side=100)
    assert shown.mode == "L"
    assert max(shown.size) <= 100
    assert np.ptp(np.asarray(shown)) > 10
    assert max(picture(settings, path, side=10_000).size) <= 1024


def test_the_evidence_is_coloured_where_the_model_found_it_and_nowhere_else(settings: Settings) -> None:
    path = save(bright(), uploads_dir(settings))
    size = np.array(picture(settings, path, side=1024))
    rows, columns = size.shape
    hot = HOT | {"box": [0.0, 0.0, float(rows), float(columns)]}
    shown = np.asarray(picture(settings, path, side=1024, overlay={"map": hot}).convert("RGB")).astype(int)
    coloured = np.ptp(shown, axis=-1) > 24
    assert coloured[-rows // 4 :, -columns // 4 :].mean() > 0.5
    assert not coloured[: rows // 4, : columns // 4].any()


def test_a_detectors_box_is_framed(settings: Settings) -> None:
    path = save(bright(), uploads_dir(settings))
    boxes = [{"box": [40.0, 40.0, 90.0, 90.0], "probability": 0.9}]
    shown = np.asarray(picture(settings, path, side=1024, overlay={"regions": boxes}).convert("RGB")).astype(int)
    assert (np.ptp(shown, axis=-1) > 100).any()


@pytest.mark.parametrize("path", ["/etc/passwd", "../ledger.sqlite", ""])
def test_nothing_but_stored_images_is_shown(settings: Settings, path: str) -> None:
    with pytest.raises(Refusal):
        ask(settings, "picture", 10, path=path)


def test_what_a_segmentation_model_marked_is_coloured(settings: Settings) -> None:
    path = save(bright(), uploads_dir(settings))
    folder = settings.node.state_dir / "store" / "masks"
    folder.mkdir(parents=True, exist_ok=True)
    marked = np.zeros((64, 64), np.uint8)
    marked[:32, :32] = 255
    Image.fromarray(marked).save(folder / "mask.png")
    shown = picture(settings, path, side=512, overlay={"mask": str(folder / "mask.png")})
    coloured = np.ptp(np.asarray(shown.convert("RGB")).astype(int), axis=-1) > 24
    half = coloured.shape[0] // 2
    assert coloured[: half - 9, : half - 9].mean() > 0.9
    assert not coloured[half + 9 :, :].any()
    assert not coloured[:, half + 9 :].any()

"""`opentriage analyse` with a detector: boxes in the lines and in the objects that a node would send."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from typer.testing import CliRunner, Result

from node.cli import app
from tests.support.chests import save
from tests.support.detectors import write_detector
from tests.support.dicom_files import square
from tests.support.dx import make_dx

WHERE = pytest.approx([91.4, 365.7, 164.6, 438.9], abs=0.1)  # row 3, column 5 of 7 x 7 letterboxed cells
HAND: dict[str, Any] = {"BodyPartExamined": "HAND", "AnatomicRegionSequence": None, "ViewCodeSequence": None}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_detector(folder / "models")
    path = folder / "site.toml"
    path.write_text(f'[look]\nmodels_dir = "{folder / "models"}"\nthreads = 1\n[report]\nlocalization = "box"\n')
    return path


def analyse(config: Path, *arguments: object) -> Result:
    result = CliRunner().invoke(app, ["analyse", "--config", str(config), *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


def test_the_box_of_a_hand_is_told_and_reported_where_it_is(config: Path, tmp_path: Path) -> None:
    hand = save(make_dx(square(256, 512, 85, 360, 85), **HAND), tmp_path / "in")
    (line,) = map(json.loads, analyse(config, hand, "--json", "--out", tmp_path / "out").stdout.splitlines())
    assert (line["status"], line["priority"]) == ("analysed", "LOW")
    (region,) = line["findings"][0]["regions"]
    assert region["box"] == WHERE
    made = {path.name.rsplit("_", 2)[-2]: dcmread(path) for path in (tmp_path / "out").glob("*.dcm")}
    assert made.keys() == {"measurement", "text"}  # and no picture of an alarm
    data = next(item.value for item in made["measurement"].iterall() if item.keyword == "GraphicData")
    assert [data[1], data[0], data[5], data[4]] == WHERE


def test_a_picture_of_a_limb_can_be_looked_at(config: Path, tmp_path: Path) -> None:
    grey = (square(256, 512, 85, 360, 85) // 16).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "hand.png")
    told = analyse(config, tmp_path / "hand.png", "--as", "limb-xray", "--json")
    line = json.loads(told.stdout)
    assert (line["status"], line["unverified_input"]) == ("analysed", True)
    assert line["findings"][0]["regions"][0]["box"] == WHERE
    words = analyse(config, tmp_path / "hand.png", "--as", "limb-xray").stdout
    assert "(1 box); marked by a model that may not raise a priority" in words


def test_a_chest_is_nothing_for_a_model_of_limbs(config: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((300, 300), 90, np.uint8)).save(tmp_path / "chest.png")
    line = json.loads(analyse(config, tmp_path / "chest.png", "--as", "chest-xray", "--json").stdout)
    assert line["status"] == "not_applicable"


def test_what_a_picture_may_be_is_listed() -> None:
    result = CliRunner().invoke(app, ["analyse", __file__, "--as", "dog-xray"])
    assert result.exit_code == 2
    assert "chest-xray or limb-xray" in result.output

"""`opentriage analyse` on a folder of slices: a line for each, then what the series amounts to."""

import json
from pathlib import Path

import pytest
from pydicom import dcmread
from typer.testing import CliRunner, Result

from node.cli import app
from tests.support.mr import DISTANCE_MM, SPACING_MM, head, make_mr, save_series
from tests.support.slice_packages import write_slice_package


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_slice_package(folder / "models")
    path = folder / "site.toml"
    path.write_text(f'[look]\nmodels_dir = "{folder / "models"}"\nthreads = 1\n')
    return path


def _analyse(config: Path, *arguments: object) -> Result:
    result = CliRunner().invoke(app, ["analyse", "--config", str(config), *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


def test_each_slice_has_a_line_and_the_series_a_volume(config: Path, tmp_path: Path) -> None:
    series = make_mr([head(marked) for marked in (False, True, True, False)])
    save_series(series, tmp_path / "in")
    out = tmp_path / "out"
    found = [json.loads(line) for line in _analyse(config, tmp_path / "in", "--json", "--out", out).stdout.splitlines()]
    slices, (said,) = [line for line in found if "status" in line], [line for line in found if "volume" in line]
    assert [bool(line["masks"]) for line in slices] == [False, True, True, False]
    assert {line["priority"] for line in slices} == {"LOW"}
    assert said["series_instance_uid"] == series[0].SeriesInstanceUID
    assert said["study_instance_uid"] == series[0].StudyInstanceUID
    volume = said["volume"]
    assert (volume["label"], volume["present"], volume["longest_run"]) == ("tumour", True, 2)
    assert (volume["slices_marked"], volume["slices_looked_at"], volume["undetermined"]) == (2, 4, False)
    pixels = sum(mask["pixels"] for line in slices for mask in line["masks"])
    assert volume["volume_ml"] == pytest.approx(pixels * SPACING_MM**2 * DISTANCE_MM / 1000)
    written = {path.name.split("_", 1)[1] for path in out.iterdir()}
    assert written == {"measurement_sr.dcm", "text_sr.dcm", "segmentation.dcm"}
    (seg,) = out.glob("*_segmentation.dcm")
    assert dcmread(seg).NumberOfFrames == 2


def test_two_series_of_a_study_write_two_segmentations_and_words_tell_them_apart(config: Path, tmp_path: Path) -> None:
    one = make_mr([head(True)] * 3)
    other = make_mr([head(True)] * 2, StudyInstanceUID=one[0].StudyInstanceUID)
    save_series(one, tmp_path / "in" / "one")
    save_series(other, tmp_path / "in" / "other")
    out = tmp_path / "out"
    said = _analyse(config, tmp_path / "in", "--out", out).stdout
    for series, count in ((one, 3), (other, 2)):
        (line,) = [line for line in said.splitlines() if line.startswith(f"series {series[0].SeriesInstanceUID}")]
        assert f"in {count} of {count} slices, contiguous" in line
        assert "No alarm is raised by this model" in line
    assert sum("pixels marked" in line for line in said.splitlines()) == 5
    assert len(list(out.glob("*segmentation*.dcm"))) == 2

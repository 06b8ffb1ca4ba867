"""`opentriage analyse`: one line per path and model, and with --out the very objects a node would send."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydicom import dcmread
from typer.testing import CliRunner, Result

from node.cli import app
from node.looking.output import ANALYSE_INSTALLATION_UID
from tests.support.chests import bright, dark, save
from tests.support.packages import label, write_package
from tests.support.peers import need

KEYS = {
    "schema_version", "path", "study_instance_uid", "sop_instance_uid", "modality", "model", "model_version", "status",
    "reason", "findings", "priority", "critical_flags", "recommendations", "duration_ms",
}  # fmt: skip
FINDING_KEYS = {"label", "code", "probability", "probability_sd", "mutual_information", "entropy", "present"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_package(folder / "models")
    path = folder / "site.toml"
    path.write_text(f'[look]\nmodels_dir = "{folder / "models"}"\nthreads = 1\n')
    return path


def analyse(config: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["analyse", "--config", str(config), *map(str, arguments)])


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_every_file_of_a_folder_gets_a_line_of_the_schema(config: Path, tmp_path: Path) -> None:
    flagged, prior = bright(), dark(StudyDate="20010101")
    save(flagged, tmp_path / "deep" / "er")
    save(prior, tmp_path)
    (tmp_path / "notes.txt").write_text("not DICOM")
    found = {Path(line["path"]).name: line for line in lines(analyse(config, tmp_path, "--json"))}
    assert len(found) == 3
    assert all(line.keys() == KEYS for line in found.values())
    high = found[f"{flagged.SOPInstanceUID}.dcm"]
    assert (high["status"], high["priority"], high["model"], high["model_version"]) == (
        "analysed", "HIGH", "tiny-chest", "1.0.0",
    )  # fmt: skip
    assert high["study_instance_uid"] == flagged.StudyInstanceUID
    assert [finding.keys() for finding in high["findings"]] == [FINDING_KEYS]
    assert high["findings"][0]["present"] is True
    assert high["findings"][0]["code"] == {"value": "233604007", "scheme": "SCT", "meaning": "Pneumonia"}
    assert found[f"{prior.SOPInstanceUID}.dcm"]["status"] == "analysed"  # the age of a study plays no part here
    broken = found["notes.txt"]
    assert (broken["study_instance_uid"], broken["sop_instance_uid"], broken["model"]) == (None, None, None)
    assert (broken["status"], broken["recommendations"]) == ("failed", [])
    assert broken["reason"].startswith("No Part 10 header: ")


def test_two_packages_give_two_lines(tmp_path: Path) -> None:
    write_package(tmp_path / "models")
    write_package(tmp_path / "models", "other-chest", labels=[label("tumour")])
    config = tmp_path / "two.toml"
    config.write_text(f'[look]\nmodels_dir = "{tmp_path / "models"}"\nthreads = 1\n')
    found = lines(analyse(config, save(bright(), tmp_path / "in"), "--json"))
    assert {line["model"] for line in found} == {"tiny-chest", "other-chest"}


def test_a_picture_is_marked_unverified_and_needs_to_be_told_what_it_is(config: Path, tmp_path: Path) -> None:
    picture = tmp_path / "chest.png"
    Image.effect_noise((256, 256), 40).save(picture)
    (told,) = lines(analyse(config, picture, "--json", "--as", "chest-xray", "--age", "3"))
    assert told["status"] == "analysed"
    assert told["unverified_input"] is True
    (untold,) = lines(analyse(config, picture, "--json"))
    assert untold["status"] != "analysed"


def test_out_writes_the_objects_of_each_study_under_a_namespace_of_its_own(config: Path, tmp_path: Path) -> None:
    flagged, unflagged = bright(), dark()
    second = bright(StudyInstanceUID=flagged.StudyInstanceUID)
    out = tmp_path / "out"
    paths = [save(ds, tmp_path / "in") for ds in (flagged, second, unflagged)]
    result = analyse(config, *paths, "--out", out)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in out.iterdir())
    assert [name for name in names if name.startswith(unflagged.StudyInstanceUID)] == [
        f"{unflagged.StudyInstanceUID}_text_sr.dcm"
    ]
    kinds = {name.split("_", 1)[1] for name in names if name.startswith(flagged.StudyInstanceUID)}
    pictures = {"secondary_capture.dcm", "secondary_capture.png"}
    assert kinds == {"measurement_sr.dcm", "text_sr.dcm", "key_objects.dcm", *pictures}
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}, "others can read whose images they are"
    assert out.stat().st_mode & 0o777 == 0o700
    report = dcmread(out / f"{flagged.StudyInstanceUID}_measurement_sr.dcm")
    assert (report.PatientID, report.StudyInstanceUID) == (flagged.PatientID, flagged.StudyInstanceUID)
    assert ANALYSE_INSTALLATION_UID.startswith("2.25.")
    validator = need("dciodvfy")
    for path in out.glob("*.dcm"):
        said = subprocess.run([validator, path], capture_output=True, text=True, check=False).stderr
        assert "Error" not in said, said


def test_an_empty_folder_gets_no_line_and_is_not_called_done(config: Path, tmp_path: Path) -> None:
    assert analyse(config, tmp_path, "--json").exit_code == 1

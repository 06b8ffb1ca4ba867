"""The demonstration shows what a real PACS would get, and says clearly when it cannot."""

import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from node.cli import app
from node.commands import demo as command
from node.trying.demo import Demo, DemoFailed
from tests.support.chests import bright, dark, save
from tests.support.packages import write_package


@pytest.mark.timeout(400)
def test_the_users_own_files_go_all_the_way_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_package(tmp_path / "models")
    shown = Demo(tmp_path / "demo", extra=f'[look]\nmodels_dir = "{tmp_path / "models"}"\nthreads = 1\n')
    monkeypatch.setattr(command, "Demo", lambda: shown)
    old = bright(StudyDate="19990101")  # the user's own files are looked at whatever their date
    unflagged = dark()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("not DICOM")
    save(old, tmp_path / "in")
    save(unflagged, tmp_path / "in")
    result = CliRunner().invoke(app, ["demo", str(tmp_path / "in")], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert old.StudyInstanceUID[-12:] in result.output
    rows = [line for line in result.output.splitlines() if "HIGH" in line and "pneumonia" in line]
    assert len(rows) == 1
    assert "not taken" in result.output
    assert "contains: " in result.output  # the tree of one report
    assert "Invented" not in result.output
    (tried,) = [line.removeprefix("Try:").split() for line in result.output.splitlines() if line.startswith("Try:")]
    listed = subprocess.run(tried, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"})
    assert old.StudyInstanceUID in listed.stdout, listed.stderr
    (picture,) = (tmp_path / "demo").glob("overlay-*.png")
    with Image.open(picture) as opened:
        assert opened.mode == "RGB"
    assert len(list((tmp_path / "demo" / "pacs").iterdir())) == 4 + 2 + 1  # provisional and final; unflagged


def test_a_node_that_does_not_get_ready_is_named_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    shown = Demo(tmp_path / "demo", extra="[nonsense]\n")
    with pytest.raises((DemoFailed, ValueError), match="nonsense"):
        shown.start(own_files=True)
    shown.stop()

"""`opentriage validate` from table to page, through a real session and real decode children."""

import base64
import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from node.commands.validate import app
from tests.support.chests import bright, dark
from tests.support.dx import write
from tests.support.packages import label, write_package


def picture(path: Path, level: int, seed: int) -> None:
    """A noisy grey PNG; the tiny model calls bright ones pneumonia."""
    noise = np.random.default_rng(seed).integers(level - 20, level + 20, (160, 160))
    Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a package, forty pictures, two DICOM files and a table with a missing and a broken image."""
    write_package(tmp_path / "models", labels=[label("pneumonia", 0.5)])
    rows = []
    for i in range(40):
        ill = i % 2
        level = (200 if ill else 60) if i not in (6, 7) else (60 if ill else 200)  # two are judged wrongly
        picture(tmp_path / f"{i}.png", level + i % 5, i)
        rows.append([f"{i}.png", ill, f"Mustermann{i // 2}", "3" if i < 36 else "40", "FM"[i % 2], "AP", "North"])
    write(bright(), tmp_path / "bright.dcm")
    write(dark(), tmp_path / "dark.dcm")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    rows += [["bright.dcm", 1, "Roe", "3", "F", "PA", "South"], ["dark.dcm", 0, "Roe", "3", "F", "PA", "South"]]
    rows += [
        ["absent.png", 1, "Mustermann90", "3", "F", "AP", "North"],
        ["broken.png", 0, "Mustermann91", "3", "M", "AP", "North"],
    ]
    rows += [["0.dcm", "", "Mustermann92", "3", "M", "AP", "North"]]
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "pneumonia", "patient", "age", "sex", "view", "site"], *rows])
    (tmp_path / "site.toml").write_text(f'[look]\nmodels_dir = "{tmp_path / "models"}"\nprovider = "cpu"\n')
    return tmp_path


def run(here: Path, *more: str, model: str = "tiny-chest", table: str = "table.csv") -> Any:
    options = ["--model", model, "--out", str(here / "out"), "--config", str(here / "site.toml"), "--draws", "100"]
    return CliRunner().invoke(app, [str(here / table), *options, *more])


def figures(here: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((here / "out" / "validation.json").read_text())
    return loaded


def test_a_table_becomes_figures_plots_and_one_page(here: Path):
    result = run(here)
    assert result.exit_code == 0, result.output
    found = figures(here)
    assert found["images"]["by_status"] == {"analysed": 38, "not_assessed": 4, "not_applicable": 0, "failed": 3}
    assert {row["reason_code"]: row["images"] for row in found["images"]["reasons"]} == {
        "age_outside": 4,
        "file_missing": 2,
        "unreadable": 1,
    }
    one = found["labels"]["pneumonia"]
    assert one["confusion"] == {
        "present_with": 18,
        "absent_with": 1,
        "refused_with": 3,
        "present_without": 1,
        "absent_without": 18,
        "refused_without": 3,
    }
    assert (one["images"], one["unlabelled"]) == (44, 1)
    assert one["sensitivity"]["hits"] == 18
    assert one["of_those_looked_at"]["sensitivity"]["n"] == 19
    assert one["auc_of_those_looked_at"]["patients"] == 19
    assert one["groups"]["traits"]["view"]["groups"][1]["group"] == "PA"
    page = (here / "out" / "validation.html").read_text()
    pngs = [base64.b64decode(text) for text in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert len(pngs) >= 8
    assert all(png.startswith(b"\x89PNG") for png in pngs)
    assert {path.name for path in (here / "out").glob("*.png")} == {
        f"pneumonia-{name}.png" for name in ("roc", "precision-recall", "calibration", "risk-coverage", "groups")
    }


def test_the_page_needs_no_other_file_and_names_no_patient(here: Path):
    assert run(here).exit_code == 0
    page = (here / "out" / "validation.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert "url(" not in page
    assert "@import" not in page
    words = re.sub(r"<style>.*?</style>|base64,[^\"]+", "", page, flags=re.S)
    assert "normal" not in words.lower()
    for path in (here / "out").iterdir():
        if path.suffix != ".png":
            assert "Mustermann" not in path.read_text(), path


def test_each_image_has_its_line(here: Path):
    run(here)
    with (here / "out" / "images.csv").open(newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert len(rows) == 45
    assert (rows["bright.dcm"]["truth"], rows["bright.dcm"]["present"], rows["bright.dcm"]["status"]) == (
        "1",
        "1",
        "analysed",
    )
    assert rows["0.dcm"]["truth"] == rows["absent.png"]["probability"] == ""
    assert rows["absent.png"]["reason"] == "file_missing"


def test_without_matplotlib_nothing_runs_unless_only_figures_are_asked_for(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run(here)
    assert result.exit_code == 1
    assert "pip install --require-hashes -r requirements/openvino.txt; or ask for --figures-only" in result.output
    assert not (here / "out").exists()
    assert run(here, "--figures-only").exit_code == 0
    assert figures(here)["labels"]["pneumonia"]["sensitivity"]["n"] == 22
    assert not (here / "out" / "validation.html").exists()


def test_where_nearly_nothing_was_looked_at_that_is_the_only_advice(here: Path):
    rows = "".join(f"absent{i}.png,{i % 2},3,{'FM'[i % 2]}\n" for i in range(59))
    (here / "gone.csv").write_text(f"image,pneumonia,age,sex\n{rows}")
    result = run(here, "--figures-only", table="gone.csv")
    assert result.exit_code == 0, result.output
    (advice,) = figures(here)["recommendations"]
    assert advice["text"].startswith("Only 0 of 59 images were looked at: nothing can be said of the model here.")
    assert "operating point" not in result.output
    assert "Most often (59 images): " in result.output


def test_a_bad_row_is_wrong_usage_and_nothing_runs(here: Path):
    (here / "bad.csv").write_text("image,pneumonia\n1.png,1\n2.png,perhaps\n")
    result = run(here, table="bad.csv")
    assert result.exit_code == 2
    assert "line 3: pneumonia is 'perhaps'" in result.output
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("more", "model", "code", "words"),
    [
        (("--floor", "speed=1"), "tiny-chest", 2, "there is no floor 'speed'"),
        ((), "huge-chest", 1, "huge-chest"),
        (("--provider", "abacus"), "tiny-chest", 2, "abacus"),
    ],
)
def test_wrong_options_end_in_a_sentence(here: Path, more: tuple[str, ...], model: str, code: int, words: str):
    result = run(here, *more, model=model)
    assert result.exit_code == code
    assert words in result.output


def test_a_folder_names_a_package_too_and_a_floor_can_be_overridden(here: Path):
    run(here, "--floor", "looked_at=0.5", model=str(here / "models" / "tiny-chest" / "1.0.0"))
    found = figures(here)
    assert found["floors"]["looked_at"] == 0.5
    assert "looked_at" not in {advice["figure"] for advice in found["recommendations"]}


def test_thresholds_of_the_site_count(here: Path):
    with (here / "site.toml").open("a") as file:
        file.write("[decide.thresholds]\npneumonia = 0.999999\n")
    run(here)
    assert figures(here)["labels"]["pneumonia"]["confusion"]["present_with"] < 18


def test_a_lateral_picture_is_refused_as_the_node_would(here: Path):
    (here / "views.csv").write_text("image,label,age,view\n1.png,1,3,Lateral\n3.png,1,3,AP supine\n")
    run(here, table="views.csv")
    assert figures(here)["images"]["by_status"]["not_applicable"] == 1
    assert figures(here)["images"]["reasons"][0]["reason_code"] == "view_not_read"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "there is no column 'image'"),
        (b"image,pneumonia\n", "no row below the heading"),
        (b"image,cough\n1.png,1\n", "no column is named like a finding"),
        (b"image,pneumonia\n1.png,2\n", "it must be 0, 1 or left empty"),
        (b"image,pneumonia\n1.png,\n", "no row says 0 or 1 in pneumonia"),
        (b"image,pneumonia,site\n1.png,1,Z\xfcrich\n", "CSV UTF-8"),
        (b"image\tpneumonia\n1.png\t1\n", "by commas or semicolons, not by tabs"),
    ],
)
def test_a_table_that_cannot_be_used_ends_in_a_sentence(here: Path, content: bytes, words: str):
    (here / "bad.csv").write_bytes(content)
    result = run(here, table="bad.csv")
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert isinstance(result.exception, SystemExit)


def test_a_place_that_cannot_be_written_is_named(here: Path):
    (here / "out").write_text("a file")
    result = run(here)
    assert result.exit_code == 2
    assert "no such folder can be made" in " ".join(result.output.split())


def test_one_kind_only_gives_what_it_can_and_says_that_it_is_too_few(here: Path):
    (here / "one.csv").write_text(
        "image;patient;pneumonia;age\n1.png;;1;3\n3.png;a;1;3\nabsent.png;b;1;3\n", "utf-8-sig"
    )
    result = run(here, table="one.csv")
    assert result.exit_code == 0, result.output
    one = figures(here)["labels"]["pneumonia"]
    assert (one["sensitivity"]["hits"], one["sensitivity"]["n"], one["specificity"]["value"]) == (2, 3, None)
    assert one["floors"]["sensitivity"]["status"] == "too_few"
    assert one["floors"]["auc"]["status"] == "unknown"
    assert "Rows that name no patient: 1." in (here / "out" / "validation.html").read_text()


def test_the_page_names_the_worst_group_however_small_and_lists_no_order_twice(here: Path):
    run(here)
    page = (here / "out" / "validation.html").read_text()
    words = " ".join(re.sub(r"<[^>]+>", "", re.sub(r"<style>.*?</style>|base64,[^\"]+", "", page, flags=re.S)).split())
    assert "The worst group is age: 40 to 64 few images – 4 images, 2 with the finding, sensitivity 0.0 %" in words
    assert words.count("Predictive entropy") == 1
    assert "Predictive entropy is not listed" in words

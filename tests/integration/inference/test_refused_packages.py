"""A package that cannot be used is refused by name; the others serve, and nobody's image is hidden for its sake."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from config.settings import LookSettings, Settings
from inference.analyser import Analyser, Source
from inference.errors import PackageError
from inference.package import installed
from ledger.records import ImageResult, ResultStatus, TriagePriority
from tests.integration.inference.test_analyser import BRIGHT
from tests.support.dx import make_dx, write
from tests.support.packages import tiny_model, write_package

NOWHERE = dict.fromkeys(("BodyPartExamined", "AnatomicRegionSequence", "SeriesDescription", "StudyDescription"))
BROKEN: dict[str, dict[str, Any]] = {
    "not finite": {"model": tiny_model(scores="nan")},
    "identical": {"model": tiny_model(spread=0.0)},
    "not between 0 and 1": {"model": tiny_model(scores="logits")},
    "not an ONNX file": {"model": b"not a model at all"},
    "com.evil": {"model": tiny_model(domain="com.evil")},
}


class Opener:
    def __init__(self) -> None:
        self.made: list[Analyser] = []

    def __call__(self, root: Path, models: Sequence[str] = (), provider: Any = "auto") -> Analyser:
        look = LookSettings(models_dir=root, threads=1, models=tuple(models), provider=provider)
        found = installed(look)
        self.made.append(Analyser(Settings(look=look), found.packages, children=1, refused=found.refused))
        return self.made[-1]


@pytest.fixture
def opened() -> Iterator[Opener]:
    opener = Opener()
    yield opener
    for analyser in opener.made:
        analyser.close()


def analyse(analyser: Analyser, folder: Path, ds: Dataset) -> tuple[ImageResult, ...]:
    return analyser.analyse([Source(write(ds, folder / "x.dcm"))])[0].results


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("why", BROKEN)
def test_a_broken_package_is_refused_by_name_and_the_others_serve(opened: Opener, tmp_path: Path, why: str) -> None:
    root = tmp_path / "models"
    write_package(root, "good")
    write_package(root, "broken", **BROKEN[why])
    analyser = opened(root)
    (refused,) = analyser.refused
    assert (refused.name, analyser.models) == ("broken 1.0.0", ["good 1.0.0"])
    assert why in refused.sentence
    good, broken = sorted(
        analyse(analyser, tmp_path, make_dx(BRIGHT)), key=lambda result: result.status is not ResultStatus.ANALYSED
    )
    assert (good.status, good.priority) == (ResultStatus.ANALYSED, TriagePriority.HIGH)
    assert (broken.status, broken.reason_code) == (ResultStatus.NOT_ASSESSED, "package_refused")
    assert broken.model is not None
    assert broken.model.name == "broken"


def test_what_only_a_refused_package_reads_is_not_assessed_and_what_it_does_not_read_is_nobodys(
    opened: Opener, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    write_package(root, "hands", reads={"body_parts": ["HAND"]})
    change_a_byte(write_package(root, "chests") / "golden.npz")
    analyser = opened(root)
    assert analyser.refused[0].reason.endswith("golden.npz: its SHA-256 is not the one that the manifest pins")
    (chest,) = analyse(analyser, tmp_path, make_dx())
    assert (chest.status, chest.reason_code) == (ResultStatus.NOT_ASSESSED, "package_refused")
    assert chest.reason == "Package refused: chests 1.0.0 is meant for this image and cannot be used on this node."
    assert str(root) not in chest.reason
    assert chest.recommendations
    (foot,) = analyse(analyser, tmp_path, make_dx(BodyPartExamined="FOOT"))
    assert (foot.status, foot.reason_code) == (ResultStatus.NOT_APPLICABLE, "body_part_not_read")
    unnamed = analyse(analyser, tmp_path, make_dx(**NOWHERE))  # nobody can ask its pixels whether it is a chest
    assert ("package_refused", ResultStatus.NOT_ASSESSED) in [(one.reason_code, one.status) for one in unnamed]


def test_a_manifest_that_cannot_be_read_is_refused_too_but_nobody_knows_for_which_images(
    opened: Opener, tmp_path: Path
) -> None:
    root = tmp_path / "models"
    write_package(root, "hands", reads={"body_parts": ["HAND"]})
    (write_package(root, "torn") / "manifest.json").write_text("{")
    analyser = opened(root)
    assert [one.name for one in analyser.refused] == ["torn 1.0.0"]
    (chest,) = analyse(analyser, tmp_path, make_dx())
    assert chest.status is ResultStatus.NOT_APPLICABLE


@pytest.mark.parametrize("named", ["broken", "broken/1.0.0"])
@pytest.mark.parametrize("why", ["not finite", "com.evil"])
def test_a_refused_package_that_the_settings_name_stops_the_start(
    opened: Opener, tmp_path: Path, why: str, named: str
) -> None:
    write_package(tmp_path, "good")
    write_package(tmp_path, "broken", **BROKEN[why])
    with pytest.raises(
        PackageError, match=rf"look\.models names 'broken', but the model package broken 1\.0\.0.*{why}"
    ):
        opened(tmp_path, ["good", named])
    assert opened(tmp_path, ["good"]).refused == ()


@pytest.mark.parametrize("why", ["not finite", "com.evil"])
def test_without_a_package_left_the_analyser_does_not_start(opened: Opener, tmp_path: Path, why: str) -> None:
    write_package(tmp_path, "broken", **BROKEN[why])
    with pytest.raises(PackageError, match=rf"no model package is left: .*broken 1\.0\.0.*{why}"):
        opened(tmp_path)


def test_a_newer_version_that_is_broken_is_not_replaced_by_an_older_one(opened: Opener, tmp_path: Path) -> None:
    write_package(tmp_path, "good")
    write_package(tmp_path, "chest", "1.0.0")
    change_a_byte(write_package(tmp_path, "chest", "1.1.0") / "model.onnx")
    analyser = opened(tmp_path)
    assert (analyser.models, [one.name for one in analyser.refused]) == (["good 1.0.0"], ["chest 1.1.0"])

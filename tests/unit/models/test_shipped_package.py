"""The packages in models/ are what their manifests say, within the promises made for them. No torch is needed."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from config.settings import LookSettings
from inference.errors import PackageError
from inference.package import Package, load_package, load_packages
from inference.verify import verify

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = sorted(path.parent for path in (ROOT / "models").glob("*/*/manifest.json"))
NAMES = [folder.parent.name for folder in FOLDERS]


def folder_of(name: str) -> Path:
    return next(folder for folder in FOLDERS if folder.parent.name == name)


@pytest.fixture(params=FOLDERS, ids=NAMES)
def package(request: pytest.FixtureRequest) -> Package:
    return load_package(request.param)


@pytest.fixture(scope="module")
def chest() -> Package:
    return load_package(folder_of("chest-pneumonia"))


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder_of("chest-pneumonia") / "validation.json").read_text())
    return read


def test_one_version_of_each_is_shipped() -> None:
    assert "chest-pneumonia" in NAMES
    assert len(set(NAMES)) == len(NAMES)


def test_it_verifies_and_replays_its_golden_vectors(package: Package) -> None:
    assert verify(package.folder) == []


def test_every_file_is_pinned(package: Package) -> None:
    on_disk = {path.name for path in package.folder.iterdir()} - {"manifest.json"}
    assert on_disk == set(package.manifest.files)
    for name, sha256 in package.manifest.files.items():
        assert hashlib.sha256((package.folder / name).read_bytes()).hexdigest() == sha256


def test_card_licence_and_figures_go_with_it(package: Package) -> None:
    assert {"MODEL_CARD.md", "LICENSE", "validation.json", "golden.npz"} <= set(package.manifest.files)
    for source in package.manifest.licence.data:
        assert source.name in (package.folder / "LICENSE").read_text()


def test_the_card_says_when_an_answer_is_withheld_for_doubt_or_why_none_is(package: Package) -> None:
    card = (package.folder / "MODEL_CARD.md").read_text()
    assert "\nAbstention" in card
    rules = [package.manifest.abstention, *(group.abstention for group in package.manifest.age_groups)]
    if not any(rules):
        assert "Abstention: no rule was fitted, so no answer is withheld for doubt; it would have to" in card


def test_a_package_is_small_enough_to_ship_with_all_its_members(package: Package) -> None:
    assert sum(path.stat().st_size for path in package.folder.iterdir()) <= 20_000_000


def test_only_the_chest_package_may_raise_an_alarm(package: Package) -> None:
    manifest = package.manifest
    raising = manifest.may_raise_priority or any(group.may_raise_priority for group in manifest.age_groups)
    assert raising == (manifest.name == "chest-pneumonia")


def test_weights_without_commercial_use_load_only_where_a_site_accepts_them() -> None:
    closed = [load_package(folder).manifest for folder in FOLDERS]
    for manifest in (manifest for manifest in closed if manifest.licence.non_commercial):
        assert manifest.name not in {found.manifest.name for found in load_packages(LookSettings())}
        with pytest.raises(PackageError, match="accept_licences"):
            load_packages(LookSettings(models=(manifest.name,)))
        accepting = LookSettings(models=(manifest.name,), accept_licences=(manifest.licence.weights,))
        assert [found.manifest.name for found in load_packages(accepting)] == [manifest.name]


def test_the_chest_package_is_for_children_and_adults_and_for_frontal_chests_alone(chest: Package) -> None:
    reads = chest.manifest.reads
    assert chest.manifest.ages_years == ((1.0, 6.0), (18.0, 120.0))
    assert reads.modalities == ("CR", "DX")
    assert reads.body_parts == ("CHEST",)
    assert reads.views == ("PA", "AP")


def test_the_chest_package_raises_an_alarm_only_where_its_specificity_was_measured(
    chest: Package, figures: dict[str, Any]
) -> None:
    measured = {group["name"]: group["test"]["specificity"] for group in figures["groups"]}
    for group in chest.manifest.age_groups:
        if group.may_raise_priority:
            assert measured[group.name]["n"] > 100
            assert measured[group.name]["value"] > 0.9


def test_the_thumbnail_baseline_stands_beside_every_group(figures: dict[str, Any]) -> None:
    for group in figures["groups"]:
        assert 0.5 < group["baseline_8x8_thumbnail"]["auc"]["value"] < 1.0

"""Weights without commercial use: used where their licence is accepted by name, and never in silence."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from config.settings import LookSettings
from inference.errors import PackageError
from inference.package import installed, load_packages
from node.cli import app
from tests.support.packages import write_package
from tests.support.realdata import ROOT

NC = {"weights": "CC-BY-NC-SA-4.0", "non_commercial": True, "data": []}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_package(tmp_path / "models", name="free")
    write_package(tmp_path / "models", name="masks", licence=NC)
    return tmp_path / "models"


def keys(look: LookSettings) -> list[str]:
    return [package.manifest.name for package in load_packages(look)]


def test_a_licence_that_nobody_accepted_is_passed_over_and_the_others_load(root: Path) -> None:
    look = LookSettings(models_dir=root)
    assert keys(look) == ["free"]
    assert [manifest.name for manifest in installed(look).passed_over] == ["masks"]


@pytest.mark.parametrize("accepted", ["CC-BY-NC-SA-4.0", "other,CC-BY-NC-SA-4.0"])
def test_an_accepted_licence_loads(root: Path, accepted: str) -> None:
    look = LookSettings(models_dir=root, accept_licences=tuple(accepted.split(",")))
    assert keys(look) == ["free", "masks"]
    assert installed(look).passed_over == ()


def test_another_licence_of_its_kind_is_not_enough(root: Path) -> None:
    assert keys(LookSettings(models_dir=root, accept_licences=("CC-BY-NC-4.0",))) == ["free"]


@pytest.mark.parametrize("name", ["masks", "masks/1.0.0"])
def test_a_package_that_the_settings_name_stops_the_start(root: Path, name: str) -> None:
    with pytest.raises(PackageError, match=r"CC-BY-NC-SA-4\.0.*accept_licences"):
        load_packages(LookSettings(models_dir=root, models=("free", name)))
    assert keys(LookSettings(models_dir=root, models=(name,), accept_licences=("CC-BY-NC-SA-4.0",))) == ["masks"]


def test_a_licence_that_allows_commercial_use_needs_no_acceptance(root: Path) -> None:
    write_package(root, name="by", licence={"weights": "CC-BY-4.0", "non_commercial": False, "data": []})
    assert keys(LookSettings(models_dir=root)) == ["by", "free"]


def run(tmp_path: Path, *args: str, **look: object) -> str:
    lines = [f"{key} = {value!r}".replace("'", '"') for key, value in look.items()]
    (tmp_path / "site.toml").write_text("\n".join(["[look]", *lines]))
    return " ".join(CliRunner().invoke(app, [*args, "--config", str(tmp_path / "site.toml")]).output.split())


def test_the_list_and_the_check_say_what_is_not_used(root: Path, tmp_path: Path) -> None:
    for command in (("models", "list"), ("check-config",)):
        said = run(tmp_path, *command, models_dir=str(root))
        assert "not used: masks 1.0.0: its weights are licensed CC-BY-NC-SA-4.0" in said
        accepted = run(tmp_path, *command, models_dir=str(root), accept_licences=["CC-BY-NC-SA-4.0"])
        assert "not used" not in accepted
        assert "CC-BY-NC-SA-4.0" in accepted
    assert "the node will not start" in run(tmp_path, "check-config", models_dir=str(root), models=["masks"])


def test_the_list_says_it_once_and_only_in_its_sentence(root: Path, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(f'[look]\nmodels_dir = "{root}"')
    command = [sys.executable, "-m", "node.cli", "models", "list", "--config", str(tmp_path / "site.toml")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0
    assert ended.stderr.split()[:4] == ["not", "used:", "masks", "1.0.0:"]
    said = ended.stdout + ended.stderr
    assert said.count("masks") == 1
    assert "passed_over" not in said


def test_an_accepted_licence_that_no_package_has_is_not_called_used(root: Path, tmp_path: Path) -> None:
    said = run(tmp_path, "check-config", models_dir=str(root), accept_licences=["CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"])
    assert "no installed package has weights under CC-BY-NC-4.0; is it misspelt?" in said
    assert "are used (CC-BY-NC-SA-4.0: masks)" in said
    assert "no installed package has weights under CC-BY-NC-SA-4.0" not in said

"""Without torch the node explains an import, and says what it needs."""

import importlib.util
import re

import pytest
from typer.testing import CliRunner

from node.commands.models import app
from tests.support.realdata import ROOT


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest)
    )


def test_the_hint_is_a_command_that_works() -> None:
    result = CliRunner().invoke(app, ["import", "weights.pt", "--kind", "torchvision-densenet121"])
    assert result.exit_code == 1
    assert "pip install --require-hashes -r requirements/train.txt" in result.stderr
    assert (ROOT / "requirements/train.txt").is_file()
    assert "opentriage[train]" not in result.stderr


@pytest.mark.parametrize("wanted", ["--help", "-h"])
def test_the_help_names_every_option_of_the_import(wanted: str) -> None:
    shown = CliRunner().invoke(app, ["import", wanted])
    assert shown.exit_code == 0
    options = set(re.findall(r'"(--[a-z-]+)"', (ROOT / "training/importing/command.py").read_text(encoding="utf-8")))
    assert len(options) >= 10
    assert {option for option in options if not re.search(rf"{option}(?![a-z-])", shown.stdout)} == set()

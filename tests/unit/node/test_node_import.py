"""Without torch the node says what an import needs."""

import importlib.util

from typer.testing import CliRunner

from node.commands.models import app


def test_without_torch_an_import_names_the_extra(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest)
    )
    result = CliRunner().invoke(app, ["import", "weights.pt", "--kind", "torchvision-densenet121"])
    assert result.exit_code == 1
    assert "opentriage[train]" in result.output

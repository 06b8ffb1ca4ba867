"""A program imports what it needs and no more, and the garbage collector never walks over it."""

import gc
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from config import load_settings
from node import cli
from node.roles import run_role
from node.running.process import PARENT_PIPE
from tests.support.realdata import ROOT


@pytest.fixture(autouse=True)
def collected_after() -> Iterator[None]:
    """These tests play programs; the one that they run in goes on collecting everything."""
    yield
    gc.unfreeze()
    gc.enable()


def test_a_command_is_imported_without_collecting_and_run_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    while_importing = []

    def noting(name: str) -> ModuleType:
        while_importing.append(gc.isenabled())
        return importlib.import_module(name)

    monkeypatch.setattr(cli, "importlib", ModuleType("noting"))
    monkeypatch.setattr(cli.importlib, "import_module", noting, raising=False)
    monkeypatch.setattr(sys, "argv", ["opentriage", "certs", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    assert while_importing == [False]
    assert gc.isenabled()
    assert gc.get_freeze_count() > 10_000


def test_a_role_runs_with_the_collector_and_what_it_imported_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = []

    class Role(ModuleType):
        def run(self, settings: object) -> int:
            found.append((gc.isenabled(), gc.get_freeze_count() > 10_000))
            return 0

    monkeypatch.setitem(sys.modules, "node.roles.played", Role("node.roles.played"))
    monkeypatch.setenv(PARENT_PIPE, "1")
    (tmp_path / "site.toml").write_text(f"[node]\nstate_dir = '{tmp_path}/state'\n", encoding="utf-8")
    assert run_role("played", load_settings(tmp_path / "site.toml")) == 0
    assert found == [(True, True)]


def test_where_another_program_calls_the_commands_its_collector_is_its_own() -> None:
    before = gc.get_freeze_count()
    assert CliRunner().invoke(cli.app, ["certs", "--help"]).exit_code == 0
    assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_the_list_of_commands_imports_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "importlib", None)
    shown = CliRunner().invoke(cli.app, ["--help"])
    assert shown.exit_code == 0, shown.output
    assert all(name in shown.output and said[:20] in shown.output for name, said in cli.COMMANDS.items())


def test_a_role_imports_no_more_than_it_needs() -> None:
    """Sending needs no writer of objects, nor showing a model's runtime: each is half a second of every start."""
    asks = (
        "import sys, node.commands.serve\n"
        "import node.roles.receive, node.roles.keep, node.roles.deliver\n"
        "print([name for name in ('highdicom', 'onnxruntime', 'fastapi', 'rich.progress') if name in sys.modules])\n"
        "import node.roles.web\n"
        "print([name for name in ('highdicom', 'onnxruntime', 'inference.analyser') if name in sys.modules])\n"
    )
    said = subprocess.run([sys.executable, "-c", asks], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.split("\n")[:2] == ["[]", "[]"]

"""What is installed is what is here."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.conftest import APART
from tests.support import peers

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOTS = ("config", "ledger", "scp", "inference", "sr_writer", "validation", "node", "training")


def test_every_package_is_listed_and_tests_stay_out_of_the_wheel() -> None:
    here = {
        ".".join(init.parent.relative_to(ROOT).parts) for root in ROOTS for init in (ROOT / root).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == here


def test_no_pinned_file_names_where_it_was_fetched_from() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        lines = path.read_text().splitlines()
        assert lines, path
        for line in lines:
            assert not line.lstrip().startswith(("-i", "--index", "--extra-index", "--find-links", "--trusted")), path
            assert "://" not in line, path


def test_both_onnx_runtimes_are_never_pinned_together() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        names = {line.split("==")[0] for line in path.read_text().splitlines() if "==" in line}
        assert not {"onnxruntime", "onnxruntime-gpu"} <= names, path


def test_the_node_runs_without_torch() -> None:
    for name in ("cpu.txt", "gpu.txt", "postgres.txt", "dev.txt"):
        names = {line.split("==")[0] for line in (ROOT / "requirements" / name).read_text().splitlines()}
        assert not names & {"torch", "torchvision"}, name


def test_postgres_adds_its_driver_to_the_node_and_changes_nothing_else() -> None:
    cpu, postgres = (
        {line for line in (ROOT / "requirements" / name).read_text().splitlines() if "==" in line}
        for name in ("cpu.txt", "postgres.txt")
    )
    assert cpu <= postgres
    assert {line.split("==")[0] for line in postgres - cpu} == {"psycopg", "psycopg-binary"}


def test_make_lists_every_goal_apart_from_its_words() -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    listed = done.stdout.splitlines()
    assert len(listed) > 8
    columns = {match.start(1) for line in listed if (match := re.match(r"  make [a-z-]+ {2,}(\S)", line))}
    assert len(columns) == 1
    assert all(re.match(r"  make [a-z-]+ {2,}\S", line) for line in listed)


def test_each_folder_that_a_walk_over_the_tests_does_not_enter_is_named_and_has_a_goal_of_its_own() -> None:
    closed = [name for name in PROJECT["tool"]["pytest"]["ini_options"]["norecursedirs"] if name.startswith("tests/")]
    assert closed == [f"tests/{folder}" for folder in APART]
    goals = re.findall(
        r"^([a-z-]+):.*\n(?:\t.*\n)*\t.*-m pytest (tests/[a-z]+) ", (ROOT / "Makefile").read_text(), re.M
    )
    assert {folder: f"make {goal}" for goal, folder in goals} == {f"tests/{name}": APART[name] for name in APART}


def test_a_peer_that_is_missing_skips_with_what_to_do_and_fails_where_make_peers_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "FOLDERS", (tmp_path,))
    monkeypatch.setattr(peers, "INSTALLED", tmp_path / ".peers")
    missing, either = "storescu is not installed (Debian package dcmtk)", (pytest.skip.Exception, pytest.fail.Exception)
    with pytest.raises(either) as before:
        peers.need("storescu")
    (tmp_path / ".peers").touch()
    with pytest.raises(either) as after:
        peers.need("storescu")
    assert [(one.type, str(one.value)) for one in (before, after)] == [
        (pytest.skip.Exception, f"{missing}: run `make peers`"),
        (pytest.fail.Exception, f"{missing}, though `make peers` ran here: run it again"),
    ]
    (tmp_path / "storescu").touch()
    assert peers.need("storescu") == tmp_path / "storescu"


def test_make_peers_installs_what_the_tests_say_it_does() -> None:
    rule = (ROOT / "Makefile").read_text().partition("\npeers:")[2].partition("\n\n")[0]
    assert set(peers.PACKAGES.values()) <= set(rule.split())
    assert f"touch {peers.INSTALLED.name} " in rule

"""The node as processes beside a broken model package: it goes on and says so, or does not start and says why."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.packages import tiny_model, write_package
from tests.support.realdata import ROOT
from tests.support.running import RunningNode

SENTENCE = "the model package nan 1.0.0 is refused"


def node_over(folder: Path, models: tuple[str, ...] = ()) -> RunningNode:
    root = folder / "models"
    write_package(root, "good")
    write_package(root, "nan", model=tiny_model(scores="nan"))
    look = f"[look]\nmodels_dir = {json.dumps(str(root))}\nthreads = 1\nmodels = {json.dumps(models)}\n"
    return RunningNode(folder, extra=look)


@pytest.mark.timeout(500)
def test_a_node_with_one_broken_package_serves_and_raises_the_alarm(tmp_path: Path) -> None:
    node = node_over(tmp_path)
    node.start()
    try:
        health = node.get("/healthz")
        assert health.status_code == 200
        assert health.json()["degraded"] is True
        assert [alarm.startswith(SENTENCE) for alarm in health.json()["alarms"]] == [True]
    finally:
        node.stop()
    (refused,) = [line for line in node.logged() if line["event"] == "package_refused"]
    assert (refused["model"], refused["level"]) == ("nan 1.0.0", "error")
    (loaded,) = [line for line in node.logged() if line["event"] == "models_loaded"]
    assert loaded["models"] == ["good 1.0.0"]


@pytest.mark.timeout(300)
def test_the_analyser_does_not_start_without_a_package_that_the_settings_name(tmp_path: Path) -> None:
    node = node_over(tmp_path, ("good", "nan"))
    command = [sys.executable, "-m", "node.cli", "serve", "--role", "analyse", "--config", str(node.config)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 1
    (failed,) = [line for line in ended.stderr.splitlines() if '"role_failed"' in line]
    assert f"look.models names it, but {SENTENCE}" in json.loads(failed)["error"]

"""The node as processes beside a broken model package: it goes on and says so, or does not start and says why."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from node.running.process import EXIT_CANNOT_SERVE
from node.watching.echo import own_echo
from tests.support.packages import tiny_model, write_package
from tests.support.realdata import ROOT
from tests.support.running import START_WITHIN_S, RunningNode
from tests.support.waiting import wait_until

SENTENCE = "the model package nan 1.0.0 is refused"


def node_over(folder: Path, look: str = "") -> RunningNode:
    root = folder / "models"
    write_package(root, "good")
    write_package(root, "nan", model=tiny_model(scores="nan"))
    return RunningNode(folder, extra=f"[look]\nmodels_dir = {json.dumps(str(root))}\nthreads = 1\n{look}\n")


@pytest.mark.timeout(500)
def test_a_node_with_one_broken_package_serves_and_raises_the_alarm(tmp_path: Path) -> None:
    node = node_over(tmp_path)
    node.start()
    try:
        health = node.healthy()
        assert health["degraded"] is True
        assert [alarm.startswith(SENTENCE) for alarm in health["alarms"]] == [True]
    finally:
        node.stop()
    (refused,) = [line for line in node.logged() if line["event"] == "package_refused"]
    assert (refused["model"], refused["level"]) == ("nan 1.0.0", "error")
    (loaded,) = [line for line in node.logged() if line["event"] == "models_loaded"]
    assert loaded["models"] == ["good 1.0.0"]


@pytest.mark.timeout(300)
def test_a_node_that_could_never_look_does_not_start_and_never_listens(tmp_path: Path) -> None:
    ended = serve(node_over(tmp_path, look='models = ["good", "nan"]'))
    assert ended.returncode == 1, ended.stderr
    lines = ended.stderr.splitlines()
    assert lines[-1].startswith(f"cannot start: look.models names 'nan', but {SENTENCE}")
    assert "Traceback" not in ended.stderr
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert [line["status"] for line in events if line["event"] == "role_died"] == [EXIT_CANNOT_SERVE]
    assert "receive" not in [line["role"] for line in events if line["event"] == "role_started"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("look", "sentence"),
    [
        ('models = ["nan"]', f"look.models names 'nan', but {SENTENCE}"),
        ('models = ["nan/1.0.0"]', f"look.models names 'nan', but {SENTENCE}"),
        ('models = ["good", "absent"]', "look.models names 'absent', but "),
        ('provider = "tensorrt"', "look.provider is tensorrt, but here there is only cpu"),
    ],
)
def test_the_analyser_by_itself_ends_with_a_status_of_its_own(look: str, sentence: str, tmp_path: Path) -> None:
    ended = serve(node_over(tmp_path, look=look), "--role", "analyse")
    assert ended.returncode == EXIT_CANNOT_SERVE
    (said,) = [line for line in ended.stderr.splitlines() if '"cannot_serve"' in line]
    assert json.loads(said)["reason"].startswith(sentence)


@pytest.mark.timeout(500)
def test_an_analyser_that_fails_later_turns_health_red_and_receiving_goes_on(tmp_path: Path) -> None:
    node = node_over(tmp_path, look='models = ["good"]')
    node.start()
    try:
        assert node.healthy()["reasons"] == []
        receiver = node.role_pid("receive")
        (tmp_path / "models" / "good" / "1.0.0" / "model.onnx").write_bytes(b"other bytes")
        node.kill_role("analyse")
        health = wait_until(lambda: refused(node), START_WITHIN_S)
        said = "; ".join(health.json()["reasons"])
        assert health.status_code == 503
        assert "no analyser has loaded its models" in said
        assert "the model package good 1.0.0 is refused" in said
        assert own_echo(node.settings, timeout_s=20)
        assert node.role_pid("receive") == receiver
    finally:
        status = node.stop()
    assert status == 0


def refused(node: RunningNode) -> httpx.Response | None:
    """What /healthz says, once the analyser has said of its second death why."""
    health = node.get("/healthz")
    said = "; ".join(health.json()["reasons"])
    return health if "is refused" in said and "died" in said else None


def serve(node: RunningNode, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "node.cli", "serve", "--config", str(node.config), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)

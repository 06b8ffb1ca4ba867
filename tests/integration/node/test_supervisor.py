"""The node as processes: ready after its own C-ECHO, whole after a kill, gone when told, never two on one folder."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from node import notices
from node.child import LISTEN_ATTEMPTS
from node.echo import own_echo
from tests.support.realdata import ROOT
from tests.support.running import START_WITHIN_S, RunningNode
from tests.support.waiting import wait_until

ROLES = ("receive", "analyse", "report", "deliver", "web")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.timeout(500)
def test_the_life_of_a_node(tmp_path: Path) -> None:
    node = RunningNode(tmp_path, extra=f"[look]\nmodels_dir = {str(tmp_path)!r}\n")
    node.start()
    try:
        ready = notices.read(node.settings, "node")
        assert (ready["host"], ready["port"]) == ("127.0.0.1", node.port)
        assert own_echo(node.settings, timeout_s=20)
        _second_node_is_refused(node)
        _dead_role_comes_back(node)
        pids = [node.role_pid(role) for role in ROLES]
        node.kill()
        wait_until(lambda: not any(alive(pid) for pid in pids), 60)
        node.start()  # waits for the old lock, puts things in order, and is ready again
        pids = [node.role_pid(role) for role in ROLES]
    finally:
        status = node.stop()
    assert status == 0
    assert not any(alive(pid) for pid in pids)


def _second_node_is_refused(node: RunningNode) -> None:
    short = node.folder / "second.toml"
    short.write_text(node.config.read_text().replace("stop_grace_s = 15", "stop_grace_s = 0.1"))
    command = [sys.executable, "-m", "node.cli", "serve", "--config", str(short)]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert second.returncode == 1
    (waiting,) = [line for line in second.stderr.splitlines() if "node_waiting" in line]
    assert "waiting up to 5.1 s" in waiting
    assert "another node is running" in second.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize("role", ["receive", "web"])
def test_a_port_that_is_taken_ends_the_node_with_one_sentence(role: str, tmp_path: Path) -> None:
    node = RunningNode(tmp_path, extra=f"[look]\nmodels_dir = {str(tmp_path)!r}\n")
    port = node.port if role == "receive" else node.web_port
    with socket.create_server(("127.0.0.1", port)):
        command = [sys.executable, "-m", "node.cli", "serve", "--config", str(node.config)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 1, ended.stderr
    sentence = f"port {port} on 127.0.0.1 is taken: another program, or another node, listens there"
    lines = ended.stderr.splitlines()
    assert lines[-1] == f"cannot start: {sentence}"
    assert len([line for line in lines if '"cannot_listen"' in line and sentence in line]) == LISTEN_ATTEMPTS
    assert "Traceback" not in ended.stderr
    assert ".py" not in "".join(line for line in lines if '"cannot_listen"' in line)


def _dead_role_comes_back(node: RunningNode) -> None:
    old = node.kill_role("receive")
    assert wait_until(lambda: node.role_pid("receive") != old, START_WITHIN_S)
    wait_until(lambda: own_echo(node.settings, timeout_s=20), START_WITHIN_S)
    died = [line for line in node.logged() if line["event"] == "role_died"]
    assert [(line["died"], line["status"], line["pid"]) for line in died] == [("receive", -9, old)]


def test_a_role_follows_its_parent_even_without_a_signal(tmp_path: Path) -> None:
    node = RunningNode(tmp_path, extra=f"[look]\nmodels_dir = {str(tmp_path)!r}\n")
    command = [sys.executable, "-m", "node.cli", "serve", "--role", "deliver", "--config", str(node.config)]
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OPENTRIAGE_PARENT_PIPE": "1"},
    )
    assert child.stderr is not None
    assert child.stdin is not None
    assert b"role_started" in child.stderr.readline()
    child.stdin.close()  # what the kernel does for a parent that is gone
    assert child.wait(60) == 0
    child.stderr.close()

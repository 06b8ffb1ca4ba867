"""The node as processes: ready after its own C-ECHO, whole after a kill, gone when told, never two on one folder."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.audit import AuditKind
from node import notices
from node.running.child import LISTEN_ATTEMPTS
from node.trail import heads
from node.watching.echo import own_echo
from node.wiring import open_ledger
from tests.support.realdata import ROOT
from tests.support.running import START_WITHIN_S, RunningNode
from tests.support.waiting import wait_until

ROLES = ("receive", "analyse", "report", "deliver", "web", "keep")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _every_role_holds_the_locks(pids: list[int], node: RunningNode) -> bool:
    for pid in pids:
        assert _locks_of(pid, node) == {"run/lock": True, "store/lock": True}
    return True


def _locks_of(pid: int, node: RunningNode) -> dict[str, bool]:
    """The locks that a process has open, and whether they end with it, whatever it started."""
    state, found = node.settings.node.state_dir, {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            if (file := entry.readlink()) in (state / "run" / "lock", state / "store" / "lock"):
                told = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
                flags = next(line.split()[1] for line in told.splitlines() if line.startswith("flags:"))
                found[str(file.relative_to(state))] = bool(int(flags, 8) & os.O_CLOEXEC)
    return found


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """The name of a Unix socket has at most 107 bytes, whatever TMPDIR is."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ot-") as folder:
        yield Path(folder)


@pytest.mark.timeout(500)
def test_the_life_of_a_node(tmp_path: Path, short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _manager(short_folder / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(short_folder / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    node = RunningNode(tmp_path, extra=f"[look]\nmodels_dir = {str(tmp_path)!r}\n")
    node.start()
    try:
        ready = notices.read(node.settings, "node")
        assert (ready["host"], ready["port"]) == ("127.0.0.1", node.port)
        assert own_echo(node.settings, timeout_s=20)
        _second_node_is_refused(node)
        _dead_role_comes_back(node)
        pids = [node.role_pid(role) for role in ROLES]
        wait_until(lambda: _every_role_holds_the_locks(pids, node), 60)  # it makes them its own while it starts
        node.kill()
        wait_until(lambda: not any(alive(pid) for pid in pids), 60)
        node.start()  # waits for the old lock, puts things in order, and is ready again
        pids = [node.role_pid(role) for role in ROLES]
    finally:
        status = node.stop()
    assert status == 0
    assert not any(alive(pid) for pid in pids)
    ready = f"READY=1\nSTATUS=Answers on port {node.port}".encode()
    wait_until(lambda: told[-1] == b"STOPPING=1", 60)
    assert (told[0], told.count(ready)) == (ready, 2)  # twice started: one of the two was killed
    assert b"WATCHDOG=1" in told
    _its_trail_tells_of_it(node)


def _its_trail_tells_of_it(node: RunningNode) -> None:
    """Whole and sealed to its last word; the last head stands in the file."""
    ledger = open_ledger(node.settings)
    said = [(line.detail["did"], line.detail["what"]) for line in ledger.audit_log() if line.kind is AuditKind.ACTIVITY]
    verdict = ledger.verify_audit(heads.by_sequence(heads.read(heads.heads_file(node.settings))))
    ledger.close()
    assert (said[0], said[-1], said.count(("started", "node"))) == (("stopped", "node"), ("started", "node"), 2)
    assert ("died", "receive") in said
    assert (verdict.problems, verdict.waiting, verdict.heads > 0) == ([], 0, True)


def _manager(path: Path) -> list[bytes]:
    """What a service manager is told there, as it comes."""
    told: list[bytes] = []
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(path))

    def listen() -> None:
        with listening:
            while (said := listening.recv(1000)) != b"STOPPING=1":
                told.append(said)
        told.append(said)

    threading.Thread(target=listen, daemon=True).start()
    return told


def _second_node_is_refused(node: RunningNode) -> None:
    short = node.folder / "second.toml"
    short.write_text(node.config.read_text().replace("stop_grace_s = 60", "stop_grace_s = 0.1"))
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
    attempts = 0 if role == "receive" else LISTEN_ATTEMPTS  # the supervisor takes the receivers' port before any child
    assert len([line for line in lines if '"cannot_listen"' in line and sentence in line]) == attempts
    assert "Traceback" not in ended.stderr
    assert ".py" not in "".join(line for line in lines if '"cannot_listen"' in line)


def _dead_role_comes_back(node: RunningNode) -> None:
    old = node.kill_role("receive")
    assert wait_until(lambda: node.role_pid("receive") != old, START_WITHIN_S)
    wait_until(lambda: own_echo(node.settings, timeout_s=20), START_WITHIN_S)
    died = [line for line in node.logged() if line["event"] == "role_died"]
    assert [(line["died"], line["status"], line["pid"]) for line in died] == [("receive", -9, old)]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_starts_alone_on_an_empty_folder_with_no_more_rights_than_it_has_beside_others(
    tmp_path: Path, role: str
) -> None:
    node = RunningNode(tmp_path, extra=f"[look]\nmodels_dir = {str(tmp_path)!r}\n")
    command = [sys.executable, "-m", "node.cli", "serve", "--role", role, "--config", str(node.config)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as alone:
        assert alone.stderr is not None
        said = []
        for line in alone.stderr:
            said.append(line)
            if "role_started" in line:
                break
        alone.terminate()
        alone.communicate()
    assert "role_started" in said[-1], "".join(said)
    assert alone.returncode == 0


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
    assert any(b"role_started" in line for line in iter(child.stderr.readline, b""))
    child.stdin.close()  # what the kernel does for a parent that is gone
    assert child.wait(60) == 0
    child.stderr.close()

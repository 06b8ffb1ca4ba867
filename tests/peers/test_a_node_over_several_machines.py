"""docs/deploy.md, "Several machines": lone roles, each with a state folder of its own, around one PostgreSQL and one
store. They start at once on an empty database, two are killed in flight, and every study is reported once.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread

from node.roles import ROLES
from node.trying.demo import fresh_samples
from node.trying.sending import Peer, send_files
from tests.support.peers import free_port
from tests.support.postgres import postgres_server
from tests.support.realdata import ROOT
from tests.support.running import START_WITHIN_S
from tests.support.sink import Sink
from tests.support.waiting import wait_until

KILLED = ("receive", "analyse", "deliver")  # one after another


@dataclass
class Machine:
    """One role; what it says goes to its log."""

    role: str
    config: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = None  # the one before has ended
        started = self._started()
        command = [sys.executable, "-m", "node.cli", "serve", "--role", self.role, "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: self._started() > started, START_WITHIN_S)

    def stop(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _started(self) -> int:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"{self.role} ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
        return self.log.read_text().count('"role_started"') if self.log.exists() else 0


@dataclass
class Spread:
    machines: dict[str, Machine]
    sink: Sink
    port: int
    web_port: int

    def send(self, folder: Path) -> set[str]:
        """Each sample as a study of today; their UIDs."""
        folder.mkdir()
        files = fresh_samples(folder)
        answers: list[int | None] = []
        send_files(files, Peer("OPENTRIAGE", "127.0.0.1", self.port), lambda one: answers.append(one.status))
        assert answers == [0] * len(files)
        return {dcmread(file, stop_before_pixels=True).StudyInstanceUID for file in files}

    def reported(self) -> set[str]:
        return {heard.read().StudyInstanceUID for heard in self.sink.stored()}

    def metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.web_port}/metrics", timeout=60).text


def settings(state: Path, url: str, port: int, web_port: int, pacs: int) -> str:
    return f"""
[node]
state_dir = "{state}"
database_url = "{url}"
[receive]
host = "127.0.0.1"
port = {port}
free_disk_min_bytes = 0
[study]
complete_after_s = 1.0
[web]
port = {web_port}
[heartbeat]
every_s = 0
[[destinations]]
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs}
proof = []
"""


@pytest.fixture
def spread(tmp_path: Path) -> Iterator[Spread]:
    store, database = tmp_path / "shared", tmp_path / "postgres"
    store.mkdir(mode=0o700)
    database.mkdir()
    with postgres_server(database) as url, Sink() as sink, ExitStack() as stopping:
        port, web_port = free_port(), free_port()
        machines = {}
        for role in ROLES:
            state = tmp_path / role
            state.mkdir(mode=0o700)
            (state / "store").symlink_to(store)  # as a mount would
            config = tmp_path / f"{role}.toml"
            config.write_text(settings(state, url, port, web_port, sink.port))
            machines[role] = Machine(role, config, tmp_path / f"{role}.log")
        for machine in machines.values():
            stopping.callback(machine.kill)
        yield Spread(machines, sink, port, web_port)


def test_every_study_is_reported_once_whoever_is_killed(spread: Spread, tmp_path: Path) -> None:
    with ThreadPoolExecutor(len(ROLES)) as at_once:
        list(at_once.map(Machine.start, spread.machines.values()))
    sent: set[str] = set()
    for number, role in enumerate(KILLED):
        sent |= spread.send(tmp_path / f"sent-{number}")
        assert spread.machines[role].stop(signal.SIGKILL) == -signal.SIGKILL
        spread.machines[role].start()
    wait_until(lambda: spread.reported() == sent, 120)
    wait_until(lambda: "opentriage_instances_in_flight 0.0" in spread.metrics(), 60)
    assert "opentriage_instances_drift 0.0" in spread.metrics()
    assert f"opentriage_instances_received_total {len(sent)}.0" in spread.metrics()
    assert {len(bytes_of) for bytes_of in spread.sink.holds().values()} == {1}
    ends = {role: machine.stop(signal.SIGTERM) for role, machine in spread.machines.items()}
    assert ends == dict.fromkeys(ROLES, 0)

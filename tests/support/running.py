"""A whole node as a site runs it: `python -m node.cli serve` with a settings file, observed from outside."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from config import Settings, load_settings
from ledger.ledger import Ledger
from ledger.worklist import WorklistEntry
from node import notices
from node.wiring import open_ledger
from tests.support.peers import end, free_port, need
from tests.support.realdata import ROOT
from tests.support.waiting import wait_until

START_WITHIN_S = 170.0  # two busy cores: five interpreters import numpy, onnxruntime, highdicom


def table(head: str, values: Mapping[str, object]) -> str:
    """TOML; a string or a number is written as in JSON."""
    return "".join(line + "\n" for line in (head, *(f"{key} = {json.dumps(value)}" for key, value in values.items())))


class RunningNode:
    """Starts at `start`, stops at `stop`; a context manager does both."""

    def __init__(
        self,
        folder: Path,
        destinations: Sequence[tuple[str, int]] = (),
        extra: str = "",
        processes: int = 1,
        heartbeat_s: float = 0.0,
        oldest_job_max_s: float = 300.0,
        stop_grace_s: int = 60,
        **study: float,
    ) -> None:
        """heartbeat_s: how often it sends itself a study; 0: never, so that a test has the node for itself.
        oldest_job_max_s: of `[web]`: what waits for longer turns health red. stop_grace_s: what hangs when it stops is
        waited for that long.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = folder / "opentriage.toml"
        self.log = folder / "node.log"
        self.port, self.web_port = free_port(), free_port()
        tables: dict[str, dict[str, object]] = {
            "node": {"state_dir": str(folder / "state"), "stop_grace_s": stop_grace_s},
            "receive": {
                "host": "127.0.0.1",
                "port": self.port,
                "processes": processes,
                "free_disk_min_bytes": 1_000_000,
            },
            "study": {"complete_after_s": 1.0, "triage_max_age_h": 24.0, **study},
            "deliver": {
                "prove_after_s": 0.2,
                "retry_first_s": 0.2,
                "retry_max_s": 1.0,
                "connect_timeout_s": 3.0,
            },
            "web": {"port": self.web_port, "oldest_job_max_s": oldest_job_max_s},
            "heartbeat": {"every_s": heartbeat_s},
        }
        text = [table(f"[{name}]", values) for name, values in tables.items()] + [extra + "\n"]
        for ae_title, port in destinations:
            text.append(table("[[destinations]]", {"ae_title": ae_title, "host": "127.0.0.1", "port": port}))
        self.config.write_text("".join(text), encoding="utf-8")
        self.settings: Settings = load_settings(self.config)
        self.process: subprocess.Popen[bytes] | None = None
        self._ledger: Ledger | None = None

    def __enter__(self) -> "RunningNode":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until the node says that it answered its own C-ECHO."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "node.cli", "serve", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={key: value for key, value in os.environ.items() if key != "PROMETHEUS_MULTIPROC_DIR"},
            )
        wait_until(self._is_ready, START_WITHIN_S, 0.05)

    def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the node ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}")
        return bool(notices.read(self.settings, "node").get("ready"))

    def stop(self, within_s: float = 100.0) -> int:
        """SIGTERM; the exit status."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        assert self.process is not None
        return end(self.process, within_s)

    def kill(self) -> None:
        """SIGKILL to the supervisor, as the kernel would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def kill_role(self, role: str) -> int:
        """SIGKILL to one role's process; its pid."""
        pid = self.role_pid(role)
        os.kill(pid, signal.SIGKILL)
        return pid

    def role_pid(self, role: str) -> int:
        """The process of a role now; waits for it to exist."""

        def find() -> int:
            return self._find_role(role)

        return wait_until(find, START_WITHIN_S)

    def _find_role(self, role: str) -> int:
        assert self.process is not None
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if parent == self.process.pid and b"--role" in command and role.encode() in command:
                return int(entry.name)
        return 0

    @property
    def ledger(self) -> Ledger:
        """The node's own ledger, read beside it."""
        if self._ledger is None:
            self._ledger = open_ledger(self.settings)
        return self._ledger

    def entry(self, study_uid: str) -> WorklistEntry | None:
        """The study's line of the triage list."""
        found = [e for e in self.ledger.worklist(include_hidden=True) if e.study_instance_uid == study_uid]
        return found[0] if found else None

    def get(self, path: str) -> httpx.Response:
        """One GET to the node's page."""
        return httpx.get(f"http://127.0.0.1:{self.web_port}{path}", timeout=20)

    def healthy(self) -> dict[str, Any]:
        """What /healthz says as soon as it is green: on a busy machine its own C-ECHO may be late."""

        def asked() -> dict[str, Any]:
            health = self.get("/healthz")
            assert health.status_code == 200, health.text
            said: dict[str, Any] = health.json()
            return said

        return wait_until(asked, 60, 0.5)

    def left(self) -> int:
        """Jobs that are queued or running."""
        jobs = self.ledger.counts()["jobs"]
        return sum(count for key, count in jobs.items() if key.endswith((":queued", ":running")))

    def wait_idle(self, within_s: float) -> None:
        """Wait until no job is queued or running."""

        def idle() -> bool:
            left = self.left()
            assert left == 0, f"{left} jobs are left: {self.ledger.counts()['jobs']}"
            return True

        wait_until(idle, within_s, 0.1)

    def logged(self) -> list[dict[str, Any]]:
        """Every JSON line of the log so far."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        whole = text.rpartition("\n")[0]  # the last line may be half written
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]


def storescu(
    port: int, *files: Path, called: str = "OPENTRIAGE", extra: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Send with DCMTK's storescu, proposing what the files are coded in."""
    program = need("storescu")
    return subprocess.run(
        [str(program), "-v", "-aec", called, "-aet", "MODALITY", *extra, "127.0.0.1", str(port), *map(str, files)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class StoreScp:
    """DCMTK's storescp as a PACS that writes every object to a folder."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port or free_port()
        self._program = need("storescp")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "StoreScp":
        self._process = subprocess.Popen(
            [str(self._program), "-aet", "PACS", "-od", str(self.folder), str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._listens, 30)
        return self

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, *error: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def files(self) -> list[Path]:
        """What came so far and is whole: a file that the PACS still has open is being written."""
        there = sorted(path for path in self.folder.iterdir() if path.is_file())
        written = self._open_files()  # asked after: what was there then and is not open now was closed
        return [path for path in there if path.resolve() not in written]

    def _open_files(self) -> set[Path]:
        assert self._process is not None
        found = set()
        with suppress(OSError):  # it has ended: nothing is written any more
            for entry in Path(f"/proc/{self._process.pid}/fd").iterdir():
                with suppress(OSError):  # closed meanwhile
                    found.add(entry.readlink())
        return found


def wait_seconds(seconds: float) -> None:
    """Let wall-clock time pass where the passing itself is the load's shape, never to wait for an outcome."""
    time.sleep(seconds)

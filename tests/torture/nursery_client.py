"""The torturer's side of the nursery: ask for receivers, kill them, learn how they ended."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.realdata import ROOT
from tests.support.waiting import wait_until

_numbers = itertools.count(1)


class Died(RuntimeError):
    """A receiver ended before it listened; the text is the end of its log."""


class Victim:
    """One receiver in a process of its own. A context manager that kills what is still alive at its end."""

    def __init__(self, nursery: "Nursery", state: Path, answer: Mapping[str, Any], log: Path) -> None:
        self._nursery, self.state, self.log = nursery, state, log
        self.pid: int = answer["pid"]
        self.address: tuple[str, int] = ("127.0.0.1", answer["port"])
        self.reconciled: dict[str, Any] = answer["reconciled"]
        self.status: int | None = None

    def __enter__(self) -> "Victim":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self.status is None:
            self.kill()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def halt(self) -> None:
        """SIGSTOP, and wait until every thread stands still: one that has not come to it yet accepts a connection."""
        self.signal(signal.SIGSTOP)

        def stands() -> bool:
            stats = (path.read_text() for path in Path(f"/proc/{self.pid}/task").glob("*/stat"))
            return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)

        wait_until(stands, 60, 0.001)

    def kill(self) -> int:
        """SIGKILL, and wait until it is dead."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        return self.wait()

    def stop(self) -> int:
        """SIGTERM: the receiver ends in order. Its exit status."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        if self.status is None:
            self.status = int(self._nursery.ask(do="wait", pid=self.pid, block=True)["status"])
        return self.status

    def alive(self) -> bool:
        if self.status is None:
            self.status = self._nursery.ask(do="wait", pid=self.pid, block=False)["status"]
        return self.status is None

    # --- what it uses, from /proc ---

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """By the kernel's clock of that process, as clock_getcpuclockid(3) names it: what /proc counts in ticks of
        10 ms is too coarse for one that hardly works."""
        return time.clock_gettime(~self.pid << 3 | 2)


class Nursery:
    """A context manager around tests/torture/nursery.py. folder: gets the logs, and is the children's TMPDIR's parent.

    preload: a shared object that every child has loaded, doing nothing until a child begins it.
    """

    def __init__(self, folder: Path, preload: Path | None = None) -> None:
        self.folder = folder
        self.preload = preload
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if key != "PROMETHEUS_MULTIPROC_DIR"}
        environment["TMPDIR"] = str(folder / "tmp")
        if preload is not None:
            environment["LD_PRELOAD"] = str(preload)
        self._lock = threading.Lock()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            text=True,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError("the nursery cannot start: see its standard error above")

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(120)
        self.process.stdout.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self._lock:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the nursery died: see its standard error above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def bear(
        self,
        state: Path,
        engine: str,
        faults: Sequence[str] = (),
        reconcile: bool = True,
        limits: Mapping[str, int] | None = None,
        shim: Mapping[str, str] | None = None,
        sections: Mapping[str, Mapping[str, Any]] | None = None,
        listener: int = 0,
        stays: bool = False,
        grace_s: float = 5.0,
        **receive: Any,
    ) -> Victim:
        """A receiver that listens on loopback. Raises Died.

        faults: names in tests/torture/faults.py, or `module:name`. limits: resource -> soft and hard limit, such as
        NOFILE. listener: a number that `listen` gave. stays: live on after the volume failed. sections: settings
        other than those of `receive`, which are the keyword arguments.
        """
        log = self.folder / f"receiver-{next(_numbers)}.log"
        received = {"host": "127.0.0.1", "port": 0, "free_disk_min_bytes": 0, "engine": engine, **receive}
        settings = {"node": {"state_dir": str(state)}, "receive": received, **(sections or {})}
        answer = self.ask(
            do="bear", settings=settings, log=str(log), faults=list(faults), reconcile=reconcile, stays=stays,
            limits=dict(limits or {}), shim=dict(shim or {}), listener=listener, grace_s=grace_s,
        )  # fmt: skip
        if "port" not in answer:
            status = self.ask(do="wait", pid=answer["pid"], block=True)["status"]
            raise Died(f"status {status}: {log.read_text()[-3000:]}")
        return Victim(self, state, answer, log)

    def listen(self, port: int = 0, reuse_port: bool = False) -> tuple[int, int]:
        """Make a listener that receivers can share; its number, which `bear` takes, and its port."""
        answer = self.ask(do="listen", port=port, reuse_port=reuse_port)
        return int(answer["listener"]), int(answer["port"])

    def forget(self, listener: int) -> None:
        """Close the nursery's own hold on a listener: only receivers keep it open now."""
        self.ask(do="forget", listener=listener)

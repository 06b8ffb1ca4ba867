"""A program and everything it starts: processor time, also of children that have ended, and resident memory.

Where a control group may be made (cgroup v1 cpuacct, or v2), the kernel keeps the sum; else the tree is walked in
/proc, where a parent carries the time of the children that it has waited for.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

TICKS = os.sysconf("SC_CLK_TCK")
V1, V2 = Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")


def _group(name: str) -> Path | None:
    """An empty control group, or None where none can be had."""
    for above in (V1, V2):
        if above is V2 and not (V2 / "cgroup.controllers").exists():
            continue
        try:
            (above / name).mkdir()
            return above / name
        except OSError:
            continue
    return None


class Watched:
    """Starts `command`; a context manager that stops it with SIGTERM, and SIGKILL after 20 s."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path | None = None) -> None:
        self._group = _group(f"bench-{os.getpid()}-{id(self):x}")
        if self._group is not None:
            command = ["sh", "-c", f'echo $$ > {self._group}/cgroup.procs; exec "$@"', "sh", *command]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command, env=dict(env), stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=cwd
            )

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self._kill()
        if self._group is not None:
            self._kill()
            self._group.rmdir()

    def _kill(self) -> None:
        """It and whatever it left behind."""
        deadline = time.monotonic() + 10.0
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.02)

    def pids(self) -> list[int]:
        """Of every process that lives now."""
        if self._group is not None:
            return [int(line) for line in (self._group / "cgroup.procs").read_text().split()]
        return list(_tree(self.process.pid))

    def cpu_s(self) -> float:
        """Processor seconds so far."""
        if self._group is None:
            return tree_cpu_s(self.process.pid)
        if (usage := self._group / "cpuacct.usage").exists():
            return int(usage.read_text()) / 1e9
        return int((self._group / "cpu.stat").read_text().split()[1]) / 1e6

    def rss_bytes(self) -> int:
        """The most that each living process has held, added up."""
        return sum(map(_most_held, self.pids()))

    def forget_peak(self) -> None:
        """From now on `rss_bytes` means: since now."""
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")


class Sampler:
    """The greatest `rss_bytes` seen while the block ran: children that come and go are seen alive."""

    def __init__(self, watched: Watched, every_s: float = 0.2) -> None:
        self._watched, self._every_s = watched, every_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.most = 0

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            last = self._done.wait(self._every_s)
            self.most = max(self.most, self._watched.rss_bytes())
            if last:
                return


def tree_cpu_s(pid: int) -> float:
    """Processor seconds of a process and its children, from /proc."""
    return sum(map(_cpu_s, _tree(pid)))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for child in children_of(pid):
        yield from _tree(child)


def children_of(pid: int) -> Iterator[int]:
    """That live now."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            yield from map(int, task.read_text().split())
        except OSError:
            continue


def _cpu_s(pid: int) -> float:
    """User and system time, its own and that of the children that it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS


def _most_held(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

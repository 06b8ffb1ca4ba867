"""Several receivers on one listening socket, each `serve --role receive` as the supervisor starts it, and nothing else
of a node: they can be stopped, killed and told to leave one by one."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from config import Settings, load_settings
from ledger.ledger import Ledger
from node import notices
from node.running.child import Child
from node.running.listening import BACKLOG, reserve
from node.running.process import LISTEN_FD, RECEIVER_INDEX
from node.running.receivers import ROLE
from node.wiring import open_ledger
from tests.support.ledgers import laid
from tests.support.realdata import ROOT
from tests.support.waiting import wait_until

START_WITHIN_S = 60.0


class Siblings:
    """A context manager; `start` starts one more."""

    def __init__(self, folder: Path, extra: str = "", count: int = 2) -> None:
        self.listener = reserve("127.0.0.1", 0)
        self.listener.listen(BACKLOG)
        self.address: tuple[str, int] = self.listener.getsockname()[:2]
        self.config = folder / "opentriage.toml"
        state, port = folder / "state", self.address[1]
        self.config.write_text(
            f"[node]\nstate_dir = '{state}'\nstop_grace_s = 60\n[receive]\nhost = '127.0.0.1'\nport = {port}\n"
            f"free_disk_min_bytes = 0\n{extra}\n"
        )
        self.settings: Settings = load_settings(self.config)
        laid(self.settings.database_url)
        self.ledger: Ledger = open_ledger(self.settings)
        self.log = folder / "receivers.log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._count = count

    def __enter__(self) -> "Siblings":
        for index in range(self._count):
            self.start(index)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.listener.close()
        self.ledger.close()

    def start(self, index: int) -> subprocess.Popen[bytes]:
        """One more; returns when it accepts."""
        descriptor = self.listener.fileno()
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "node.cli", "serve", "--role", ROLE, "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, LISTEN_FD: str(descriptor), RECEIVER_INDEX: str(index)},
                pass_fds=(descriptor,),
            )
        self.processes.append(process)
        name = Child(ROLE, index).name
        wait_until(lambda: notices.read(self.settings, name).get("pid") == process.pid, START_WITHIN_S)
        return process

    @staticmethod
    def freeze(process: subprocess.Popen[bytes]) -> None:
        """SIGSTOP, and wait until none of its threads runs."""
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)

    @staticmethod
    def thaw(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGCONT)

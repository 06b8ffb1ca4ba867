"""What the receivers of one node share and the supervisor keeps: the listening socket, the count of associations, the
order in which they are renewed, and who of them is stuck.

The socket is made before any receiver and outlives each: while one is restarted, connections wait in the kernel's queue
for whoever accepts next, and none is refused. (With SO_REUSEPORT each process has a queue of its own, and what waits in
it is lost with the process: docs/adr/0016.)
"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from config import Settings
from config.settings import ReceiveSettings
from node import log_events, notices
from node.running.child import Child
from node.running.listening import BACKLOG, cannot_listen, handed_over, reserve
from node.running.process import DRAIN_S, LISTEN_FD, RECEIVER_INDEX, SIGNS_FD
from node.running.signs import Stuck, Watch
from node.watching.counters import forget_process
from node.wiring import run_dir
from scp.network.occupancy import SharedOccupancy

ROLE = "receive"
MOST_OF_ITSELF = 4  # more processes than this is a person's choice


def wanted(settings: ReceiveSettings) -> int:
    """How many receivers to run."""
    cores = len(os.sched_getaffinity(0))
    return settings.processes or min(MOST_OF_ITSELF, max(1, cores // 2))


def names(count: int) -> list[str]:
    """Under which names they say where they are (node/notices.py)."""
    return [Child(ROLE, index).name for index in range(count)]


def occupancy(settings: Settings) -> SharedOccupancy:
    """The count of open associations that this node's receivers share."""
    return SharedOccupancy(run_dir(settings) / "associations", settings.receive.max_associations)


@dataclass
class Receivers:
    """Made once a run of the node. Raises CannotListen where the address cannot be had."""

    settings: Settings
    asked: threading.Event = field(default_factory=threading.Event)  # set: renew all of them
    _to_renew: list[tuple[Child, int]] = field(default_factory=list)  # with the process that is to go
    _leaving: subprocess.Popen[bytes] | None = None
    _successor: Child | None = None
    _leave_by: float = 0.0  # 0: it was not told yet
    stuck_so_far: Counter[str] = field(default_factory=lambda: Counter({how.value: 0 for how in Stuck}))
    _watches: dict[int, Watch] = field(default_factory=dict)  # by the receiver's index

    def __post_init__(self) -> None:
        receive = self.settings.receive
        self.count = wanted(receive)
        self._listener = handed_over() or reserve(receive.host, receive.port)
        (run_dir(self.settings) / "associations").unlink(missing_ok=True)  # of an earlier run, all of which is gone
        self._occupancy = occupancy(self.settings)

    def children(self) -> list[Child]:
        """One for each receiver, not started."""
        return [Child(ROLE, index) for index in range(self.count)]

    def open(self) -> None:
        """From now on nobody is refused: who calls waits at most until a receiver accepts."""
        try:
            self._listener.listen(BACKLOG)
        except OSError as error:
            raise cannot_listen(self.settings.receive.host, self.settings.receive.port, error) from None

    def given(self, child: Child) -> tuple[dict[str, str], tuple[int, ...]]:
        """Environment and descriptors of a receiver."""
        listener, signs = self._listener.fileno(), self._watch(child.index).writing
        named = {LISTEN_FD: str(listener), RECEIVER_INDEX: str(child.index), SIGNS_FD: str(signs)}
        return named, (listener, signs)

    def forget(self, pid: int) -> None:
        """A receiver is gone: its places are free."""
        self._occupancy.forget(pid)

    def close(self) -> None:
        """The node ends: from now on callers are refused."""
        self._listener.close()
        self._occupancy.close()
        for index in list(self._watches):
            self._unwatch(index)

    # --- who lives and takes no callers ---

    def replace_stuck(self, children: Sequence[Child]) -> Iterator[tuple[Child, int, Stuck]]:
        """Have each of them replaced; yields whom, its process and in which way it is stuck.

        What a stopped process holds nobody can serve, and its peers learn from its end that they have to send again:
        it is killed, and restarted as one that died. A deaf one may still serve: it is renewed.
        """
        for child in children:
            watch = self._watches.get(child.index) if child.role == ROLE else None
            process = child.process
            if watch is None or process is None or (how := watch.look()) is None:
                continue
            self._unwatch(child.index)
            if how is Stuck.STOPPED:
                process.kill()
            else:
                self._to_renew.append((child, process.pid))
            self.stuck_so_far[how.value] += 1
            yield child, process.pid, how

    def _watch(self, index: int) -> Watch:
        """Over the next process of this receiver."""
        self._unwatch(index)
        self._watches[index] = Watch()
        return self._watches[index]

    def _unwatch(self, index: int) -> None:
        if watch := self._watches.pop(index, None):
            watch.close()

    # --- renewing, one at a time ---

    @property
    def leaving(self) -> subprocess.Popen[bytes] | None:
        """The receiver that lets its last associations end."""
        return self._leaving

    def renew(self, children: Sequence[Child]) -> None:
        """One step of replacing each receiver that runs: the next one listens before the old one is told to go."""
        if self.asked.is_set():
            self.asked.clear()
            self._to_renew = [(c, c.process.pid) for c in children if c.role == ROLE and c.process and c.alive]
            structlog.get_logger().info(log_events.RECEIVERS_RENEWED, processes=len(self._to_renew), done=False)
        if self._leaving is not None:
            self._let_go(self._leaving)
        elif self._to_renew:
            self._replace(*self._to_renew.pop(0))

    def forget_renewal(self) -> None:
        """All of them are stopped."""
        self._to_renew, self._leaving, self._successor = [], None, None

    def _replace(self, child: Child, pid: int) -> None:
        if child.process is None or child.process.pid != pid or not child.alive:
            return  # it died meanwhile, and what runs is new
        self._leaving, self._successor, self._leave_by = child.process, child, 0.0
        child.process, child.start_at = None, 0.0  # the supervisor starts the next one

    def _let_go(self, leaving: subprocess.Popen[bytes]) -> None:
        if leaving.poll() is not None:
            self._gone(leaving)
        elif not self._leave_by and self._successor_listens():
            leaving.send_signal(signal.SIGUSR1)
            self._leave_by = time.monotonic() + DRAIN_S + self.settings.node.stop_grace_s + 1.0
        elif self._leave_by and time.monotonic() > self._leave_by:
            leaving.kill()

    def _successor_listens(self) -> bool:
        child = self._successor
        if child is None or child.process is None:
            return False
        return notices.read(self.settings, child.name).get("pid") == child.process.pid

    def _gone(self, left: subprocess.Popen[bytes]) -> None:
        forget_process(self.settings, left.pid)
        self.forget(left.pid)
        if left.stdin is not None:
            left.stdin.close()
        self._leaving = None
        log = structlog.get_logger()
        log.info(log_events.RECEIVER_LEFT, pid=left.pid, status=left.returncode)
        if not self._to_renew:
            log.info(log_events.RECEIVERS_RENEWED, processes=self.count, done=True)


def inherited() -> tuple[socket.socket | None, int]:
    """In a receiver: the socket that it was given, None where it is to make its own; and which of them it is."""
    descriptor = os.environ.pop(LISTEN_FD, "")
    index = int(os.environ.pop(RECEIVER_INDEX, "0"))
    if not descriptor:
        return handed_over(), index
    os.set_inheritable(int(descriptor), False)  # not our decoders'
    return socket.socket(fileno=int(descriptor)), index

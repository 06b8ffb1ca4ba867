"""`serve` without a role: reconcile, start every role as a child, keep them alive, stop them in order.

Children are spawned (never forked after threads) and hold one end of a pipe: when this process dies, however it dies,
they notice and stop.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog

from config import Settings
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from node import log_events, notices
from node.counters import COUNTERS, clear_counters, counters_dir, forget_process
from node.echo import own_echo, receive_address
from node.listening import listen
from node.lock import alone
from node.logging import describe
from node.process import EXIT_CANNOT_LISTEN, EXIT_VOLUME_FAILED, LOCK_FD, PARENT_PIPE, stop_on_signals
from node.roles import ROLES
from node.wiring import open_ledger, owner_prefix

STOP_ORDER = ("receive", "analyse", "report", "deliver", "web")
BACKOFF_FIRST_S, BACKOFF_MAX_S, HEALTHY_AFTER_S = 0.5, 30.0, 60.0
LISTEN_ATTEMPTS = 3
TICK_S = 0.1
READY_ROLES = ("receive", "analyse", "report")  # each tells when it can work: port open, models loaded, writer warm


@dataclass
class Child:
    """One role's process and its history of dying."""

    role: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    backoff_s: float = BACKOFF_FIRST_S
    start_at: float = 0.0
    deaths: int = 0
    refused: int = 0  # deaths because its address could not be had

    @property
    def never_listened(self) -> bool:
        return self.deaths == self.refused >= LISTEN_ATTEMPTS

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass
class Supervisor:
    """Runs the whole node until `stop` is set; `on_ready` is called once the node has answered its own C-ECHO."""

    settings: Settings
    config: Path | None = None
    on_ready: Callable[[], None] = lambda: None
    stop: threading.Event = field(default_factory=threading.Event)
    _ledger: Ledger | None = None
    _lock: int = -1

    def run(self) -> int:
        """The exit status: 0 after an orderly stop, 1 when a child had to be killed.

        Raises NotAlone, and CannotListen when a role's address could not be had from the start.
        """
        self.stop = stop_on_signals()
        self._lock = alone(self.settings, self.settings.node.stop_grace_s + 5.0, self.stop)
        log = structlog.get_logger()
        log.info(log_events.NODE_STARTING, pid=os.getpid(), state_dir=str(self.settings.node.state_dir))
        clean = True
        while not self.stop.is_set():
            self._reconcile()
            children = [Child(role) for role in ROLES]
            try:
                self._keep(children)
            finally:
                clean = self._stop_all(children)
            self.stop.wait(BACKOFF_FIRST_S)
        log.info(log_events.NODE_STOPPED, clean=clean)
        return 0 if clean else 1

    def _reconcile(self) -> None:
        """What a crash left behind is put in order before anything is received."""
        notices.clear(self.settings)
        clear_counters(self.settings)
        self._ledger = self._ledger or open_ledger(self.settings)
        self._ledger.abandon(owner_prefix(), self.settings.look.max_attempts)
        found = self._ledger.reconcile(self.settings.look.max_attempts)
        structlog.get_logger().info(log_events.RECONCILED, **asdict(found))
        if found.lost:
            structlog.get_logger().critical(log_events.LOST_ACKNOWLEDGED_INSTANCE, sop_instance_uids=found.lost)

    def _keep(self, children: list[Child]) -> None:
        """Start and restart children until stopped or until the volume failed."""
        threading.Thread(target=self._announce, name="ready", daemon=True).start()
        while not self.stop.wait(TICK_S):
            for child in children:
                if child.alive:
                    continue
                if child.process is not None and self._mourn(child) == EXIT_VOLUME_FAILED:
                    return
                if child.never_listened:
                    self._try_to_listen(child.role)
                if child.process is None and time.monotonic() >= child.start_at:
                    self._start(child)

    def _start(self, child: Child) -> None:
        command = [sys.executable, "-m", "node.cli", "serve", "--role", child.role]
        if self.config is not None:
            command += ["--config", str(self.config)]
        given = {PARENT_PIPE: "1", LOCK_FD: str(self._lock), COUNTERS: str(counters_dir(self.settings))}
        child.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, env={**os.environ, **given}, pass_fds=(self._lock,)
        )
        child.started_at = time.monotonic()

    def _mourn(self, child: Child) -> int:
        """Note a death, give its leases back at once, and plan the restart."""
        assert child.process is not None
        status, pid = child.process.returncode, child.process.pid
        child.deaths += 1
        child.refused += status == EXIT_CANNOT_LISTEN
        if time.monotonic() - child.started_at > HEALTHY_AFTER_S:
            child.backoff_s = BACKOFF_FIRST_S
        child.process, child.start_at = None, time.monotonic() + child.backoff_s
        log = structlog.get_logger()
        log.error(log_events.ROLE_DIED, died=child.role, status=status, pid=pid, restart_in_s=child.backoff_s)
        child.backoff_s = min(BACKOFF_MAX_S, child.backoff_s * 2)
        forget_process(self.settings, pid)
        self._free_leases(child.role, pid)
        return status

    def _try_to_listen(self, role: str) -> None:
        """What the role could not: raises CannotListen, unless the address has become free meanwhile."""
        wanted = self.settings.web if role == "web" else self.settings.receive
        listen(wanted.host, wanted.port).close()

    def _free_leases(self, role: str, pid: int) -> None:
        assert self._ledger is not None
        try:
            self._ledger.abandon(owner_prefix(role, pid), self.settings.look.max_attempts)
        except LedgerUnavailable as error:  # the leases run out by themselves
            structlog.get_logger().warning(log_events.LEDGER_UNAVAILABLE, error=describe(error))

    def _announce(self) -> None:
        """Say that the node is ready only once its roles can work and it has answered its own C-ECHO."""
        while not self.stop.is_set():
            started = all(notices.read(self.settings, role) for role in READY_ROLES)
            if started and own_echo(self.settings, timeout_s=2.0):
                host, port = receive_address(self.settings)
                structlog.get_logger().info(log_events.NODE_READY, host=host, port=port)
                notices.publish(self.settings, "node", ready=True, host=host, port=port)
                self.on_ready()
                return
            self.stop.wait(TICK_S)

    def _stop_all(self, children: list[Child]) -> bool:
        """SIGTERM to all, receivers first; SIGKILL to who is still there after the grace. True when none was killed."""
        structlog.get_logger().info(log_events.NODE_STOPPING)
        running = [child.process for role in STOP_ORDER for child in children if child.role == role and child.process]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + self.settings.node.stop_grace_s + 1.0
        clean = True
        for process in running:
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                clean = False
            if process.stdin is not None:
                process.stdin.close()
        return clean

"""`serve` without a role: reconcile, start every role as a child, keep them alive, stop them in order.

The receiver starts last, once the models are loaded: a node that could never look at an image says so and ends before
it takes one. After that nothing that befalls another role stops receiving; /healthz tells.

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
from ledger.errors import LedgerUnavailable, PermanentError
from ledger.ledger import Ledger
from node import log_events, notices
from node.child import BACKOFF_FIRST_S, Child
from node.counters import COUNTERS, clear_counters, counters_dir, forget_process
from node.echo import own_echo, receive_address
from node.listening import listen
from node.lock import alone
from node.logging import describe
from node.process import EXIT_CANNOT_SERVE, EXIT_VOLUME_FAILED, LOCK_FD, PARENT_PIPE, stop_on_signals
from node.roles import ROLES
from node.wiring import open_ledger, owner_prefix

STOP_ORDER = ("receive", "analyse", "report", "deliver", "web")
TICK_S = 0.1
HOLD_BACK_S = 120.0  # the longest that the receiver waits for the models; TensorRT's first start takes minutes
READY_ROLES = ("receive", "analyse", "report")  # each tells when it can work: port open, models loaded, writer warm


class CannotServe(PermanentError):
    """The models that the settings ask for cannot be had; the text says why."""


@dataclass
class Supervisor:
    """Runs the whole node until `stop` is set; `on_ready` is called once the node has answered its own C-ECHO."""

    settings: Settings
    config: Path | None = None
    on_ready: Callable[[], None] = lambda: None
    stop: threading.Event = field(default_factory=threading.Event)
    _ledger: Ledger | None = None
    _lock: int = -1
    _receiving: bool = False  # the receiver was once started: from then on nothing is refused
    _began: float = 0.0

    def run(self) -> int:
        """The exit status: 0 after an orderly stop, 1 when a child had to be killed.

        Raises NotAlone, CannotListen when a role's address could not be had from the start, and CannotServe when the
        models could not.
        """
        self.stop = stop_on_signals()
        self._lock = alone(self.settings, self.settings.node.stop_grace_s + 5.0, self.stop)
        log = structlog.get_logger()
        log.info(log_events.NODE_STARTING, pid=os.getpid(), state_dir=str(self.settings.node.state_dir))
        clean, self._began = True, time.monotonic()
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
        self._tell(children)
        while not self.stop.wait(TICK_S):
            for child in children:
                if child.alive:
                    continue
                if child.process is not None:
                    status = self._mourn(child)
                    self._tell(children)
                    if status == EXIT_VOLUME_FAILED:
                        return
                    if status == EXIT_CANNOT_SERVE and not self._receiving:
                        raise CannotServe(child.why)
                if child.never_listened:
                    self._try_to_listen(child.role)
                if time.monotonic() >= child.start_at and self._may_start(child, children):
                    self._start(child)

    def _may_start(self, child: Child, children: list[Child]) -> bool:
        """The receiver waits until the analyser can look, or has died of something that a restart may mend."""
        if child.role != "receive" or self._receiving:
            return True
        looks = bool(notices.read(self.settings, "analyse")) or any(c.died_at for c in children if c.role == "analyse")
        self._receiving = looks or time.monotonic() - self._began > HOLD_BACK_S
        return self._receiving

    def _tell(self, children: list[Child]) -> None:
        """For /healthz: since when the node runs, which role died when (monotonic seconds), and why."""
        deaths = {child.role: child.died_at for child in children if child.died_at}
        why = {child.role: child.why for child in children if child.why}
        notices.publish(self.settings, "supervisor", began=self._began, deaths=deaths, why=why)

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
        wait_s = child.died(status, notices.last_words(self.settings, child.role, pid))
        structlog.get_logger().error(log_events.ROLE_DIED, died=child.role, status=status, pid=pid, restart_in_s=wait_s)
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

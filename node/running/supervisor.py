"""`serve` without a role: reconcile, start every role as a child, keep them alive, stop them in order.

The receivers start last, once the models are loaded: a node that could never look at an image says so and ends before
it takes one. After that nothing that befalls another role stops receiving; /healthz tells. SIGHUP renews the receivers
one after another (node/running/receivers.py).

Children are spawned (never forked after threads) and hold one end of a pipe: when this process dies, however it dies,
they notice and stop.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog

from config import Settings
from ledger.errors import LedgerUnavailable, PermanentError
from ledger.ledger import Ledger
from node import log_events, notices
from node.periodic import Periodically
from node.roles import ROLES
from node.running.child import BACKOFF_FIRST_S, Child
from node.running.clock import ClockWatch
from node.running.listening import listen
from node.running.lock import Lock, alone
from node.running.outage import OUTAGE
from node.running.private_state import clear_scratch, mend
from node.running.process import EXIT_CANNOT_SERVE, EXIT_VOLUME_FAILED, LOCKS, PARENT_PIPE, on_signal, stop_on_signals
from node.running.receivers import ROLE as RECEIVE
from node.running.receivers import Receivers, names
from node.running.service import Pulse, Service
from node.trail import auditing
from node.watching import free_space
from node.watching.counters import COUNTERS, clear_counters, counters_dir, forget_process
from node.watching.echo import own_echo, receive_address
from node.wiring import open_ledger, owner_prefix
from scp.network.tls import CannotSecure, server_context

STOP_ORDER = ("receive", "analyse", "report", "deliver", "web", "keep")
TICK_S, AGAIN_S = 0.1, 1.0
HOLD_BACK_S = 120.0  # the longest that the receiver waits for the models; TensorRT's first start takes minutes
READY_ROLES = ("analyse", "report")  # each tells when it can work, as each receiver does: models loaded, writer warm


class CannotServe(PermanentError):
    """The models or the certificates that the settings ask for cannot be had; the text says why."""


@dataclass
class Supervisor:
    """Runs the whole node until `stop` is set; `on_ready` is called once the node has answered its own C-ECHO."""

    settings: Settings
    config: Path | None = None
    on_ready: Callable[[], None] = lambda: None
    stop: threading.Event = field(default_factory=threading.Event)
    _ledger: Ledger | None = None
    _lock: Lock = ()
    _receivers: Receivers = field(init=False)
    _receiving: bool = False  # a receiver was once started: from then on nothing is refused
    _began: float = 0.0
    _service: Service = field(default_factory=Service)
    _pulse: Pulse = field(init=False)
    _say_short: Periodically = field(default_factory=lambda: Periodically(60.0))

    def run(self) -> int:
        """The exit status: 0 after an orderly stop, 1 when a child had to be killed.

        Raises NotAlone, CannotListen when a role's address could not be had from the start, and CannotServe when the
        models or the certificates could not.
        """
        self.stop, self._pulse = stop_on_signals(), Pulse(self.settings)
        self._lock = alone(self.settings, self.settings.node.stop_grace_s + 5.0, self.stop)
        self._receivers = self._prepare_to_receive()
        log = structlog.get_logger()
        clear_scratch(self.settings)
        if mended := mend(self.settings):
            log.warning(log_events.STATE_MENDED, count=len(mended), such_as=mended[:5])
        log.info(
            log_events.NODE_STARTING,
            pid=os.getpid(),
            state_dir=str(self.settings.node.state_dir),
            mode=self.settings.node.mode,
        )
        if full := free_space.too_little(self.settings):
            log.error(log_events.STORE_FULL, error=full)
        clean, self._began = True, time.monotonic()
        while not self.stop.is_set():
            self._pulse.busy = True
            self._put_in_order()
            self._pulse.busy = False
            children = [Child(role) for role in ROLES if role != RECEIVE] + self._receivers.children()
            try:
                self._keep(children)
            finally:
                clean = self._stop_all(children)
            self.stop.wait(BACKOFF_FIRST_S)
        self._receivers.close()
        if self._ledger is not None:
            auditing.node_stopped(self.settings, self._ledger, clean)
        log.info(log_events.NODE_STOPPED, clean=clean)
        return 0 if clean else 1

    def _prepare_to_receive(self) -> Receivers:
        """The address is ours, and the certificates can be used."""
        if self.settings.receive.tls.enabled:
            try:
                server_context(self.settings.receive.tls)
            except CannotSecure as error:
                raise CannotServe(str(error)) from None
        # At a terminal SIGHUP means that the terminal is gone.
        at_terminal = sys.stdin is not None and sys.stdin.isatty()
        asked = threading.Event() if at_terminal else on_signal(signal.SIGHUP)
        return Receivers(self.settings, asked)

    def _put_in_order(self) -> None:
        """At the start, and after the volume failed: then for as long as it takes, for a node that has run is needed.

        Raises LedgerUnavailable, OSError at the start.
        """
        has_run = self._ledger is not None
        while not self.stop.is_set():
            try:
                self._reconcile()
                return
            except (LedgerUnavailable, OSError) as error:
                if not has_run:
                    raise
                OUTAGE.away(error)
                self.stop.wait(AGAIN_S)

    def _reconcile(self) -> None:
        """What a crash left behind is put in order before anything is received."""
        notices.clear(self.settings)
        clear_counters(self.settings)
        if self._ledger is None:
            self._ledger = open_ledger(self.settings)
            auditing.node_started(self.settings, self._ledger)
        self._ledger.abandon(owner_prefix(), self.settings.look.max_attempts)
        found = self._ledger.reconcile(self.settings.look.max_attempts)
        structlog.get_logger().info(log_events.RECONCILED, **asdict(found))
        if found.lost:
            structlog.get_logger().critical(log_events.LOST_ACKNOWLEDGED_INSTANCE, sop_instance_uids=found.lost)

    def _keep(self, children: list[Child]) -> None:
        """Start and restart children until stopped or until the volume failed."""
        assert self._ledger is not None
        clock = ClockWatch(self._ledger)
        threading.Thread(target=self._announce, name="ready", daemon=True).start()
        self._tell(children)
        while not self.stop.wait(TICK_S):
            self._pulse.turn()
            try:
                if self._turn(children, clock):
                    return
            except OSError as error:  # a full disk, no process, no descriptor: none of them ends what still works
                if self._say_short.due():
                    structlog.get_logger().error(log_events.LOOP_FAILED, exc_info=error)

    def _turn(self, children: list[Child], clock: ClockWatch) -> bool:
        """Look at everybody once. Whether the volume failed. Raises OSError."""
        clock.look()
        self._receivers.renew(children)
        self._replace_stuck(children)
        for child in children:
            if child.alive:
                continue
            if child.process is not None:
                status = child.process.returncode
                volume_failed = status == EXIT_VOLUME_FAILED
                with suppress(OSError) if volume_failed else nullcontext():  # what that disk refuses must not hide it
                    self._mourn(child)
                    self._tell(children)
                if volume_failed:
                    return True
                if status == EXIT_CANNOT_SERVE and not self._receiving:
                    raise CannotServe(child.why)
            if child.never_listened:
                self._try_to_listen(child.role)
            if time.monotonic() >= child.start_at and self._may_start(child, children):
                self._start(child)
        return False

    def _may_start(self, child: Child, children: list[Child]) -> bool:
        """The receiver waits until the analyser can look, or has died of something that a restart may mend."""
        if child.role != RECEIVE or self._receiving:
            return True
        looks = bool(notices.read(self.settings, "analyse")) or any(c.died_at for c in children if c.role == "analyse")
        self._receiving = looks or time.monotonic() - self._began > HOLD_BACK_S
        if self._receiving:
            self._receivers.open()
        return self._receiving

    def _tell(self, children: list[Child]) -> None:
        """For /healthz: since when the node runs, which role died when (monotonic seconds), and why."""
        died = [child for child in children if child.died_at]
        deaths = {role: sorted(at for child in died if child.role == role for at in child.died_at) for role in ROLES}
        why = {child.role: child.why for child in children if child.why}
        told = {"began": self._began, "deaths": {role: times for role, times in deaths.items() if times}, "why": why}
        stuck = dict(self._receivers.stuck_so_far)
        notices.publish(self.settings, "supervisor", **told, receivers=self._receivers.count, stuck=stuck)

    def _replace_stuck(self, children: list[Child]) -> None:
        """Receivers that live and take no callers."""
        for child, pid, how in self._receivers.replace_stuck(children):
            structlog.get_logger().error(log_events.RECEIVER_STUCK, receiver=child.name, pid=pid, how=how.value)
            assert self._ledger is not None
            auditing.role_stuck(self._ledger, child.name, how.value)
            self._tell(children)

    def _start(self, child: Child) -> None:
        command = [sys.executable, "-m", "node.cli", "serve", "--role", child.role]
        if self.config is not None:
            command += ["--config", str(self.config)]
        given = {PARENT_PIPE: "1", LOCKS: ",".join(map(str, self._lock)), COUNTERS: str(counters_dir(self.settings))}
        more, descriptors = self._receivers.given(child) if child.role == RECEIVE else ({}, ())
        child.start_at = time.monotonic() + AGAIN_S  # where the machine has no process for it now
        child.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            env={**os.environ, **given, **more},
            pass_fds=(*self._lock, *descriptors),
        )
        child.started_at = time.monotonic()
        assert self._ledger is not None
        auditing.role_started(self._ledger, child.name)

    def _mourn(self, child: Child) -> None:
        """Note a death, give its leases back at once, and plan the restart."""
        assert child.process is not None
        status, pid = child.process.returncode, child.process.pid
        wait_s = child.died(status, notices.last_words(self.settings, child.name, pid))
        structlog.get_logger().error(log_events.ROLE_DIED, died=child.role, status=status, pid=pid, restart_in_s=wait_s)
        if child.role == RECEIVE:
            self._receivers.forget(pid)
        self._free_leases(child.role, pid)
        assert self._ledger is not None
        auditing.role_died(self._ledger, child.name, status)
        forget_process(self.settings, pid)

    def _try_to_listen(self, role: str) -> None:
        """What the role could not: raises CannotListen, unless the address has become free meanwhile."""
        if role == "web":
            listen(self.settings.web.host, self.settings.web.port).close()

    def _free_leases(self, role: str, pid: int) -> None:
        assert self._ledger is not None
        try:
            self._ledger.abandon(owner_prefix(role, pid), self.settings.look.max_attempts)
        except LedgerUnavailable as error:  # the leases run out by themselves
            OUTAGE.away(error)

    def _announce(self) -> None:
        """Say that the node is ready only once its roles can work and it has answered its own C-ECHO."""
        while not self.stop.is_set():
            every = (*READY_ROLES, *names(self._receivers.count))
            started = all(notices.read(self.settings, name) for name in every)
            if started and own_echo(self.settings, timeout_s=2.0):
                host, port = receive_address(self.settings)
                structlog.get_logger().info(log_events.NODE_READY, host=host, port=port)
                notices.publish(self.settings, "node", ready=True, host=host, port=port)
                self._service.say("READY=1", f"STATUS=Answers on port {port}")
                self._service.watch(self.stop, self._pulse.alive)
                self.on_ready()
                return
            self.stop.wait(TICK_S)

    def _stop_all(self, children: list[Child]) -> bool:
        """SIGTERM to all, receivers first; SIGKILL to who is still there after the grace. True when none was killed."""
        structlog.get_logger().info(log_events.NODE_STOPPING)
        self._pulse.turn()
        if self.stop.is_set():
            self._service.say("STOPPING=1")
        running = [child.process for role in STOP_ORDER for child in children if child.role == role and child.process]
        running = [*([self._receivers.leaving] if self._receivers.leaving else []), *running]
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
        self._receivers.forget_renewal()
        return clean

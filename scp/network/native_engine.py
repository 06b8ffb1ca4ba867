"""The native network engine: one accepting thread, which wakes for callers and once a second to show that it lives, and
one thread for each connection; nothing that polls."""

import errno
import os
import select
import socket
import threading
from functools import partial
from typing import Final

import structlog

from config.settings import ReceiveSettings
from scp import metrics
from scp.network import descriptors
from scp.network.engine import SIGN_EVERY_S, Surroundings
from scp.network.native_connection import Connection
from scp.network.negotiation import Negotiator
from scp.network.policy import Refusal
from scp.network.sparing import SparingLog

log = structlog.get_logger()

BACKLOG: Final = 1024
STACK_BYTES: Final = 512 * 1024
ACCEPT_AT_ONCE: Final = 64
BREATHE_S: Final = 0.2  # after accept() failed for want of descriptors
LAST_MOMENT_S: Final = 2.0


class NativeEngine:
    """scp.network.engine.Engine."""

    def __init__(self, settings: ReceiveSettings, surroundings: Surroundings) -> None:
        self.settings = settings
        self.surroundings = surroundings
        self.policy = surroundings.policy
        self.negotiator = Negotiator(settings, surroundings.policy)
        self.strangers = SparingLog("connection_cut")  # who was cut off before it was associated, and why
        self._room = descriptors.Room(surroundings.policy.max_associations, descriptors.PENDING_MAX)
        self._changed = threading.Condition()
        self._connections: set[Connection] = set()
        self._pending: dict[Connection, None] = {}  # not associated yet, the oldest first
        self._established = 0
        self._accepting = True
        self._stopping = False
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._address = ("", 0)
        self._wake_read, self._wake_write = -1, -1

    def start(self) -> None:
        self._room = descriptors.room(self.policy.max_associations)
        self._listener = self.surroundings.listener or _listen(self.settings.host, self.settings.port)
        self._listener.setblocking(False)
        host, port = self._listener.getsockname()[:2]
        self._address = str(host), int(port)
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._accept_all, name="scp-accept", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        if self._listener is None:
            raise RuntimeError("the engine is not started")
        return self._address

    def drain(self, grace_s: float) -> None:
        self._stop_accepting()
        self._wait_for_none(grace_s)

    def stop(self, grace_s: float) -> None:
        if self._listener is None or self._stopping:
            return
        self._stopping = True
        self._stop_accepting()
        with self._changed:
            pending, others = list(self._pending), self._connections - self._pending.keys()
        for connection in pending:
            connection.cut()
        for connection in others:
            connection.drain()
        if not self._wait_for_none(grace_s):
            with self._changed:
                left = list(self._connections)
            for connection in left:
                connection.cut()
            self._wait_for_none(LAST_MOMENT_S)

    def _stop_accepting(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None or self._listener is None:
            return
        self._accepting = False
        os.write(self._wake_write, b"x")
        thread.join(LAST_MOMENT_S)
        if thread.is_alive():  # stuck: what is open is served all the same
            log.error("accepting_thread_stuck")
        else:
            os.close(self._wake_read)
            os.close(self._wake_write)
        if self.surroundings.listener is None:
            self._listener.close()

    def _wait_for_none(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._connections, seconds)

    # --- called by connections ---

    def enter(self, connection: Connection, calling: str, called: str) -> Refusal | None:
        """Count an association in, or say why not."""
        refusal = self.surroundings.occupancy.enter(calling, partial(self._refusal, calling, called))
        if refusal is None:
            with self._changed:
                self._established += 1
                self._pending.pop(connection, None)
            if self._stopping:
                connection.drain()
        return refusal

    def _refusal(self, calling: str, called: str, in_all: int, of_this_ae: int) -> Refusal | None:
        refusal = self.policy.refusal(calling, called, in_all, of_this_ae)
        return Refusal.LOCAL_LIMIT if refusal is None and self._established >= self._room.associations else refusal

    def leave(self, connection: Connection, calling: str) -> None:
        with self._changed:
            self._established -= 1
        self.surroundings.occupancy.leave(calling)

    def closed(self, connection: Connection) -> None:
        with self._changed:
            self._pending.pop(connection, None)
            self._connections.discard(connection)
            self._changed.notify_all()

    # --- the accepting thread ---

    def _accept_all(self) -> None:
        assert self._listener is not None
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while self._accepting:
            self.surroundings.accepts()
            poll.poll(1000 * SIGN_EVERY_S)
            try:
                for _ in range(ACCEPT_AT_ONCE):
                    if not self._accepting or not self._accept(self._listener):
                        break
            except Exception:  # noqa: BLE001  no memory, not even for the line that tells of it: who comes next is served
                select.select([self._wake_read], [], [], BREATHE_S)

    def _accept(self, listener: socket.socket) -> bool:
        """Whether there may be more to accept."""
        try:
            connection, peer = listener.accept()
        except (BlockingIOError, InterruptedError):  # another process had it
            return False
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._breathe()
            return False  # what was to be accepted is gone
        try:
            self._take(connection, str(peer[0]))
        except Exception:  # no thread to be had, for one
            connection.close()
            log.error("connection_failed", exc_info=True)
        return True

    def _breathe(self) -> None:
        """No descriptor left. Who connected first and said nothing gives up his; nobody who is associated does."""
        metrics.CONNECTIONS_REFUSED.labels("descriptors").inc()
        self._give_up_oldest()
        select.select([self._wake_read], [], [], BREATHE_S)

    def _take(self, connection: socket.socket, peer_address: str) -> None:
        reason = self._unwelcome(peer_address)
        if reason is not None:
            metrics.CONNECTIONS_REFUSED.labels(reason).inc()
            connection.close()
            self.strangers.warn(peer_address, reason)
            if reason == "network":
                self.surroundings.handlers.turned_away(peer_address, "", "address")
            return
        taken = Connection(self, connection, peer_address)
        with self._changed:
            self._connections.add(taken)
            self._pending[taken] = None
        before = threading.stack_size(STACK_BYTES)
        try:
            taken.start()
        except BaseException:
            self.closed(taken)
            raise
        finally:
            threading.stack_size(before)

    def _unwelcome(self, peer_address: str) -> str | None:
        if not self.policy.admits_peer(peer_address):
            return "network"
        most, pending = self._room
        if len(self._pending) >= pending:
            self._give_up_oldest()
        if len(self._connections) >= most + 2 * pending:  # as many linger: they wait for the peer to read our last word
            return "connections"
        return None

    def _give_up_oldest(self) -> None:
        """Who is about to associate does so within milliseconds; the oldest is most likely a silent one."""
        with self._changed:
            oldest = next(iter(self._pending), None)
            if oldest is not None:
                del self._pending[oldest]
        if oldest is not None:
            metrics.CONNECTIONS_REFUSED.labels("crowded_out").inc()
            oldest.cut()
            self.strangers.warn(oldest.peer_address, "crowded_out")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)

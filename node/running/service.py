"""What a service manager hears of the node: that it is ready, that it is alive, that it stops (sd_notify(3)).

Alive is what a restart could mend: the supervisor takes its turns, and who calls the receiver's port gets an answer,
be it no. A PACS that is away, a full disk or a ledger that cannot be reached is told of elsewhere; a restart for these
would only take the receiver away as well.
"""

import os
import socket
import threading
import time
from collections.abc import Callable

import structlog

from config import Settings
from node import log_events
from node.watching.echo import own_echo, receive_address

STUCK_S = 60.0  # without a turn of the supervisor
ANSWER_WITHIN_S = 10.0
# An unknown PDU type (PS3.8 9.3.1): every receiver answers it with A-ABORT, or cuts the line; one over TLS likewise.
NONSENSE = b"\xff\x00\x00\x00\x00\x04\x00\x00\x00\x00"


class Service:
    """The manager that started this process, if one did and listens; then the children do not speak for it."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        usec, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        mine = usec.isdecimal() and pid in ("", str(os.getpid()))
        self.patience_s = int(usec) / 1e6 if mine else 0.0  # without a word for so long, the manager kills us
        self._watched = False

    def say(self, *lines: str) -> None:
        """Tell the manager; nobody listens, nobody is told."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
                wire.settimeout(2.0)
                wire.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            structlog.get_logger().warning(log_events.SERVICE_NOT_TOLD, error=error.strerror)

    def watch(self, stop: threading.Event, alive: Callable[[], bool]) -> None:
        """From a thread of its own, until `stop`: a sign of life as long as there is life."""
        if self._address and self.patience_s and not self._watched:
            self._watched = True
            threading.Thread(target=self._watch, args=(stop, alive), name="watchdog", daemon=True).start()

    def _watch(self, stop: threading.Event, alive: Callable[[], bool]) -> None:
        while not stop.is_set():
            if alive():
                self.say("WATCHDOG=1")
            else:
                structlog.get_logger().error(log_events.NODE_STUCK, patience_s=self.patience_s)
            stop.wait(self.patience_s / 4)


class Pulse:
    """Whether the supervisor takes its turns and the receiver answers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn_at = time.monotonic()
        self.busy = False  # with something that takes long and ends

    def turn(self) -> None:
        """The supervisor came by."""
        self._turn_at = time.monotonic()

    def alive(self) -> bool:
        """Blocks for the length of a C-ECHO."""
        if self.busy:
            return True
        return time.monotonic() - self._turn_at < STUCK_S and (
            own_echo(self._settings, ANSWER_WITHIN_S) or answers(*receive_address(self._settings), ANSWER_WITHIN_S)
        )


def answers(host: str, port: int, within_s: float) -> bool:
    """Whether somebody there takes connections from the queue and deals with them. A full or choosy receiver does."""
    try:
        with socket.create_connection((host, port), within_s) as wire:
            wire.sendall(NONSENSE)
            wire.recv(1)
    except ConnectionResetError:
        return True
    except OSError:
        return False
    return True

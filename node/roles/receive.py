"""The role that answers modalities: associations in, durable instances and jobs out. A node runs as many of it as
receive.processes says, on one socket (node/running/receivers.py); on its own it is one, with a socket of its own.
"""

import os
import signal
import threading

import structlog

from config import Settings
from node import log_events, notices
from node.periodic import Periodically
from node.running.child import Child
from node.running.listening import cannot_listen
from node.running.process import (
    DRAIN_S,
    EXIT_VOLUME_FAILED,
    LISTEN_FD,
    exit_at_latest,
    on_signal,
    stop_on_signals,
)
from node.running.receivers import ROLE, inherited, occupancy, wanted
from node.running.signs import inherited as signs_to_supervisor
from node.watching import free_space
from node.watching.certificates import ExpiryWatch, today
from node.wiring import open_ledger
from scp.receiver import Receiver

CHECK_EVERY_S = 0.5
LOOK_AT_CERTIFICATES_EVERY_S = 3600.0


def run(settings: Settings) -> int:
    """Receive until told to stop; 74 when the volume failed a sync, so that the supervisor reconciles."""
    stop, leave = stop_on_signals(), on_signal(signal.SIGUSR1)
    exit_at_latest(stop, settings.node.stop_grace_s)
    is_one_of_many = LISTEN_FD in os.environ
    (listener, index), signs = inherited(), signs_to_supervisor()
    ledger = open_ledger(settings)
    if not is_one_of_many:
        receiver = Receiver(settings, ledger, listener)
        if full := free_space.too_little(settings):
            structlog.get_logger().error(log_events.STORE_FULL, error=full)
    else:
        receiver = Receiver(settings, ledger, listener, occupancy(settings), wanted(settings.receive), signs.accepts)
    _start(receiver, settings, index)
    certificate, hourly = ExpiryWatch(settings.receive.tls), Periodically(LOOK_AT_CERTIFICATES_EVERY_S)
    while not stop.wait(CHECK_EVERY_S) and not leave.is_set():
        signs.runs()
        if receiver.failed:
            structlog.get_logger().critical(log_events.VOLUME_FAILED)
            signs.ends()
            receiver.stop(0.0)
            return EXIT_VOLUME_FAILED
        if index == 0 and hourly.due():
            certificate.look(today())
    signs.ends()
    if not stop.is_set():
        _drain(receiver, stop)
    receiver.stop(settings.node.stop_grace_s / 2)
    return 0


def _start(receiver: Receiver, settings: Settings, index: int) -> None:
    try:
        receiver.start()
    except OSError as error:
        raise cannot_listen(settings.receive.host, settings.receive.port, error) from error
    host, port = receiver.address
    notices.publish(settings, Child(ROLE, index).name, host=host, port=port, index=index)
    said = {"host": host, "port": port, "ae_title": settings.receive.ae_title, "index": index, "pid": os.getpid()}
    structlog.get_logger().info(log_events.ROLE_STARTED, **said)


def _drain(receiver: Receiver, stop: threading.Event) -> None:
    """Somebody else accepts from now on; let what is open end by itself, unless told to stop meanwhile."""
    structlog.get_logger().info(log_events.ROLE_STOPPING, drain_s=DRAIN_S)
    draining = threading.Thread(target=receiver.drain, args=(DRAIN_S,), name="drain", daemon=True)
    draining.start()
    while draining.is_alive() and not stop.wait(0.05):
        pass

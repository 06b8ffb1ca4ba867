"""The role that answers modalities: associations in, durable instances and jobs out."""

import structlog

from config import Settings
from node import log_events, notices
from node.listening import cannot_listen
from node.process import EXIT_VOLUME_FAILED, exit_at_latest, stop_on_signals
from node.wiring import open_ledger
from scp.receiver import Receiver

CHECK_EVERY_S = 0.5


def run(settings: Settings) -> int:
    """Receive until told to stop; 74 when the volume failed a sync, so that the supervisor reconciles."""
    stop = stop_on_signals()
    exit_at_latest(stop, settings.node.stop_grace_s)
    ledger = open_ledger(settings)
    receiver = Receiver(settings, ledger)
    try:
        receiver.start()
    except OSError as error:
        raise cannot_listen(settings.receive.host, settings.receive.port, error) from error
    host, port = receiver.address
    notices.publish(settings, "receive", host=host, port=port)
    structlog.get_logger().info(log_events.ROLE_STARTED, host=host, port=port, ae_title=settings.receive.ae_title)
    while not stop.wait(CHECK_EVERY_S):
        if ledger.store.failed:
            structlog.get_logger().critical(log_events.VOLUME_FAILED)
            receiver.stop(0.0)
            return EXIT_VOLUME_FAILED
    receiver.stop(settings.node.stop_grace_s / 2)
    return 0

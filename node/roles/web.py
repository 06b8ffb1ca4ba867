"""The role that shows and is asked: page, HTTP interface, health and metrics; and takes studies in by STOW-RS."""

import threading

import structlog

from config import Settings
from ledger.ledger import Ledger
from node import log_events, notices
from node.periodic import Periodically
from node.running.listening import listen
from node.running.process import EXIT_CANNOT_SERVE, EXIT_VOLUME_FAILED, exit_at_latest, stop_on_signals
from node.watching.certificates import ExpiryWatch, today
from node.web.app import make_app
from node.web.server import Server, make_server, tls_of
from node.web.uploads import sweep
from node.wiring import open_ledger
from scp.network.tls import CannotSecure

LOOK_AT_CERTIFICATES_EVERY_S = 3600.0


def run(settings: Settings) -> int:
    """Serve until told to stop; 74 when the volume failed a sync, so that the supervisor reconciles; 78 when the files
    of [web.tls] cannot be used."""
    stop = stop_on_signals()
    exit_at_latest(stop, settings.node.stop_grace_s)
    log = structlog.get_logger()
    listening = listen(settings.web.host, settings.web.port)
    ledger = open_ledger(settings)
    app = make_app(settings, ledger)
    try:
        server = make_server(app, settings.web)
        server.config.load()
    except CannotSecure as error:
        log.critical(log_events.CANNOT_SERVE, reason=str(error))
        notices.say_why(settings, "web", str(error))
        return EXIT_CANNOT_SERVE
    if left := sweep(settings):
        log.warning(log_events.UPLOADS_SWEPT, count=left)
    thread = threading.Thread(  # not main: the signals stay ours
        target=server.run, kwargs={"sockets": [listening]}, name="uvicorn", daemon=True
    )
    thread.start()
    log.info(log_events.ROLE_STARTED, host=settings.web.host, port=settings.web.port, tls=settings.web.tls.enabled)
    try:
        return _serve(settings, ledger, server, thread, stop)
    finally:
        server.should_exit = True
        thread.join(timeout=settings.node.stop_grace_s / 2)
        app.state.stow.stop()


def _serve(settings: Settings, ledger: Ledger, server: Server, thread: threading.Thread, stop: threading.Event) -> int:
    certificate, hourly = ExpiryWatch(tls_of(settings.web)), Periodically(LOOK_AT_CERTIFICATES_EVERY_S)
    while not stop.wait(0.2):
        if not thread.is_alive():
            structlog.get_logger().error(log_events.ROLE_FAILED)
            return 1
        if ledger.store.failed:  # of an instance that came by STOW-RS: nothing more may be acknowledged
            structlog.get_logger().critical(log_events.VOLUME_FAILED)
            return EXIT_VOLUME_FAILED
        if settings.web.tls.enabled and hourly.due():
            certificate.look(today())
    return 0

"""The role that shows: page, health and metrics, read-only."""

import threading

import structlog
import uvicorn

from config import Settings
from node import log_events
from node.listening import listen
from node.process import exit_at_latest, stop_on_signals
from node.web import make_app
from node.wiring import open_ledger


def run(settings: Settings) -> int:
    """Serve the page until told to stop."""
    stop = stop_on_signals()
    exit_at_latest(stop, settings.node.stop_grace_s)
    listening = listen(settings.web.host, settings.web.port)
    app = make_app(settings, open_ledger(settings))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )
    thread = threading.Thread(  # not main: the signals stay ours
        target=server.run, kwargs={"sockets": [listening]}, name="uvicorn", daemon=True
    )
    thread.start()
    structlog.get_logger().info(log_events.ROLE_STARTED, host=settings.web.host, port=settings.web.port)
    while not stop.wait(0.2):
        if not thread.is_alive():
            structlog.get_logger().error(log_events.ROLE_FAILED)
            return 1
    server.should_exit = True
    thread.join(timeout=settings.node.stop_grace_s / 2)
    return 0

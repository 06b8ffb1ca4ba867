"""One process each: receive, analyse, report, deliver, web. Each imports only what it needs."""

import importlib

import structlog

from config import Settings
from ledger.errors import OpenTriageError
from ledger.store import VolumeFailed
from node import log_events
from node.listening import CannotListen
from node.process import EXIT_CANNOT_LISTEN, EXIT_VOLUME_FAILED

ROLES = ("receive", "analyse", "report", "deliver", "web")


def run_role(role: str, settings: Settings) -> int:
    """Run one role in this process until it is told to stop; the exit status."""
    try:
        status: int = importlib.import_module(f"node.roles.{role}").run(settings)
    except VolumeFailed as error:
        structlog.get_logger().critical(log_events.VOLUME_FAILED, exc_info=error)
        return EXIT_VOLUME_FAILED
    except CannotListen as error:
        structlog.get_logger().error(log_events.CANNOT_LISTEN, reason=str(error))
        return EXIT_CANNOT_LISTEN
    except OpenTriageError as error:
        structlog.get_logger().critical(log_events.ROLE_FAILED, exc_info=error)
        return 1
    return status

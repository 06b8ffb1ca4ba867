"""One process each: receive, analyse, report, deliver, web, keep. Each imports only what it needs."""

import importlib
from typing import Any

import structlog

from config import Settings
from ledger.errors import OpenTriageError
from ledger.store import VolumeFailed
from node import imports, log_events
from node.running import on_its_own
from node.running.listening import CannotListen
from node.running.process import EXIT_CANNOT_LISTEN, EXIT_VOLUME_FAILED

ROLES = ("receive", "analyse", "report", "deliver", "web", "keep")


def run_role(role: str, settings: Settings) -> int:
    """Run one role in this process until it is told to stop; the exit status."""
    alone = on_its_own.is_on_its_own()  # a role may forget later who started it
    try:
        if alone:
            on_its_own.begin(role, settings)
        status: int = _imported(role).run(settings)
    except VolumeFailed as error:
        structlog.get_logger().critical(log_events.VOLUME_FAILED, exc_info=error)
        return EXIT_VOLUME_FAILED
    except CannotListen as error:
        structlog.get_logger().error(log_events.CANNOT_LISTEN, reason=str(error))
        return EXIT_CANNOT_LISTEN
    except OpenTriageError as error:
        structlog.get_logger().critical(log_events.ROLE_FAILED, exc_info=error)
        return 1
    if alone:
        on_its_own.end(role, settings)
    return status


def _imported(role: str) -> Any:
    imports.begin()
    try:
        return importlib.import_module(f"node.roles.{role}")
    finally:
        imports.end()

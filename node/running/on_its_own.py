"""A role that no supervisor started: part of a node that is spread over machines, around one ledger and one store
(docs/deploy.md). What a supervisor does for its children, such a role does for itself.
"""

import contextlib
import fcntl
import os
import threading
from typing import Final

from config import Settings
from ledger.errors import OpenTriageError, RetryableError
from ledger.ledger import Ledger
from node.running.lock import beside_others
from node.running.process import PARENT_PIPE
from node.trail import auditing
from node.watching.counters import COUNTERS, counters_of_role
from node.wiring import open_ledger, owner_prefix, run_dir

_held: Final[list[int]] = []  # descriptors, for as long as this process lives


class StoreIsNotThere(RetryableError):
    """The folder of the store is another one than the ledger speaks of: its volume is not mounted."""


def is_on_its_own() -> bool:
    """Whether nobody started this process but a person, or the system."""
    return PARENT_PIPE not in os.environ


def prepare(role: str, settings: Settings) -> None:
    """Before the role is confined, and before anything that counts is imported. Raises NotAlone, OSError."""
    _held.extend(beside_others(settings, settings.node.stop_grace_s + 5.0, threading.Event()))
    os.environ[COUNTERS] = str(counters_of_role(settings, role))


def begin(role: str, settings: Settings) -> None:
    """The store is the ledger's; what this role held when it died here is free again; the audit trail has its start.

    Raises StoreIsNotThere, LedgerUnavailable, OSError.
    """
    ledger = open_ledger(settings)
    try:
        if not ledger.store_is_there():
            raise StoreIsNotThere(
                f"none of the newest images that the ledger knows is in {ledger.store.root}: is its volume mounted?"
            )
        auditing.node_started(settings, ledger)
        auditing.role_started(ledger, role)
        _take_back(role, settings, ledger)
    finally:
        ledger.close()


def end(role: str, settings: Settings) -> None:
    """Its orderly end, for the audit trail."""
    with contextlib.suppress(OpenTriageError):  # a ledger that is away keeps nobody from ending
        ledger = open_ledger(settings)
        auditing.role_stopped(ledger, role)
        ledger.close()


def _take_back(role: str, settings: Settings, ledger: Ledger) -> None:
    """Where no other process of this machine has this role, whoever holds a lease by that name is dead: his work need
    not wait until it runs out."""
    file = os.open(run_dir(settings) / f"{role}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    _held.append(file)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ledger.abandon(owner_prefix(role), settings.look.max_attempts)
    fcntl.flock(file, fcntl.LOCK_SH)

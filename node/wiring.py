"""Where the parts meet: settings -> store -> ledger, and where a running node keeps what is not the ledger's."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from config import Settings
from ledger.errors import OpenTriageError
from ledger.ledger import Ledger
from ledger.presence import is_older, is_there, place
from ledger.store import Store


class NoLedger(OpenTriageError):
    """The ledger that the settings name is not there, or cannot be spoken to; the text says what to do."""


def open_ledger(settings: Settings, must_exist: bool = False) -> Ledger:
    """The ledger of this node over its prepared store. `must_exist`: only when a node has made it; nothing is created.

    Raises NoLedger, LedgerUnavailable, OSError.
    """
    with _driver_named():
        if must_exist and not is_there(settings.database_url):
            raise NoLedger(
                f"no ledger at {place(settings.database_url)}: has a node run with these settings? "
                "Is --config (or OPENTRIAGE_CONFIG) missing?"
            )
        if must_exist and is_older(settings.database_url):
            raise NoLedger(
                f"the ledger at {place(settings.database_url)} is of an older release, which may still be running: "
                "start this release's node, or run `opentriage ledger upgrade`, before you ask it"
            )
        store, wake = Store(settings.node.state_dir / "store"), run_dir(settings) / "wake"
        return Ledger.open(settings.database_url, store, settings.node.mode == "shadow", wake)


@contextmanager
def _driver_named() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise NoLedger(
            "the ledger's URL is PostgreSQL, but psycopg is not installed: "
            ".venv/bin/pip install --require-hashes -r requirements/postgres.txt"
        ) from None


def run_dir(settings: Settings) -> Path:
    """The folder of small files in which the roles of this machine tell each other where they are."""
    folder = settings.node.state_dir / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def owner(role: str) -> str:
    """Who holds a lease: machine, role and process."""
    return owner_prefix(role, os.getpid())


def owner_prefix(role: str = "", pid: int = 0) -> str:
    """The start of the owner's name of every process of this machine, of one role, or of one process.

    Ends in a colon, so that the prefix of process 12 is not one of process 123.
    """
    parts = [socket.gethostname(), *([role] if role else []), *([str(pid)] if pid else [])]
    return ":".join(parts) + ":"

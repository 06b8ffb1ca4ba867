"""Where the parts meet: settings -> store -> ledger, and where a running node keeps what is not the ledger's."""

import os
import socket
from pathlib import Path

from config import Settings
from ledger.ledger import Ledger
from ledger.store import Store


def open_ledger(settings: Settings) -> Ledger:
    """The ledger of this node over its prepared store. Raises LedgerUnavailable, OSError."""
    store = Store(settings.node.state_dir / "store")
    store.prepare()
    return Ledger.open(settings.database_url, store)


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

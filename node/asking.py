"""The ledger for commands that only ask: a question must not make what it asks about."""

from config import Settings
from ledger.errors import OpenTriageError
from ledger.ledger import Ledger
from node.console import fail
from node.wiring import open_ledger


def existing_ledger(settings: Settings) -> Ledger:
    """The ledger of a node that has run, or a sentence on standard error and exit status 1. Creates nothing."""
    try:
        return open_ledger(settings, must_exist=True)
    except OpenTriageError as error:
        fail(str(error))

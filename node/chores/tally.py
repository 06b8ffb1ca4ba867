"""The chore that counts which reports were where they should be in time (ledger/slo.py)."""

import threading

from config import Settings
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from node.running.outage import OUTAGE
from node.watching.slo import targets

EVERY_S = 15.0


def run(settings: Settings, ledger: Ledger, stop: threading.Event) -> None:
    """Tally until told to stop."""
    while not stop.is_set():
        try:
            ledger.tally(targets(settings.slo))
            OUTAGE.back()
        except LedgerUnavailable as error:  # what fell due meanwhile is judged the next time
            OUTAGE.away(error)
        stop.wait(EVERY_S)

"""The loop of the deliver role that tells a sender what is kept, without the rest of the node."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from config.settings import DeliverSettings, Settings
from ledger.ledger import Ledger
from node.roles.commit import Committer

QUICK = DeliverSettings(retry_first_s=0.05, retry_max_s=0.2, connect_timeout_s=30.0, response_timeout_s=30.0)


@contextmanager
def telling(ledger: Ledger, settings: Settings) -> Iterator[None]:
    """Every sender of the settings is told while the block runs."""
    quick, stop = settings.model_copy(update={"deliver": QUICK}), threading.Event()
    threads = [Committer(ledger, quick, one, stop).thread() for one in settings.commitment_requestors]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30.0)

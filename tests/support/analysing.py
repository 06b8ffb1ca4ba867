"""The analyse role's two loops in threads of this process, with the real processes of the models."""

import threading
from typing import Any

from config import Settings
from inference.analyser import Analyser
from inference.model_host import ModelHost
from ledger.completion import Completion
from ledger.ledger import Ledger
from node.looking.turns import Turns
from node.roles import analyse
from tests.support.findings import keep
from tests.support.hosting import packages
from tests.support.records import received


class Role:
    """What the role runs, its two loops in threads of this process."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self.ledger, self.stop = ledger, threading.Event()
        self.host = ModelHost()
        self.analyser = Analyser(settings, packages(settings), ledger.store, children=1, opener=self.host.open)
        self.turns, self.apart = Turns(), self.host.apart()
        self.second = analyse._second_look(
            settings, ledger, self.analyser, self.host, self.apart, self.stop, self.turns
        )
        self.first = analyse._worker(settings, ledger, self.analyser, self.turns, self.stop, self.second.called)
        self._thread = threading.Thread(target=self.first.run)

    def start(self) -> None:
        self.second.start()
        self._thread.start()

    def close(self) -> None:
        self.stop.set()
        self._thread.join()
        self.second.close(30)
        self.analyser.close()
        self.host.close()


def receive(ledger: Ledger, ds: Any) -> str:
    """Its study."""
    ref = keep(ds, ledger.store)
    said = {
        name: getattr(ref, name)
        for name in ("sop_class_uid", "sop_instance_uid", "series_instance_uid", "modality", "sha256", "path")
    }
    ledger.admit(received(ref.study_instance_uid, **said), Completion(20))
    return ref.study_instance_uid

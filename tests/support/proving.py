"""Delivery and proof to one destination, as the deliver role runs them, without the rest of the node."""

import threading
from pathlib import Path
from typing import cast

from config.settings import DeliverSettings, Destination, NodeSettings, ReceiveSettings, Settings
from ledger.delivery_records import DeliveryState, Proof
from ledger.ledger import Ledger
from ledger.records import Stage, StoredObject
from ledger.views import ObjectDelivery
from node.roles.deliver import Deliverer
from node.roles.prove import Prover
from sr_writer.guard import Guard
from tests.support.asked import queue_report
from tests.support.ledgers import open_fresh
from tests.support.peers import free_port
from tests.support.waiting import wait_until

WITHIN_S = 120.0
STUDY = "1.2.3"


class Trusting:
    """These documents rest on no real image; whose they are is proven elsewhere."""

    def prove(self, item: StoredObject, content: bytes) -> None:
        """Everything may leave."""

    def anew(self) -> "Trusting":
        return self


class Delivering:
    """Delivery and proof to one destination, as the deliver role runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger: Ledger = open_fresh(folder)
        self.port = free_port()
        self.stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def settings(self, destination: Destination, **deliver: float) -> Settings:
        """Quick unless said otherwise; our own AE listens on `port` where a receiver is started with these."""
        quick = {"prove_after_s": 0.05, "retry_first_s": 0.05, "retry_max_s": 0.2, "commitment_wait_s": 60.0}
        return Settings(
            node=NodeSettings(state_dir=self.folder),
            receive=ReceiveSettings(host="127.0.0.1", port=self.port, free_disk_min_bytes=0),
            deliver=DeliverSettings.model_validate(quick | deliver),
            destinations=(destination,),
        )

    def run(self, settings: Settings) -> None:
        self.run_deliverer(settings)
        self.run_prover(settings)

    def run_deliverer(self, settings: Settings) -> None:
        [destination] = settings.destinations
        self._start(Deliverer(self.ledger, settings, destination, self.stop, cast(Guard, Trusting())))

    def run_prover(self, settings: Settings) -> None:
        [destination] = settings.destinations
        self._start(Prover(self.ledger, settings, destination, self.stop))

    def _start(self, loop: Deliverer | Prover) -> None:
        self._threads.append(threading.Thread(target=loop.run, daemon=True))
        self._threads[-1].start()

    def objects(self) -> list[ObjectDelivery]:
        return self.ledger.study_objects(STUDY)

    def proofs(self) -> list[Proof]:
        return [one.proof for one in self.objects()]

    def all_are(self, *proofs: Proof) -> list[ObjectDelivery]:
        return wait_until(lambda: self.objects() if set(self.proofs()) == set(proofs) else [], WITHIN_S)

    def events(self, name: str) -> list[str]:
        return [event.text for event in self.ledger.events(STUDY) if event.name == name]

    def idle(self) -> bool:
        jobs = self.ledger.counts()["jobs"]
        return not any(
            jobs.get(f"{stage}:{state}") for stage in (Stage.DELIVER, Stage.PROVE) for state in ("queued", "running")
        )

    def pause(self) -> None:
        """The loops end; `run` starts new ones, which know nothing but the ledger."""
        self.stop.set()
        for thread in self._threads:
            thread.join(20)
        self._threads.clear()
        self.stop = threading.Event()

    def close(self) -> None:
        self.pause()
        self.ledger.close()

    def begin(self, destination: Destination, **deliver: float) -> Settings:
        """A report for the destination, delivered and proven from now on."""
        settings = self.settings(destination, **deliver)
        queue_report(self.ledger, destination.key, STUDY)
        self.run(settings)
        return settings

    def deliver(self, destination: Destination, **deliver: float) -> Settings:
        """A report for the destination, delivered whole; nobody asks for its proof before `run_prover`."""
        settings = self.settings(destination, **deliver)
        queue_report(self.ledger, destination.key, STUDY)
        self.run_deliverer(settings)
        wait_until(lambda: {one.state for one in self.objects()} == {DeliveryState.DELIVERED}, WITHIN_S)
        return settings

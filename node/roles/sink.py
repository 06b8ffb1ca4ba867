"""Where heartbeats are delivered: the deliver role reads their objects back and sees that each is what was made, of its
own patient and study. Nothing of it leaves the node."""

import hashlib
import threading

from config import Settings
from ledger.clinical import SINK
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.ledger import Ledger
from ledger.records import Job, Stage, StoredObject
from node import log_events
from node.roles.outward import POLL_S, Loop
from node.running.lease import LeaseKeeper
from sr_writer.errors import NotNow, NotProven
from sr_writer.guard import Guard


class Sink(Loop):
    """Takes heartbeats of every machine around the ledger."""

    unreachable = log_events.DESTINATION_UNREACHABLE

    def __init__(self, ledger: Ledger, settings: Settings, stop: threading.Event) -> None:
        super().__init__(ledger, settings.deliver, SINK, stop)
        self._guard = Guard(ledger.store, ledger.evidence, ledger.own_objects)

    def _once(self) -> None:
        jobs = self._ledger.claim(Stage.DELIVER, self._owner, 1, self._settings.lease_s, SINK)
        if not jobs:
            self._ledger.wait(Stage.DELIVER, POLL_S, SINK)
            return
        with LeaseKeeper(self._ledger, jobs, self._settings.lease_s):
            self._take(jobs[0])

    def _take(self, job: Job) -> None:
        guard = self._guard.anew()
        for stored in self._ledger.undelivered(job) if job.report_id is not None else []:
            if why := self._wrong(stored, guard):
                self._ledger.park(job, why)
                return
            self._ledger.record_delivery(job, DeliveryOutcome(stored.object_id, DeliveryState.DELIVERED, 0, ""))
        self._ledger.finish_delivery(job)

    def _wrong(self, stored: StoredObject, guard: Guard) -> str:
        """What a destination would not have got; empty when all is well."""
        try:
            content = self._ledger.store.read(stored.path)
            if hashlib.sha256(content).hexdigest() != stored.sha256:
                return f"The stored {stored.kind} is not what was made: its bytes changed."
            guard.prove(stored, content)
        except OSError:
            return f"The stored {stored.kind} cannot be read."
        except (NotNow, NotProven) as error:
            return str(error)
        return ""

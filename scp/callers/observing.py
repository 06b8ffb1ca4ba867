"""What a receiver sees of its callers goes to the ledger in batches: nobody's answer waits for it, and nothing of it is
needed for an acknowledgement to hold."""

import threading
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.peers import Observed
from scp.callers.alerts import Alerts
from scp.callers.arrivals import Arrivals
from scp.callers.own import OwnCalls
from scp.callers.refused import RefusedContexts
from scp.network.engine import AssociationFacts, Ending, RefusedContext
from scp.network.policy import Refusal

log = structlog.get_logger()

TELL_EVERY_S: Final = 5.0


class Observer:
    """Counts for one receiver. `negotiated`, `rejected` and `ended` are called by its engine (scp.network.engine)."""

    def __init__(
        self,
        ledger: Ledger,
        arrivals: Arrivals,
        own_calls: OwnCalls | None = None,
        tell_every_s: float = TELL_EVERY_S,
    ) -> None:
        self._ledger = ledger
        self._arrivals = arrivals
        self._own_calls = own_calls
        self._refused = RefusedContexts()
        self.alerts = Alerts()
        self._tell_every_s = tell_every_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin with what is known already, and tell what is seen from now on."""
        try:
            self._arrivals.learn(self._ledger.arrival_gaps())
        except LedgerUnavailable as error:
            log.warning("habits_not_read", error=str(error))
        self._thread = threading.Thread(target=self._loop, name="scp-observer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tell the rest. When the engine has stopped."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10.0)
        self.tell()

    def negotiated(self, facts: AssociationFacts, refused: Sequence[RefusedContext]) -> None:
        """An association was accepted. Never raises."""
        if not refused and self._own_calls is not None and self._own_calls.may_be(facts):
            self._arrivals.begun_silently(facts)
        else:
            self._refused.negotiated(facts, refused)

    def rejected(self, calling_ae_title: str, called_ae_title: str, refusal: Refusal) -> None:
        """An association was not accepted. Never raises."""
        self._refused.rejected(calling_ae_title, called_ae_title, refusal)

    def ended(self, facts: AssociationFacts, ending: Ending) -> None:
        """An association has ended: what it brought last may be complete. Never raises."""
        released = self._arrivals.ended(facts, ending)
        if released is None:
            return
        wait = released.completion
        try:
            self._ledger.released(facts.association_id, released.study_uids, wait.after_s, wait.because)
        except LedgerUnavailable as error:  # the quiet time holds
            log.warning("release_not_noted", error=str(error))

    def tell(self) -> None:
        """Hand over what was counted, and learn from it. What the ledger does not take is lost: it is a statistic."""
        self._raise_alarm()
        observed = merged(self._arrivals.take(), self._refused.take())
        if not observed:
            return
        try:
            self._arrivals.learn(self._ledger.observe(observed))
        except LedgerUnavailable as error:
            log.warning("observations_lost", error=str(error))

    def _raise_alarm(self) -> None:
        events = self.alerts.take()
        try:
            if events:
                self._ledger.audit(*events)
        except LedgerUnavailable as error:  # the log has a line of each
            log.error("alerts_not_recorded", count=len(events), error=str(error))

    def _loop(self) -> None:
        while not self._stop.wait(self._tell_every_s):
            try:
                self.tell()
            except Exception:
                log.error("observer_failed", exc_info=True)


def merged(one: Mapping[str, Observed], other: Mapping[str, Observed]) -> dict[str, Observed]:
    """Of arrivals and of negotiations: what each counts the other does not; of its own calls the node takes back that
    somebody associated."""
    return {
        title: Observed(
            associations=(seen := other.get(title, Observed())).associations
            + (came := one.get(title, Observed())).associations,
            instances=came.instances,
            gaps=came.gaps,
            refused={**seen.refused, **came.refused},
        )
        for title in sorted({*one, *other})
    }

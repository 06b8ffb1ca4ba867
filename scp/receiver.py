"""Receives studies: wires the policy, the admission contract and a network engine together."""

import socket
from collections.abc import Callable

import structlog

from config.settings import ReceiveSettings, Settings
from ledger.ledger import Ledger
from scp.admission.admitter import Admitter
from scp.admission.quarantine import Quarantine
from scp.callers.arrivals import Arrivals
from scp.callers.newest import Newest
from scp.callers.observing import Observer
from scp.callers.own import OwnCalls
from scp.commitment.answers import CommitmentAnswers
from scp.commitment.requests import CommitmentRequests
from scp.network.engine import Engine, Handlers, Occupancy, OwnOccupancy, Surroundings
from scp.network.policy import AssociationPolicy
from scp.network.tls import Tls

log = structlog.get_logger()

EngineMaker = Callable[[ReceiveSettings, Surroundings], Engine]


def _pynetdicom(settings: ReceiveSettings, surroundings: Surroundings) -> Engine:
    from scp.network.pynetdicom_engine import PynetdicomEngine

    return PynetdicomEngine(settings, surroundings)


def _native(settings: ReceiveSettings, surroundings: Surroundings) -> Engine:
    from scp.network.native_engine import NativeEngine

    return NativeEngine(settings, surroundings)


ENGINES: dict[str, EngineMaker] = {"native": _native, "pynetdicom": _pynetdicom}


def _newest(settings: Settings) -> Newest:
    """Shared by the receivers of this node; a disk that is full takes no file for it, and receives all the same."""
    try:
        settings.node.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Newest(settings.node.state_dir / "newest")
    except OSError as error:
        log.warning("arrivals_not_shared", error=type(error).__name__)
        return Newest()


class Receiver:
    """A Storage and Verification SCP whose acknowledgements hold.

    listener, occupancy: shared with other receivers; receivers: how many they are in all. accepts: called by the thread
    that accepts, in each of its turns.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        listener: socket.socket | None = None,
        occupancy: Occupancy | None = None,
        receivers: int = 1,
        accepts: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = ledger.store
        quarantine = Quarantine(settings.node.state_dir / "quarantine")
        arrivals = Arrivals(settings.study, _newest(settings))
        self._observer = Observer(ledger, arrivals, OwnCalls(settings))
        answers = CommitmentAnswers(settings, ledger, self._observer.alerts.turned_away)
        requestors = {one.ae_title.strip() for one in settings.commitment_requestors}
        policy = AssociationPolicy(
            settings.receive, lambda: self._store.failed, answers.reporters, requestors, settings.peers
        )
        requests = CommitmentRequests(settings, ledger, policy)
        admitter = Admitter(settings, ledger, quarantine, arrivals=arrivals, receivers=receivers)
        self._budget = admitter.budget
        tls = settings.receive.tls
        surroundings = Surroundings(
            policy,
            Handlers(
                admitter.begin,
                answers.report,
                requests.act,
                self._observer.negotiated,
                self._observer.ended,
                self._observer.rejected,
                self._observer.alerts.turned_away,
            ),
            occupancy=occupancy or OwnOccupancy(),
            listener=listener,
            secure=Tls(tls, self._observer.alerts.turned_away).secure if tls.enabled else None,
            accepts=accepts,
        )
        self._engine = ENGINES[settings.receive.engine](settings.receive, surroundings)

    def start(self) -> None:
        """Listen and serve in the background. Raises OSError when the port cannot be had."""
        self._engine.start()
        self._observer.start()
        host, port = self.address
        log.info("receiver_listening", host=host, port=port)

    @property
    def address(self) -> tuple[str, int]:
        return self._engine.address

    @property
    def failed(self) -> bool:
        """The store's volume failed a sync: nothing more is acknowledged. Exit non-zero, restart, reconcile."""
        return self._store.failed

    def drain(self, grace_s: float) -> None:
        """Accept nothing new, and wait at most `grace_s` seconds for what is open to end by itself."""
        self._engine.drain(grace_s)

    def stop(self, grace_s: float) -> None:
        """Finish what is in progress, for at most `grace_s` seconds."""
        self._budget.end_in(grace_s)
        self._engine.stop(grace_s)
        self._observer.stop()
        log.info("receiver_stopped")

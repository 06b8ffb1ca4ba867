"""Receives studies: wires the policy, the admission contract and a network engine together."""

from collections.abc import Callable

import structlog

from config.settings import Settings
from ledger.ledger import Ledger
from scp.admission import Admitter
from scp.commitment import CommitmentAnswers
from scp.engine import AssociationPolicy, Begin, Engine, Report
from scp.quarantine import Quarantine

log = structlog.get_logger()

EngineMaker = Callable[[Settings, AssociationPolicy, Begin, Report], Engine]


def _pynetdicom(settings: Settings, policy: AssociationPolicy, begin: Begin, report: Report) -> Engine:
    from scp.pynetdicom_engine import PynetdicomEngine

    return PynetdicomEngine(settings.receive, policy, begin, report)


ENGINES: dict[str, EngineMaker] = {"pynetdicom": _pynetdicom}


class Receiver:
    """A Storage and Verification SCP whose acknowledgements hold."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._store = ledger.store
        quarantine = Quarantine(settings.node.state_dir / "quarantine")
        answers = CommitmentAnswers(settings, ledger)
        policy = AssociationPolicy(settings.receive, lambda: self._store.failed, answers.reporters)
        admitter = Admitter(settings, ledger, quarantine)
        self._engine = ENGINES[settings.receive.engine](settings, policy, admitter.begin, answers.report)

    def start(self) -> None:
        """Listen and serve in the background. Raises OSError when the port cannot be had."""
        self._engine.start()
        host, port = self.address
        log.info("receiver_listening", host=host, port=port)

    @property
    def address(self) -> tuple[str, int]:
        return self._engine.address

    @property
    def failed(self) -> bool:
        """The store's volume failed a sync: nothing more is acknowledged. Exit non-zero, restart, reconcile."""
        return self._store.failed

    def stop(self, grace_s: float) -> None:
        """Finish what is in progress, for at most `grace_s` seconds."""
        self._engine.stop(grace_s)
        log.info("receiver_stopped")

"""The chore that lets go what is old: images, then results, then what lies in quarantine; in small batches.

Nothing goes while [retention] says nothing. What an earlier process left half done is finished in any case.
"""

import threading
import time
from pathlib import Path

import structlog

from config import Settings
from ledger.audit import AuditEvent, AuditKind
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.retention import ACTOR, DAY_S, Removed, Rules
from node import log_events
from node.running.outage import OUTAGE

PAUSE_S = 0.2  # between batches: receiving and delivering come first
BATCH = 20  # studies


def rules_of(settings: Settings) -> Rules:
    """The settings as the ledger has them."""
    return Rules(
        images_s=settings.retention.images_days * DAY_S,
        results_s=settings.retention.results_days * DAY_S,
        without_proof=settings.retention.without_proof == "accepted",
        promised_s={one.ae_title.strip(): one.retention_days * DAY_S for one in settings.commitment_requestors},
    )


def run(settings: Settings, ledger: Ledger, stop: threading.Event) -> None:
    """Sweep until told to stop."""
    sweeper = Sweeper(settings, ledger, stop)
    while not stop.is_set():
        try:
            sweeper.sweep()
            OUTAGE.back()
        except LedgerUnavailable as error:
            OUTAGE.away(error)
        stop.wait(settings.retention.sweep_every_s)


class Sweeper:
    """One pass at a time."""

    def __init__(self, settings: Settings, ledger: Ledger, stop: threading.Event) -> None:
        self._settings = settings
        self._ledger = ledger
        self._stop = stop
        self._rules = rules_of(settings)
        self._log = structlog.get_logger()

    def sweep(self) -> None:
        """Everything that is due now."""
        if left := self._ledger.finish_removals():
            self._log.info(log_events.REMOVALS_FINISHED, files=left)
        if self._rules.images_s:
            self._tell(log_events.IMAGES_REMOVED, self._all(of_images=True))
        if self._rules.results_s:
            self._tell(log_events.RESULTS_REMOVED, self._all(of_images=False))
        if self._settings.retention.quarantine_days:
            self._empty_quarantine()

    def _all(self, of_images: bool) -> Removed:
        total = Removed()
        while not self._stop.is_set():
            removed = self._ledger.remove_old(self._rules, of_images, BATCH)
            if not removed.studies:
                break
            total += removed
            self._stop.wait(PAUSE_S)
        return total

    def _tell(self, event: str, removed: Removed) -> None:
        if removed.studies:
            self._log.info(event, studies=removed.studies, files=removed.instances, size_bytes=removed.size_bytes)

    def _empty_quarantine(self) -> None:
        """By the files' own times: nothing in the ledger knows them."""
        before = time.time() - self._settings.retention.quarantine_days * DAY_S
        old = [path for path in set_aside(self._settings) if path.stat().st_mtime < before]
        if not old:
            return
        detail = {"what": "quarantine", "files": len(old)}
        self._ledger.audit(AuditEvent(AuditKind.STUDY_DELETED, ACTOR, detail=detail))
        for path in old:
            path.unlink(missing_ok=True)
        self._log.info(log_events.QUARANTINE_EMPTIED, files=len(old))


def set_aside(settings: Settings) -> list[Path]:
    """Broken data sets, and whole ones that nothing knew after a crash."""
    state = settings.node.state_dir
    folders = [state / "quarantine", state / "store" / "orphans"]
    return [path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_file()]

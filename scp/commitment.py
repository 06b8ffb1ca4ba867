"""Answers to our requests for storage commitment that come on an association of the destination's own (PS3.4 J.3.3).

Only a destination that the settings ask to commit may answer, and only to a transaction that it was asked. What it
says goes to the ledger; the deliver role, perhaps on another machine, reads it there.
"""

import warnings
from io import BytesIO
from typing import Final

import structlog
from pydicom.filereader import read_dataset

from config.settings import Settings
from ledger.commitments import CommitmentAnswer, answer_of
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from scp.contexts import COMMITMENT_PUSH_MODEL, IMPLICIT_LITTLE
from scp.engine import EventReport, printable
from scp.status import PROCESSING_FAILURE, SUCCESS
from scp.structure import Limits, walk

log = structlog.get_logger()

# PS3.7 10.1.1.1.8
NO_SUCH_EVENT_TYPE: Final = 0x0113
INVALID_ARGUMENT: Final = 0x0115
NO_SUCH_SOP_CLASS: Final = 0x0118
_EVENT_TYPES: Final = (1, 2)  # all committed; some failed (PS3.4 J.3.3.1)


class CommitmentAnswers:
    """Takes N-EVENT-REPORTs. Shared by all associations."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._ledger = ledger
        self._limits = Limits(settings.receive.max_nesting, settings.receive.max_elements)
        self._destinations: dict[str, set[str]] = {}  # AE title -> keys
        self.reporters: dict[str, set[str]] = {}
        for destination in settings.destinations:
            if "commitment" in destination.proof:
                title = destination.ae_title.strip()
                self._destinations.setdefault(title, set()).add(destination.key)
                ours = self.reporters.setdefault(title, set())
                ours |= {destination.calling_ae_title.strip(), settings.receive.ae_title.strip()}

    def report(self, report: EventReport) -> int:
        """Keep one answer; the status of the response. Never raises."""
        if report.sop_class_uid != COMMITMENT_PUSH_MODEL:
            return NO_SUCH_SOP_CLASS
        if report.event_type not in _EVENT_TYPES:
            return NO_SUCH_EVENT_TYPE
        caller = report.association.calling_ae_title
        said = log.bind(calling_ae_title=printable(caller), peer=report.association.peer_address)
        try:
            answer = self._read(report)
        except Exception:  # noqa: BLE001  whatever a stranger sends; its text could quote it
            said.warning("commitment_answer_malformed")
            return INVALID_ARGUMENT
        try:
            known = self._ledger.commitment_answered(answer, self._destinations.get(caller, set()))
        except LedgerUnavailable:
            said.error("commitment_answer_not_kept")
            return PROCESSING_FAILURE
        if not known:
            said.warning("commitment_answer_unknown")
            return INVALID_ARGUMENT
        said.info("commitment_answer_kept", committed=len(answer.committed), failed=len(answer.failed))
        return SUCCESS

    def _read(self, report: EventReport) -> CommitmentAnswer:
        """Walked within the limits before it is parsed."""
        walk(report.data, report.transfer_syntax_uid, self._limits)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's quote values
            implicit = report.transfer_syntax_uid == IMPLICIT_LITTLE
            return answer_of(read_dataset(BytesIO(report.data), implicit, is_little_endian=True))

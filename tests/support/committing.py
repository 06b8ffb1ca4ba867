"""An archive that can be asked: stores, commits and lists what it holds, and can be told to be difficult."""

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.presentation import AllStoragePresentationContexts

from config.settings import Destination
from tests.support.peers import free_port

PUSH_MODEL, PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
AE_TITLE = "ARCHIVE"


@dataclass
class Archive:
    """commits: offers storage commitment; finds: offers C-FIND; reply_to: our AE's port for an answer on a new
    association, None: on the association that asked; silent: takes requests and never answers them."""

    commits: bool = True
    finds: bool = True
    stores: bool = True
    reply_to: int | None = None
    silent: bool = False
    breaks_off: bool = False  # at every question, as Orthanc does with an AE title that it does not know
    lists_one_uid_only: bool = False
    loses: Callable[[str, int], bool] = lambda uid, time: False  # (UID, how often it came): accepted, then gone
    commits_to: Callable[[str], bool] = lambda uid: True
    failure_reason: int = 0x0112
    held: dict[str, Dataset] = field(default_factory=dict)
    came: list[str] = field(default_factory=list)
    transactions: list[str] = field(default_factory=list)
    asked: list[Dataset] = field(default_factory=list)  # the Action Information of each
    answered: list[int] = field(default_factory=list)  # statuses of the N-EVENT-REPORT-RSPs; -1: none came
    queries: int = 0
    port: int = field(default_factory=free_port)

    def destination(self, **changes: Any) -> Destination:
        values = {"name": "archive", "ae_title": AE_TITLE, "host": "127.0.0.1", "port": self.port, **changes}
        return Destination.model_validate(values)

    def __enter__(self) -> "Archive":
        ae = AE(ae_title=AE_TITLE)
        if self.stores:
            for context in AllStoragePresentationContexts:
                ae.add_supported_context(str(context.abstract_syntax))
        if self.commits:
            ae.add_supported_context(PUSH_MODEL)
        if self.finds:
            ae.add_supported_context(STUDY_ROOT_FIND)
        if not ae.supported_contexts:
            ae.add_supported_context("1.2.840.10008.5.1.1.9")  # printing: somebody else's business
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_N_ACTION, self._commit),
        ]
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()

    def _store(self, event: evt.Event) -> int:
        data = event.dataset
        uid = str(data.SOPInstanceUID)
        self.came.append(uid)
        if not self.loses(uid, self.came.count(uid)):
            self.held[uid] = data
        return 0x0000

    def _find(self, event: evt.Event) -> Any:
        self.queries += 1
        if self.breaks_off:
            event.assoc.abort()
            return
        wanted = event.identifier
        asked = wanted.SOPInstanceUID
        uids = [asked] if isinstance(asked, str) else list(asked)
        if self.lists_one_uid_only and len(uids) > 1:
            uids = []
        for uid in uids:
            data = self.held.get(str(uid))
            if data is None or (data.StudyInstanceUID, data.SeriesInstanceUID) != (
                wanted.StudyInstanceUID,
                wanted.SeriesInstanceUID,
            ):
                continue
            match = Dataset()
            match.QueryRetrieveLevel = "IMAGE"
            match.SOPInstanceUID = uid
            yield 0xFF00, match

    def _commit(self, event: evt.Event) -> tuple[int, None]:
        if self.breaks_off:
            event.assoc.abort()
            return 0x0000, None
        asked = event.action_information
        self.asked.append(asked)
        self.transactions.append(str(asked.TransactionUID))
        if not self.silent:
            threading.Thread(target=self._answer, args=(asked, event.assoc), daemon=True).start()
        return 0x0000, None

    def _answer(self, asked: Dataset, association: Any) -> None:
        answer, kind = self.answer_to(asked)
        if self.reply_to is None:
            status, _ = association.send_n_event_report(answer, kind, PUSH_MODEL, PUSH_MODEL_INSTANCE)
            self.answered.append(int(status.get("Status", -1)))
        else:
            self.answered.append(self.report(answer, kind, self.reply_to))

    def answer_to(self, asked: Dataset) -> tuple[Dataset, int]:
        """(event information, event type) for a request."""
        answer = Dataset()
        answer.TransactionUID = asked.TransactionUID
        good, bad = [], []
        for item in asked.ReferencedSOPSequence:
            uid = str(item.ReferencedSOPInstanceUID)
            (good if uid in self.held and self.commits_to(uid) else bad).append(item)
        if good:
            answer.ReferencedSOPSequence = good
        for item in bad:
            item.FailureReason = self.failure_reason
        if bad:
            answer.FailedSOPSequence = bad
        return answer, 2 if bad else 1

    def report(
        self,
        answer: Dataset,
        kind: int,
        port: int,
        calling: str = AE_TITLE,
        called: str = "OPENTRIAGE",
        role: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> int:
        """An N-EVENT-REPORT on an association of our own, as SCP; its status, -1 without association or context."""
        ae = AE(ae_title=calling)
        ae.add_requested_context(PUSH_MODEL)
        roles = [build_role(PUSH_MODEL, scp_role=True)] if role else []
        secure = (tls, None) if tls else None
        association = ae.associate("127.0.0.1", port, ae_title=called, ext_neg=roles, tls_args=secure)
        if not association.is_established:
            return -1
        try:
            for context in association.accepted_contexts:
                context._as_scp = True  # without role selection the proposer still sends the event, as archives do
            status, _ = association.send_n_event_report(answer, kind, PUSH_MODEL, PUSH_MODEL_INSTANCE)
            return int(status.Status)
        finally:
            association.release()

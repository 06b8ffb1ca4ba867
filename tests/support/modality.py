"""A sender that asks us for storage commitment and hears the answer, on its own association or on one of ours."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RJ

from config.settings import CommitmentRequestor
from tests.support.encoded import CT, data_set, element
from tests.support.peers import free_port
from tests.support.rawscu import EXPLICIT_LITTLE, RawScu

PUSH_MODEL, PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
Pair = tuple[str, str]  # SOP Class UID, SOP Instance UID


def action(listed: Sequence[Pair], transaction_uid: str = "2.25.4712") -> Dataset:
    """The Action Information of a request."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = []
    for sop_class_uid, sop_instance_uid in listed:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        information.ReferencedSOPSequence.append(item)
    return information


@dataclass(frozen=True)
class Heard:
    """One N-EVENT-REPORT. failed: SOP Instance UID -> Failure Reason."""

    event_type: int
    transaction_uid: str
    committed: tuple[str, ...]
    failed: dict[str, int]
    on_own_association: bool


def _now() -> dict[str, str]:
    now = datetime.now(UTC)
    return {"StudyDate": f"{now:%Y%m%d}", "StudyTime": f"{now:%H%M%S}"}


@dataclass
class Modality:
    """statuses: what it answers to the reports that come, 0x0000 after the last of them."""

    ae_title: str = "CT1"
    statuses: list[int] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    roles: list[tuple[bool, bool]] = field(default_factory=list)  # (SCU, SCP) that callers proposed for themselves
    port: int = field(default_factory=free_port)
    taken: dict[str, str] = field(default_factory=_now)  # of every image

    def requestor(self, **changes: Any) -> CommitmentRequestor:
        values = {"ae_title": self.ae_title, "host": "127.0.0.1", "port": self.port, "retention_days": 30, **changes}
        return CommitmentRequestor.model_validate(values)

    def store(self, address: tuple[str, int], *uids: str, study: str = "1.2.3.1") -> None:
        """CT images of one study, each of other bytes, which are the same when it is sent again."""
        with RawScu(address, [(CT, (EXPLICIT_LITTLE,))], calling=self.ae_title) as scu:
            for uid in uids:
                pixels = element(0x7FE00010, "OW", uid.encode().ljust(4096, b"\0"))
                data = data_set(SOPInstanceUID=uid, StudyInstanceUID=study, tail=pixels, **self.taken)
                assert scu.store(CT, uid, data).status == 0

    @contextmanager
    def associated(
        self,
        address: tuple[str, int],
        implicit: bool = False,
        hears: bool = True,
        rejections: list[A_ASSOCIATE_RJ] | None = None,
    ) -> Iterator[Association]:
        """rejections: takes an A-ASSOCIATE-RJ as it comes in; pynetdicom forgets one that the end of the connection
        overtakes."""

        def keep(event: evt.Event) -> None:
            if rejections is not None and isinstance(event.pdu, A_ASSOCIATE_RJ):
                rejections.append(event.pdu)

        ae = AE(ae_title=self.ae_title)
        ae.add_requested_context(PUSH_MODEL, ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian)
        handlers: list[Any] = [(evt.EVT_PDU_RECV, keep)]
        if hears:
            handlers.append((evt.EVT_N_EVENT_REPORT, self._hear, [True]))
        association = ae.associate(*address, ae_title="OPENTRIAGE", evt_handlers=handlers)
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def ask(self, address: tuple[str, int], information: Dataset, **changes: Any) -> int:
        """An association for one N-ACTION; its status. It hears nothing more and is released, as many senders do."""
        with self.associated(address, hears=False) as association:
            return act(association, information, **changes)

    def _hear(self, event: evt.Event, on_own_association: bool) -> tuple[int, None]:
        said = event.event_information
        proposed = event.assoc.requestor.role_selection.get(PUSH_MODEL)
        if proposed is not None:
            self.roles.append((bool(proposed.scu_role), bool(proposed.scp_role)))
        self.heard.append(
            Heard(
                event_type=event.event_type,
                transaction_uid=str(said.TransactionUID),
                committed=tuple(str(i.ReferencedSOPInstanceUID) for i in said.get("ReferencedSOPSequence", ())),
                failed={str(i.ReferencedSOPInstanceUID): i.FailureReason for i in said.get("FailedSOPSequence", ())},
                on_own_association=on_own_association,
            )
        )
        return (self.statuses.pop(0) if self.statuses else 0x0000), None

    # --- its own server, for answers that come later ---

    def __enter__(self) -> "Modality":
        ae = AE(ae_title=self.ae_title)
        ae.require_called_aet = True
        ae.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self._hear, [False])]
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()


def act(
    association: Association,
    information: Dataset,
    action_type: int = 1,
    sop_class: str = PUSH_MODEL,
    sop_instance: str = PUSH_MODEL_INSTANCE,
) -> int:
    """The status of the N-ACTION-RSP; -1 where none came."""
    answered, _ = association.send_n_action(information, action_type, sop_class, sop_instance)
    return int(answered.get("Status", -1))

"""Requests for storage commitment that senders make of us (PS3.4 J.3.2): who may ask, what is kept, what is answered.

The list is the sender's own statement of what a study contains: it is kept from every sender that may store. A promise
gets only who stands in [[commitment_requestors]]: its request is in the ledger before it is answered, and the result
follows on the same association, if all that is listed is here and the engine can, else on one that the deliver role
opens. Answers to requests of our own are in scp/commitment/answers.py.
"""

import os
import socket
from functools import partial
from typing import Final

import structlog
from pydicom.dataset import Dataset

from config.settings import CommitmentRequestor, Settings
from ledger.commitment_requests import HeldRequest
from ledger.commitment_results import CommitmentRequest, Listed
from ledger.errors import LeaseLost, LedgerUnavailable
from ledger.ledger import Ledger
from scp.admission.structure import Limits
from scp.commitment.information import encode_information, read_information
from scp.network.contexts import COMMITMENT_PUSH_MODEL
from scp.network.engine import NO_SUCH_SOP_CLASS, ActionAnswer, ActionRequest, EventToSend, printable
from scp.network.policy import AssociationPolicy
from scp.status import PROCESSING_FAILURE, SUCCESS
from scp.uids import is_valid_uid

log = structlog.get_logger()

PUSH_MODEL_INSTANCE: Final = COMMITMENT_PUSH_MODEL + ".1"  # the well-known SOP instance, PS3.4 J.3.5
REQUEST_COMMITMENT: Final = 1  # Action Type ID, PS3.4 J.3.2.1
# PS3.7 10.1.4.1.10
NO_SUCH_SOP_INSTANCE: Final = 0x0112
INVALID_ARGUMENT: Final = 0x0115
NO_SUCH_ACTION: Final = 0x0123
NOT_AUTHORISED: Final = 0x0124

READ_AT_MOST_S: Final = 5.0  # files, while an association waits
CONFIRM_WITHIN_S: Final = 30.0  # on the association that asked; then the deliver role tells it
DAY_S: Final = 86_400.0
_NAMED_AT_MOST: Final = 1000  # AE titles in the log, once each
_CURE: Final = (
    "if this sender shall delete its images on our word, give it a block [[commitment_requestors]]; else switch its "
    "Storage Commitment off for this node, or set receive.keep_stated_lists = false"
)


class CommitmentRequests:
    """Takes N-ACTIONs. Shared by all associations."""

    def __init__(self, settings: Settings, ledger: Ledger, policy: AssociationPolicy) -> None:
        self._ledger = ledger
        self._policy = policy
        self._limits = Limits(settings.receive.max_nesting, settings.receive.max_elements)
        self._patience_s = settings.receive.commitment_patience_s
        self._limit_s = settings.study.complete_limit_s
        self._owner = f"{socket.gethostname()}:receive:{os.getpid()}:"  # as the supervisor knows this process
        self._requestors = {one.ae_title.strip(): one for one in settings.commitment_requestors}
        self._named: set[str] = set()

    def act(self, request: ActionRequest) -> ActionAnswer:
        """Keep one request; the status of the response, and how to get the result. Never raises."""
        who = request.association
        said = log.bind(calling_ae_title=printable(who.calling_ae_title), peer=who.peer_address)
        status = self._wrong(request)
        if status is not None:
            said.warning("commitment_request_refused", status=f"0x{status:04X}")
            return ActionAnswer(status)
        try:
            asked = self._read(request)
        except Exception:  # noqa: BLE001  whatever a stranger sends; its text could quote it
            said.warning("commitment_request_malformed")
            return ActionAnswer(INVALID_ARGUMENT)
        try:
            requestor = self._requestors.get(who.calling_ae_title)
            if requestor is None:
                return self._keep_list(asked, said)
            key = self._ledger.commitment_requested(asked, self._patience_s, self._limit_s)
        except LedgerUnavailable:
            said.error("commitment_request_not_kept")
            return ActionAnswer(PROCESSING_FAILURE)
        said.info("commitment_request_kept", instances=len(asked.listed))
        return ActionAnswer(SUCCESS, partial(self._event, key, requestor, request.transfer_syntax_uid))

    def _wrong(self, request: ActionRequest) -> int | None:
        """A status of PS3.7 for what is no request for storage commitment, or not of this peer."""
        who = request.association
        if request.sop_class_uid != COMMITMENT_PUSH_MODEL:
            return NO_SUCH_SOP_CLASS
        if request.sop_instance_uid != PUSH_MODEL_INSTANCE:
            return NO_SUCH_SOP_INSTANCE
        if request.action_type != REQUEST_COMMITMENT:
            return NO_SUCH_ACTION
        if not self._policy.may_request(who.calling_ae_title, who.called_ae_title):
            return NOT_AUTHORISED
        return None

    def _read(self, request: ActionRequest) -> CommitmentRequest:
        transaction_uid, listed = read_information(
            request.data, request.transfer_syntax_uid, self._limits, _transaction_and_list
        )
        return CommitmentRequest(request.association.calling_ae_title, transaction_uid, listed)

    def _keep_list(self, asked: CommitmentRequest, said: structlog.stdlib.BoundLogger) -> ActionAnswer:
        """Worth knowing, and no promise."""
        title = asked.calling_ae_title
        self._ledger.contents_stated(title, [one.sop_instance_uid for one in asked.listed], self._limit_s)
        if title not in self._named and len(self._named) < _NAMED_AT_MOST:
            self._named.add(title)
            said.warning("commitment_not_enabled", cure=_CURE)
        return ActionAnswer(NOT_AUTHORISED)

    # --- the result, on the same association ---

    def _event(self, key: int, requestor: CommitmentRequestor, transfer_syntax_uid: str) -> EventToSend | None:
        """What is sent now; None when something is still on its way, or reading takes too long. Never raises."""
        try:
            if self._ledger.store.failed:
                return None  # nothing on this volume can be vouched for until a restart
            held = self._ledger.claim_this_commitment(key, self._owner, CONFIRM_WITHIN_S)
            return self._judged(held, requestor, transfer_syntax_uid) if held else None
        except (LedgerUnavailable, LeaseLost):
            return None  # the deliver role tells it
        except Exception:  # an association must not end for this
            log.error("commitment_result_failed", exc_info=True)
            return None

    def _judged(self, held: HeldRequest, requestor: CommitmentRequestor, syntax: str) -> EventToSend | None:
        judgement = self._ledger.judge_commitment(held, requestor.retention_days * DAY_S, READ_AT_MOST_S)
        if judgement is None:
            self._ledger.put_off_commitment(held, "Reading the files takes long.")
            return None
        if judgement.damaged:
            log.error("commitment_file_damaged", **judgement.alarm())
        return EventToSend(
            COMMITMENT_PUSH_MODEL,
            PUSH_MODEL_INSTANCE,
            judgement.result.event_type,
            encode_information(judgement.result.information(), syntax),
            partial(self._told, held),
        )

    def _told(self, held: HeldRequest, confirmed: bool) -> None:
        try:
            if confirmed:
                self._ledger.commitment_told(held)
            else:
                self._ledger.put_off_commitment(held, "It was not confirmed on the association that asked.")
        except (LedgerUnavailable, LeaseLost):
            log.warning("commitment_outcome_not_kept")  # it is told again


def _transaction_and_list(information: Dataset) -> tuple[str, tuple[Listed, ...]]:
    """Of the Action Information (PS3.4 Table J.3-1); what is listed twice, once. Raises for anything else."""
    transaction_uid = str(information.TransactionUID)
    listed = dict.fromkeys(
        Listed(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
        for item in information.ReferencedSOPSequence
    )
    uids = [transaction_uid, *(uid for one in listed for uid in (one.sop_class_uid, one.sop_instance_uid))]
    if not listed or not all(map(is_valid_uid, uids)):
        raise ValueError("no list of instances")
    return transaction_uid, tuple(listed)

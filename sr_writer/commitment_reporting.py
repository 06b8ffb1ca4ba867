"""Tell a sender what we keep of what it sent: Storage Commitment Push Model as SCP (PS3.4 J.3.3), on an association
that we open. What a destination keeps of ours is asked in sr_writer/commitment.py."""

from pynetdicom import build_role

from config.settings import DeliverSettings
from ledger.commitment_results import CommitmentResult
from sr_writer.association import asking
from sr_writer.bounded_socket import reason_of
from sr_writer.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE
from sr_writer.errors import Unreachable
from sr_writer.peer import Peer


def report(requestor: Peer, settings: DeliverSettings, result: CommitmentResult) -> int:
    """The status of its N-EVENT-REPORT-RSP.

    Raises Unreachable (later it may work) and NotOffered (it will not, until somebody changes something there).
    """
    role = build_role(PUSH_MODEL, scp_role=True)  # who opens an association is SCU otherwise (PS3.7 D.3.3.4)
    with asking(requestor, settings, PUSH_MODEL, roles=[role]) as association:
        for context in association.accepted_contexts:
            context._as_scp = True  # also where it left the role without an answer: older senders know none
        answered, _ = association.send_n_event_report(
            result.information(), result.event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE
        )
    status = answered.get("Status")
    if status is None:
        how = reason_of(association) or "did not answer"
        raise Unreachable(f"{requestor.key} {how} when it was told what is kept.")
    return int(status)

"""What becomes of a result object at a destination: delivery and its proof, as the stages hand it to each other.

As in `ledger.records`: frozen, and no record carries a patient's identity.
"""

from dataclasses import dataclass
from enum import StrEnum


class DeliveryState(StrEnum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    REFUSED = "refused"  # by the destination, for good: a person must look
    STOPPED = "stopped"  # by us: it, or what it rests on, could not be shown to be its own patient's
    NOT_NEEDED = "not_needed"  # another of its choice was accepted, or its report was overtaken before it left
    SHADOW = "shadow"  # its report was made in shadow mode: it is never sent


NOT_GONE = (DeliveryState.REFUSED, DeliveryState.STOPPED)  # until a person lets it go
STILL_TO_GO = (DeliveryState.WAITING, *NOT_GONE)


class Proof(StrEnum):
    """How sure we are that a destination holds what it accepted."""

    NONE = "none"  # not accepted yet
    WAITING = "waiting"  # accepted; nobody was asked yet, or the answer is still to come
    COMMITTED = "committed"  # the destination took responsibility (Storage Commitment, PS3.4 J)
    FOUND = "found"  # the destination listed it when asked (C-FIND or QIDO-RS)
    UNPROVEN = "unproven"  # accepted, and the destination offers no way to ask
    MISSING = "missing"  # accepted, and not there when asked: it is sent again


@dataclass(frozen=True)
class DeliveryOutcome:
    """What became of one object at a destination. status: what the destination answered."""

    object_id: int
    state: DeliveryState
    status: int | None  # the C-STORE-RSP status, None when there was no answer
    reason: str
    context: str = ""  # what was negotiated: "Comprehensive SR Storage, Explicit VR Little Endian"

    @property
    def was_sent(self) -> bool:
        """It left here: there was an answer, or none came and it may have arrived all the same."""
        return self.status is not None or (self.state is DeliveryState.WAITING and bool(self.context))


@dataclass(frozen=True)
class ProofOutcome:
    """What is known of one accepted object. text: who said so, or why nothing could be learnt."""

    object_id: int
    proof: Proof
    text: str

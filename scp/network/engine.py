"""The seam to the network. An engine speaks PS3.8 and PS3.7; what may happen is decided behind these few types.

An engine is handed its Surroundings. For each C-STORE-RQ it calls `begin` once the command set is known, writes every
fragment of the data set as it arrives, and sends what `commit` answers. Sinks never raise: the first failure is kept,
later bytes are dropped, and `commit` says what went wrong, so that an engine always has an answer for the peer. An
N-EVENT-REPORT-RQ or N-ACTION-RQ of at most EVENT_MAX_BYTES goes to `report` or `act` whole. One contract suite
(tests/integration/scp) runs over every engine.
"""

import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from scp.network.policy import AssociationPolicy, Refusal
from scp.status import Answer

ENDLESS: Final = 2  # times max_instance_bytes: up to there the peer hears 0xA700 in the end, beyond it is cut off
SIGN_EVERY_S: Final = 1.0  # at most between two signs of life of the thread that accepts
EVENT_MAX_BYTES: Final = 1 << 20  # of an N-EVENT-REPORT's or N-ACTION's data set: thousands of instances


@dataclass(frozen=True)
class AssociationFacts:
    """Who is at the other end. `association_id` is ours and unique for all time."""

    association_id: str
    calling_ae_title: str
    called_ae_title: str
    peer_address: str  # IP address without port


@dataclass(frozen=True)
class StoreRequest:
    """What the command set of a C-STORE-RQ and its presentation context say. UIDs are as sent: not yet trusted."""

    association: AssociationFacts
    abstract_syntax_uid: str
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    message_priority: int  # (0000,0700): 0 MEDIUM, 1 HIGH, 2 LOW


@dataclass(frozen=True)
class EventReport:
    """An N-EVENT-REPORT-RQ. event_type: (0000,1002). data: its encoded data set. Nothing of it is trusted yet."""

    association: AssociationFacts
    transfer_syntax_uid: str
    sop_class_uid: str
    event_type: int
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class ActionRequest:
    """An N-ACTION-RQ. action_type: (0000,1008). data: its encoded data set. Nothing of it is trusted yet."""

    association: AssociationFacts
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    action_type: int
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class EventToSend:
    """An N-EVENT-REPORT-RQ of ours. data: encoded in the presentation context's transfer syntax. told: called once,
    with whether the peer confirmed it with success; False where the association ended before."""

    sop_class_uid: str
    sop_instance_uid: str
    event_type: int
    data: bytes = field(repr=False)
    told: Callable[[bool], None]


@dataclass(frozen=True)
class ActionAnswer:
    """The status of an N-ACTION-RSP. event: asked for once the response has left; what it returns is sent on the same
    association by an engine that can, and is otherwise left to whoever opens a new one."""

    status: int
    event: Callable[[], EventToSend | None] | None = None


@dataclass(frozen=True)
class RefusedContext:
    """A presentation context that a peer proposed and did not get. Nothing of it is trusted."""

    abstract_syntax_uid: str
    transfer_syntax_uids: tuple[str, ...]
    reason: str  # "abstract_syntax" or "transfer_syntax"


class Ending(Enum):
    """How an established association ended."""

    RELEASED = "released"
    ABORTED = "aborted"  # by the peer
    CUT = "cut"  # by the network, a deadline, or us


class InstanceSink(Protocol):
    """Takes the data set of one C-STORE. Used by one thread at a time; ended by exactly one of commit and abort."""

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes of the data set. Never raises for a failed write: commit answers for it."""

    def commit(self) -> Answer:
        """All bytes were written. Returns only when they are durable and in the ledger, or refused. Never raises."""

    def abort(self) -> None:
        """The peer went away: forget the bytes. Safe at any time, and after commit."""


Begin = Callable[[StoreRequest], InstanceSink]
Report = Callable[[EventReport], int]  # the status of the N-EVENT-REPORT-RSP; never raises
Act = Callable[[ActionRequest], ActionAnswer]  # never raises
NO_SUCH_SOP_CLASS: Final = 0x0118  # PS3.7 10.1.1.1.8


def printable(ae_title: str) -> str:
    """A stranger's AE title for the log: at most 16 characters of printable ASCII, the others as "?"."""
    return "".join(c if " " <= c <= "~" else "?" for c in ae_title[:16]).strip()


def _act_on_nothing(request: ActionRequest) -> ActionAnswer:
    return ActionAnswer(NO_SUCH_SOP_CLASS)


@dataclass(frozen=True)
class Handlers:
    """What an engine calls; none of them raises. Each is called by the association's own thread."""

    begin: Begin
    report: Report
    act: Act = _act_on_nothing
    negotiated: Callable[[AssociationFacts, Sequence[RefusedContext]], None] = lambda facts, refused: None
    ended: Callable[[AssociationFacts, Ending], None] = lambda facts, ending: None
    rejected: Callable[[str, str, Refusal], None] = lambda calling, called, refusal: None
    turned_away: Callable[[str, str, str], None] = lambda peer, calling, reason: None  # for who he is, or is not


class Occupancy(Protocol):
    """Counts established associations, over all receiver processes that share a listener."""

    def enter(self, calling_ae_title: str, refusal: Callable[[int, int], Refusal | None]) -> Refusal | None:
        """Ask `refusal(open in all, open of this calling AE title)`; count the association in when it is None."""

    def leave(self, calling_ae_title: str) -> None:
        """An association that was counted in has ended."""


class OwnOccupancy:
    """Occupancy of a receiver that is one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    def enter(self, calling_ae_title: str, refusal: Callable[[int, int], Refusal | None]) -> Refusal | None:
        with self._lock:
            refused = refusal(self._open.total(), self._open[calling_ae_title])
            if refused is None:
                self._open[calling_ae_title] += 1
        return refused

    def leave(self, calling_ae_title: str) -> None:
        with self._lock:
            self._open[calling_ae_title] -= 1
            if not self._open[calling_ae_title]:
                del self._open[calling_ae_title]


@dataclass(frozen=True)
class Surroundings:
    """What an engine is given. listener: bound and listening already, shared with other processes; None: make one.
    secure: wraps an accepted connection in TLS, in the connection's own thread, within its timeout; raises OSError.
    accepts: called by the accepting thread in each of its turns, at least every SIGN_EVERY_S, whether anybody calls or
    not."""

    policy: AssociationPolicy
    handlers: Handlers
    occupancy: Occupancy = field(default_factory=OwnOccupancy)
    listener: socket.socket | None = None
    secure: Callable[[socket.socket], socket.socket] | None = None
    accepts: Callable[[], None] = lambda: None


class Engine(Protocol):
    """A network server for one AE title on one port."""

    def start(self) -> None:
        """Listen and serve in the background. Raises OSError when the address cannot be had."""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; known after start."""

    def drain(self, grace_s: float) -> None:
        """Accept nothing new and let what is open end by itself; return when it has, or after `grace_s` seconds. A
        shared listener stays open for the others."""

    def stop(self, grace_s: float) -> None:
        """Accept nothing new, let messages in progress be answered, end what is left after `grace_s` seconds."""

"""Network engines without a store and a ledger behind them: what they do with bytes, and nothing else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from config.settings import ReceiveSettings
from scp.network.engine import Engine, Handlers, Occupancy, OwnOccupancy, StoreRequest, Surroundings
from scp.network.policy import AssociationPolicy, Reporters
from scp.receiver import ENGINES
from scp.status import SUCCESS, Answer


@dataclass
class KeepingSink:
    """Keeps what it is given; says success."""

    request: StoreRequest
    data: bytearray = field(default_factory=bytearray)
    committed: bool = False
    aborted: bool = False

    def write(self, data: bytes | memoryview) -> None:
        self.data += data

    def commit(self) -> Answer:
        self.committed = True
        return Answer(SUCCESS)

    def abort(self) -> None:
        self.aborted = True


@dataclass
class Sinks:
    begun: list[KeepingSink] = field(default_factory=list)

    def begin(self, request: StoreRequest) -> KeepingSink:
        self.begun.append(KeepingSink(request))
        return self.begun[-1]


@contextmanager
def bare_engine(
    kind: str,
    handlers: Handlers | None = None,
    reporters: Reporters | None = None,
    requestors: tuple[str, ...] = (),
    has_failed: Callable[[], bool] = lambda: False,
    occupancy: Occupancy | None = None,
    accepts: Callable[[], None] = lambda: None,
    **settings: Any,
) -> Iterator[Engine]:
    """An engine on a free port of loopback. settings: of the section [receive]."""
    received = ReceiveSettings(**{"host": "127.0.0.1", "port": 0, **settings})
    policy = AssociationPolicy(received, has_failed, reporters, requestors)
    handlers = handlers or Handlers(Sinks().begin, lambda report: SUCCESS)
    engine = ENGINES[kind](received, Surroundings(policy, handlers, occupancy or OwnOccupancy(), accepts=accepts))
    engine.start()
    try:
        yield engine
    finally:
        engine.stop(0.0)

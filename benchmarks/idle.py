"""Associations that are open and say nothing: what they cost, and how long another one takes; memory against size."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.instances import sized
from benchmarks.receivers import Receiver, running
from benchmarks.senders import environment, send
from benchmarks.watched import Sampler
from tests.support.rawscu import Aborted, RawScu, Rejected

NEW_ONES, NEW_FOR_S = 100, 10.0  # whichever comes first, at least five
SIZES = (27_000, 525_000, 10_000_000, 50_000_000, 200_000_000)


@dataclass(frozen=True)
class Idle:
    """cpu: of one core, 0.01 = 1 %. new_s: TCP connect to A-ASSOCIATE-AC of further associations, sorted."""

    receiver: str
    open: int
    cpu: float
    new_s: tuple[float, ...]
    rss_bytes: int

    @property
    def p50(self) -> float:
        return statistics.median(self.new_s)

    @property
    def p95(self) -> float:
        return self.new_s[min(len(self.new_s) - 1, int(0.95 * len(self.new_s)))]


def idle(receiver: Receiver, folder: Path, associations: int, for_s: float) -> Idle | None:
    """None where it does not hold so many."""
    with running(receiver, folder, environment(no_delay=True)) as one:
        try:
            with _open(one.port, associations):
                time.sleep(1.0)
                cpu, began = one.watched.cpu_s(), time.monotonic()
                time.sleep(for_s)
                share = (one.watched.cpu_s() - cpu) / (time.monotonic() - began)
                return Idle(receiver.name, associations, share, _some_new(one.port), one.watched.rss_bytes())
        except (OSError, Aborted, Rejected):
            return None


@contextmanager
def _open(port: int, associations: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(associations):
            stack.enter_context(RawScu(("127.0.0.1", port)))
        yield


def _some_new(port: int) -> tuple[float, ...]:
    """Sorted."""
    found: list[float] = []
    deadline = time.monotonic() + NEW_FOR_S
    while len(found) < 5 or (len(found) < NEW_ONES and time.monotonic() < deadline):
        found.append(_new(port))
    return tuple(sorted(found))


def _new(port: int) -> float:
    began = time.monotonic()
    with RawScu(("127.0.0.1", port)) as one:
        spent = time.monotonic() - began
        one.release()
    return spent


def memory(receiver: Receiver, folder: Path, files: Sequence[Path]) -> list[int]:
    """Most bytes held while three instances of each file came in, in this order, to one process tree."""
    most = []
    with running(receiver, folder, environment(no_delay=True)) as one:
        for path in files:
            one.watched.forget_peak()
            with Sampler(one.watched, 0.02) as held:
                sent = send(path, one.port, 1, 3, environment(no_delay=True))
            most.append(0 if sent.failed else held.most)
            one.clean()
    return most


def of_all_sizes(folder: Path) -> list[Path]:
    """One CT each."""
    return [sized(size, folder) for size in SIZES]

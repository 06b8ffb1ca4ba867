"""Rounds of sending in turn: receiver A, B, C, D, A, B, C, D, ... for each cell of the table."""

import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.instances import Kind
from benchmarks.quiet import Others, wait_until_quiet
from benchmarks.receivers import Running
from benchmarks.senders import environment, send
from benchmarks.watched import Sampler

FREE_MIN_BYTES = 8 << 30
SETTLE_S = 0.3  # for what a receiver still does after its last answer
FIRST_TRY = {"small": 40, "CT": 20, "DX": 4}  # instances in all, to learn how many fit into a round


@dataclass(frozen=True)
class Cell:
    kind: Kind
    associations: int
    no_delay: bool

    @property
    def name(self) -> str:
        return f"{self.kind.name} x {self.associations}" + ("" if self.no_delay else ", Nagle")


@dataclass(frozen=True)
class Round:
    """One receiver's figures of one round. Times are seconds, per instance where the name says so."""

    rate: float  # instances a second
    cpu_each: float
    cpu_per_gb: float
    sender_cpu_each: float
    rss_bytes: int
    others: float  # share of the cores
    quiet: bool  # before it began


@dataclass
class Results:
    """cell name -> receiver name -> rounds."""

    of: dict[str, dict[str, list[Round]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    each: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, cell: Cell, receiver: str, one: Round) -> None:
        self.of.setdefault(cell.name, {}).setdefault(receiver, []).append(one)

    def median(self, cell: str, receiver: str, value: Callable[[Round], float]) -> float | None:
        rounds = self.of.get(cell, {}).get(receiver, [])
        return statistics.median(map(value, rounds)) if rounds else None

    def rounds(self) -> Iterable[Round]:
        return (one for cell in self.of.values() for rounds in cell.values() for one in rounds)


@dataclass(frozen=True)
class Plan:
    rounds: Callable[[Cell], int]
    round_s: float  # about how long one lasts
    patience_s: float  # how long to wait for a quiet machine


def measure(
    cells: Sequence[Cell], line_up: Sequence[Running], files: dict[str, Path], plan: Plan, results: Results,
    said: Callable[[str], None],
) -> None:  # fmt: skip
    """Every cell of one line-up of receivers; each receiver's first round only tells how many instances to send."""
    for cell in cells:
        each = {one.receiver.name: _how_many(cell, one, files, plan, results) for one in line_up}
        for number in range(plan.rounds(cell)):
            said(f"{cell.name}: round {number + 1} of {plan.rounds(cell)}")
            for one in line_up:
                if count := each[one.receiver.name]:
                    _round(cell, one, files[cell.kind.name], count, plan, results)


def _how_many(cell: Cell, one: Running, files: dict[str, Path], plan: Plan, results: Results) -> int:
    """Instances per association for a round of `round_s`; 0 where the receiver does not take them."""
    first = max(1, FIRST_TRY[cell.kind.name] // cell.associations)
    sent = send(files[cell.kind.name], one.port, cell.associations, first, environment(cell.no_delay))
    one.clean()
    if sent.failed:
        results.failures.append(f"{cell.name}, {one.receiver.name}: {sent.failed} senders failed, left out")
        return 0
    wanted = min(cell.kind.at_most, sent.instances / sent.wall_s * plan.round_s * 2)
    return max(first, round(wanted / cell.associations))


def _round(cell: Cell, one: Running, path: Path, each: int, plan: Plan, results: Results) -> None:
    if shutil.disk_usage(one.data).free < FREE_MIN_BYTES + path.stat().st_size * each * cell.associations:
        raise SystemExit(f"less than {FREE_MIN_BYTES >> 30} GiB would be left on the disk of {one.data}")
    quiet = wait_until_quiet(plan.patience_s)
    one.watched.forget_peak()
    cpu = one.watched.cpu_s()
    with Others() as others, Sampler(one.watched) as memory:
        sent = send(path, one.port, cell.associations, each, environment(cell.no_delay))
    time.sleep(SETTLE_S)
    spent = one.watched.cpu_s() - cpu
    stored = one.stored()
    one.clean()
    if sent.failed or stored < sent.instances:
        results.failures.append(
            f"{cell.name}, {one.receiver.name}: {sent.failed} senders failed, {stored} of {sent.instances} stored"
        )
        return
    results.add(
        cell,
        one.receiver.name,
        Round(
            rate=sent.instances / sent.wall_s,
            cpu_each=spent / sent.instances,
            cpu_per_gb=spent / (sent.instances * path.stat().st_size / 1e9),
            sender_cpu_each=sent.cpu_s / sent.instances,
            rss_bytes=memory.most,
            others=others.without(spent + sent.cpu_s),
            quiet=quiet,
        ),
    )

"""What `benchmarks.receive` found: tables and goals on the terminal, and the generated part of docs/benchmarks.md."""

import os
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.idle import SIZES, Idle
from benchmarks.rounds import Results, Round

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN = "<!-- made by make bench-receive --write: begin -->"
END = "<!-- made by make bench-receive --write: end -->"
HELD_TO_GOALS = "OpenTriage, native"
STORESCP, MAIN_CELL, NAGLE_CELL = "storescp --fork", "CT x 4", "small x 4, Nagle"
LOADED = 0.15  # of all cores, by others
Rows = list[list[str]]


@dataclass
class Measured:
    results: Results = field(default_factory=Results)
    idle: list[Idle] = field(default_factory=list)
    memory: dict[str, list[int]] = field(default_factory=dict)  # receiver -> bytes for each of SIZES
    command: str = ""


@dataclass(frozen=True)
class Goal:
    what: str
    wanted: str
    found: str
    reached: bool | None  # None: not measured


IDLE_HEADS = ("receiver", "idle associations", "CPU of one core", "new one, p50", "p95", "RSS")
HEADS = ("receiver", "instances/s", "receiver CPU", "CPU s/GB", "sender CPU", "RSS", "n")


def cell_rows(measured: Measured, cell: str) -> Rows:
    """One row a receiver: medians, the rate's least and greatest."""
    rows = []
    for receiver, rounds in measured.results.of[cell].items():
        rates = [one.rate for one in rounds]

        def middle(value: Callable[[Round], float], rounds: Sequence[Round] = rounds) -> float:
            return statistics.median(map(value, rounds))

        loaded = sum(1 for one in rounds if one.others > LOADED)
        rows.append(
            [
                receiver,
                f"{number(middle(lambda one: one.rate))} ({number(min(rates))} to {number(max(rates))})",
                f"{middle(lambda one: one.cpu_each) * 1e3:.2f} ms",
                f"{middle(lambda one: one.cpu_per_gb):.2f}",
                f"{middle(lambda one: one.sender_cpu_each) * 1e3:.2f} ms",
                f"{middle(lambda one: one.rss_bytes) / 1e6:.0f} MB",
                f"{len(rounds)}" + (f", {loaded} loaded" if loaded else ""),
            ]
        )
    return rows


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def idle_rows(measured: Measured) -> Rows:
    return [
        [one.receiver, f"{one.open:,}", f"{one.cpu:.1%}", f"{one.p50 * 1e3:.1f} ms", f"{one.p95 * 1e3:.1f} ms",
         f"{one.rss_bytes / 1e6:.0f} MB"]
        for one in measured.idle
    ]  # fmt: skip


def memory_rows(measured: Measured) -> Rows:
    return [
        [name, *(f"{most / 1e6:.0f} MB" if most else "failed" for most in of)] for name, of in measured.memory.items()
    ]


def goals(measured: Measured) -> list[Goal]:
    """The receiver's goals, for the native engine in one process and in several."""
    found: list[Goal] = []
    for receiver in _ours(measured):
        found += _against_storescp(measured, receiver)
        nagle = measured.results.median(NAGLE_CELL, receiver, lambda one: one.rate)
        found.append(_goal(f"{receiver}: {NAGLE_CELL}, instances/s", ">= 300", nagle, lambda v: v >= 300, "{:,.0f}"))
        for one in (one for one in measured.idle if one.receiver == receiver):
            name = f"{receiver}: {one.open:,} idle associations"
            found.append(_goal(f"{name}, processor", "< 1 %", one.cpu, lambda v: v < 0.01, "{:.1%}"))
            found.append(_goal(f"{name}, to a new one, p95", "< 20 ms", one.p95 * 1e3, lambda v: v < 20, "{:.1f} ms"))
        if held := measured.memory.get(receiver):
            ratio = held[-1] / held[0] if held[0] else None
            wanted = f"{SIZES[-1] / 1e6:.0f} MB against {SIZES[0] / 1e3:.0f} KB, RSS"
            found.append(_goal(f"{receiver}: {wanted}", "<= 1.1 x", ratio, lambda v: v <= 1.1, "{:.2f} x"))
    return found


def _ours(measured: Measured) -> Iterator[str]:
    names = [name for cell in measured.results.of.values() for name in cell]
    names += [one.receiver for one in measured.idle] + list(measured.memory)
    return (name for name in dict.fromkeys(names) if name.startswith(HELD_TO_GOALS))


def _against_storescp(measured: Measured, receiver: str) -> list[Goal]:
    def ratio(value: Callable[[Round], float]) -> float | None:
        mine, theirs = (measured.results.median(MAIN_CELL, name, value) for name in (receiver, STORESCP))
        return mine / theirs if mine and theirs else None

    rate, cpu = ratio(lambda one: one.rate), ratio(lambda one: 1 / one.cpu_each)
    return [
        _goal(f"{receiver} / {STORESCP}: {MAIN_CELL}, instances/s", ">= 1.15 x", rate, lambda v: v >= 1.15, "{:.2f} x"),
        _goal(f"{receiver} / {STORESCP}: {MAIN_CELL}, instances per second of receiver CPU", ">= 1.4 x", cpu,
              lambda v: v >= 1.4, "{:.2f} x"),
    ]  # fmt: skip


def _goal(what: str, wanted: str, value: float | None, reached: Callable[[float], bool], form: str) -> Goal:
    return Goal(what, wanted, "" if value is None else form.format(value), None if value is None else reached(value))


def _tables(measured: Measured) -> Iterator[tuple[str, Sequence[str], Rows]]:
    for cell in measured.results.of:
        yield cell, HEADS, cell_rows(measured, cell)
    if measured.idle:
        yield "Open and silent associations", IDLE_HEADS, idle_rows(measured)
    if measured.memory:
        yield "Memory against the size of an instance", ("receiver", *map(_size, SIZES)), memory_rows(measured)
    rows = [[one.what, one.wanted, one.found, _verdict(one)] for one in goals(measured)]
    yield "Goals", ("", "goal", "found", ""), rows


def _size(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} KB"


def _verdict(goal: Goal) -> str:
    return "not measured" if goal.reached is None else "reached" if goal.reached else "missed"


def _notes(measured: Measured) -> list[str]:
    rounds = list(measured.results.rounds())
    others = statistics.median(one.others for one in rounds) if rounds else 0.0
    restless = sum(1 for one in rounds if not one.quiet)
    return [
        f"Others used {others:.0%} of the cores in the median round; {restless} of {len(rounds)} rounds began on a"
        " machine that did not become quiet. Orthanc was not asked to hold idle associations.",
        *measured.results.failures,
    ]


def show(measured: Measured, console: Console) -> None:
    """Tables on the terminal."""
    for title, heads, rows in _tables(measured):
        table = Table(title=title, title_justify="left")
        for index, head in enumerate(heads):
            table.add_column(head, justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for note in _notes(measured):
        console.print(note)


def write(measured: Measured) -> None:
    """Replace the generated section of docs/benchmarks.md."""
    lines = [BEGIN, "", f"    {measured.command}", "", f"{_machine()}.", *_notes(measured)]
    for title, head, rows in _tables(measured):
        lines += ["", f"### {title}", "", f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1)]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    text = DOCS.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCS.write_text(before + "\n".join([*lines, "", END]) + after, encoding="utf-8")


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {os.cpu_count()} cores, {model}; Python {platform.python_version()}"
    )

"""Things timed in turn inside one run, because the machine's speed drifts; wall clock beside processor time."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Bench = Callable[[], object]


@dataclass
class Timed:
    """Milliseconds for `per` things at once; figures are of one thing."""

    per: int = 1
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu)

    def take(self, run: Bench) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        self.wall.append((time.perf_counter() - wall) * 1000.0 / self.per)
        self.cpu.append((time.process_time() - cpu) * 1000.0 / self.per)


def interleaved(benches: Mapping[str, tuple[Bench, int]], rounds: int) -> dict[str, Timed]:
    """A B C, A B C, ... after one unmeasured round. benches: name -> (what, how many things it does at once)."""
    timed = {name: Timed(per) for name, (_, per) in benches.items()}
    for run, _ in benches.values():
        run()
    for _ in range(rounds):
        for name, (run, _) in benches.items():
            timed[name].take(run)
    return timed


def ratio(one: Timed, other: Timed) -> tuple[float, float, float]:
    """Median, least and greatest of the pairs' ratios."""
    values = [a / b for a, b in zip(one.wall, other.wall, strict=True)]
    return statistics.median(values), min(values), max(values)


class Report:
    """Lines for a person, or Markdown tables for docs/benchmarks.md."""

    def __init__(self, markdown: bool, of: str) -> None:
        """of: what every heading names, for a table is copied without the line above it."""
        self._markdown, self._of = markdown, of

    def heading(self, text: str) -> None:
        named = f"{text}: {self._of}"
        print(f"\n### {named}\n" if self._markdown else f"\n{named}")
        if self._markdown:
            print("| | wall, median | min | max | processor | n |\n|---|--:|--:|--:|--:|--:|", flush=True)

    def row(self, name: str, timed: Timed) -> None:
        cells = [f"{value:.1f} ms" for value in (timed.median, min(timed.wall), max(timed.wall), timed.cpu_median)]
        self._line(name, [*cells, str(len(timed.wall))])

    def rows(self, timed: Mapping[str, Timed]) -> None:
        for name, one in timed.items():
            self.row(name, one)

    def ratio(self, name: str, one: Timed, other: Timed) -> None:
        cpu = one.cpu_median / max(other.cpu_median, 1e-6)
        cells = [f"{value:.3f} x" for value in (*ratio(one, other), cpu)]
        self._line(name, [*cells, str(len(one.wall))])

    def note(self, text: str) -> None:
        print(f"| {text} | | | | | |" if self._markdown else f"  {text}", flush=True)

    def _line(self, name: str, cells: list[str]) -> None:
        if self._markdown:
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
        else:
            print(f"  {name:<52}" + "".join(f"{cell:>12}" for cell in cells), flush=True)

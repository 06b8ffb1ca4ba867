"""Receivers side by side on one machine: the same DCMTK senders against storescp, Orthanc, stock pynetdicom and us.

Run: make bench-receive; ARGS="--quick" is a short form for development, ARGS="--write" writes docs/benchmarks.md.
Receivers take turns inside each cell, because the machine's speed drifts; before each round it waits until nobody else
uses the processor, and what others used meanwhile is told. What was received is emptied, and the disk synced, between
rounds.
"""

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from benchmarks.idle import idle, memory, of_all_sizes
from benchmarks.instances import KINDS, make
from benchmarks.receive_report import MAIN_CELL, Measured, show, write
from benchmarks.receivers import MANY, Receiver, receivers, running
from benchmarks.rounds import Cell, Plan, Results, measure
from benchmarks.senders import environment

IDLE = 1200
IDLE_POLLING = (10, 50)  # of what looks every millisecond
CELLS = ("CT:4", "CT:1", "CT:16", "small:4", "small:1", "small:16", "DX:4", "DX:1", "DX:16",
         "small:4:nagle", "small:1:nagle", "small:16:nagle", "CT:4:nagle", "DX:4:nagle")  # fmt: skip


def cell_of(text: str) -> Cell:
    """KIND:ASSOCIATIONS or KIND:ASSOCIATIONS:nagle."""
    kind, count, *nagle = text.split(":")
    if kind not in KINDS or nagle not in ([], ["nagle"]):
        raise ValueError(text)
    return Cell(KINDS[kind], int(count), no_delay=not nagle)


def compare(chosen: Sequence[Receiver], wanted: Sequence[Cell], plan: Plan, folder: Path, console: Console) -> Results:
    """All cells; DCMTK and Orthanc read TCP_NODELAY at their start, so there is one line-up for either way."""
    results = Results()
    files = {kind.name: make(kind, folder) for kind in {cell.kind for cell in wanted}}
    for no_delay in (True, False):
        these = [cell for cell in wanted if cell.no_delay is no_delay]
        if not these:
            continue
        with ExitStack() as stack:
            where = folder / ("nodelay" if no_delay else "nagle")
            line_up = [
                stack.enter_context(running(one, where / str(number), environment(no_delay)))
                for number, one in enumerate(chosen)
            ]
            measure(these, line_up, files, plan, results, lambda text: console.print(f"[dim]{text}[/]"))
    return results


def options() -> argparse.Namespace:
    known = receivers()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="CT, 4 associations, 2 short rounds, few idle ones")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--main-rounds", type=int, default=7, help=f"of {MAIN_CELL}, which the goals are about")
    parser.add_argument("--round-s", type=float, default=2.0, help="about how long a round lasts")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for a quiet machine")
    parser.add_argument(
        "--receivers", nargs="+", choices=known, help="default: all but pynetdicom-2; --quick: storescp, ours"
    )
    parser.add_argument("--cells", nargs="*", type=cell_of, default=list(map(cell_of, CELLS)), help="KIND:N[:nagle]")
    parser.add_argument("--idle", type=int, default=IDLE, help="open and silent associations; 0: not measured")
    parser.add_argument("--idle-s", type=float, default=10.0)
    parser.add_argument("--no-sizes", action="store_true", help="leave out memory against size")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    parser.add_argument("--folder", type=Path, help="where receivers write; default: the temporary folder's disk")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.main_rounds, chosen.round_s, chosen.patience, chosen.idle_s = 2, 2, 1.0, 0.0, 3.0
        chosen.cells = [cell_of(text) for text in ("CT:4", "small:4", "small:4:nagle")]
        chosen.idle, chosen.no_sizes = min(chosen.idle, 50), True
    if not chosen.receivers:
        wanted = [name for name in known if name != "pynetdicom-2"]
        chosen.receivers = [name for name in wanted if not chosen.quick or known[name].ours or name == "storescp"]
    if chosen.idle + 200 > MANY:
        parser.error(f"--idle: at most {MANY - 200}")
    return chosen


def run(chosen: argparse.Namespace, folder: Path, console: Console) -> Measured:
    known = receivers()
    these = [known[name] for name in chosen.receivers]
    plan = Plan(
        lambda cell: chosen.main_rounds if cell.name == MAIN_CELL else chosen.rounds, chosen.round_s, chosen.patience
    )
    measured = Measured(results=compare(these, chosen.cells, plan, folder, console))
    for number, one in enumerate(these):
        if chosen.idle and one.name != "Orthanc":
            for count in IDLE_POLLING if "pynetdicom" in one.name else (chosen.idle,):
                console.print(f"[dim]{one.name}: {count} idle associations[/]")
                found = idle(one, folder / f"idle-{number}-{count}", count, chosen.idle_s)
                if found is None:
                    measured.results.failures.append(f"{one.name} does not hold {count} associations")
                else:
                    measured.idle.append(found)
    if not chosen.no_sizes:
        files = of_all_sizes(folder)
        for number, one in enumerate(these):
            console.print(f"[dim]{one.name}: memory against size[/]")
            measured.memory[one.name] = memory(one, folder / f"sizes-{number}", files)
    return measured


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # what was started is stopped
    chosen, console = options(), Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    with tempfile.TemporaryDirectory(prefix="bench-receive-", dir=chosen.folder) as folder:
        measured = run(chosen, Path(folder), console)
    measured.command = shlex.join(
        ["make", "bench-receive", *([f"ARGS={shlex.join(sys.argv[1:])}"] * bool(sys.argv[1:]))]
    )
    show(measured, console)
    if chosen.write:
        write(measured)


if __name__ == "__main__":
    main()

"""python -m tests.torture: run experiments, print one table, fail when an invariant breaks or a control does not."""

import argparse
import dataclasses
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from rich.console import Console

from tests.torture import experiment, report
from tests.torture.experiment import Arm, Context, Experiment, Runner
from tests.torture.nursery_client import Nursery
from tests.torture.shim import build
from tests.torture.watchdog import bounded

MEMORY = Path("/dev/shm")
ROOM_BYTES = 2 << 30
DEFAULT_ENGINES = ("native", "pynetdicom")
ALL = "all"
ARM_S = 900.0  # of the short form, where none takes a minute on a machine with room
ARM_LONG_S = 86_400.0
TRIES = 3  # of an arm in which nothing is broken but bounds on time


def main() -> int:
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 220, highlight=False)
    experiments = _chosen(arguments.experiments, arguments.suite)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
    console.print(f"seed {seed}, engine {arguments.engine}, {'long' if arguments.long else 'short'} form")
    folder = Path(tempfile.mkdtemp(prefix="opentriage-torture-", dir=arguments.folder or _roomy()))
    try:
        lines = _run_all(experiments, arguments, seed, folder, console)
    finally:
        if arguments.keep:
            console.print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    report.show(lines, console)
    if arguments.markdown:
        arguments.markdown.write_text(report.markdown(lines), encoding="utf-8")
    failed = [line for line in lines if not line.passed]
    suite = _suite(arguments.experiments, arguments.suite)
    acked = sum(line.arm.counts["acked"] for line in lines if not line.control)
    lost = sum(line.arm.counts["missing"] + line.arm.counts["corrupt"] for line in lines if not line.control)
    console.print(
        f"{len(lines)} arms, {sum(bool(line.control) for line in lines)} of them controls; {acked:,} acknowledged, "
        f"{lost} lost; {len(failed)} arms failed; {sum(line.seconds for line in lines):.0f} s. "
        f"Repeat: python -m tests.torture --suite {suite} --seed {seed} --engine {arguments.engine}"
    )
    for line in failed:
        console.print(f"[red]{line.experiment.number} {line.control or line.experiment.title}: {line.verdict}[/red]")
    return 1 if failed or not lines else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--experiments", default="", help="numbers, such as 1,2,26; the whole suite when left out")
    parser.add_argument(
        "--suite",
        choices=(*experiment.SUITES, ALL),
        help=f"default: {experiment.SUITES[0]}, or every suite when experiments are named",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--rounds", type=int, help="of each experiment that has rounds")
    length.add_argument("--long", action="store_true", help="as many rounds as reliability figures need: hours")
    parser.add_argument("--engine", choices=DEFAULT_ENGINES, default=_default_engine())
    parser.add_argument("--seed", type=int, help="repeats the random choices of an earlier run")
    parser.add_argument("--folder", type=Path, help="work here; memory when there is room, else the temporary folder")
    parser.add_argument("--keep", action="store_true", help="leave the folders of all arms for a person to look at")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--no-controls", action="store_true", help="only the arms that must hold")
    which.add_argument("--only-controls", action="store_true", help="only the arms that must be caught")
    parser.add_argument("--markdown", type=Path, help="write the table to this file as well")
    return parser.parse_args()


def _default_engine() -> str:
    from config.settings import ReceiveSettings

    return str(ReceiveSettings().engine)


def _roomy() -> Path:
    """Memory, when it has room: what is measured here is order and durability, which a shim watches, not the disk."""
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
        return MEMORY
    return Path(tempfile.gettempdir())


def _suite(text: str, suite: str | None) -> str:
    return suite or (ALL if text else experiment.SUITES[0])


def _chosen(text: str, suite: str | None) -> list[Experiment]:
    suite = _suite(text, suite)
    known = [one for one in experiment.load() if suite in (ALL, one.suite)]
    numbers = {one.number for one in known}
    wanted = {int(number) for number in text.split(",") if number.strip()} or numbers
    if wanted - numbers:
        sys.exit(f"no experiment {min(wanted - numbers)} in {suite}; there are {', '.join(map(str, sorted(numbers)))}")
    return [one for one in known if one.number in wanted]


def _run_all(
    experiments: list[Experiment], arguments: argparse.Namespace, seed: int, folder: Path, console: Console
) -> list[report.Line]:
    lines = []
    with Nursery(folder / "nursery", build(folder)) as nursery:
        for one in experiments:
            arms: dict[str, Runner] = {} if arguments.only_controls else {"": one.run}
            if not arguments.no_controls:
                arms |= {name: control.run for name, control in one.controls.items()}
            for control, runner in arms.items():
                name = f"{one.name}-{control or 'holds'}"
                with console.status(f"{one.number} {control or one.title}") as status:
                    context = Context(
                        folder=folder / name,
                        rng=random.Random(f"{seed} {name}"),
                        engine=arguments.engine,
                        nursery=nursery,
                        long=arguments.long,
                        asked_rounds=arguments.rounds,
                        progress=lambda text, n=name, s=status: s.update(f"{n}: {text}"),  # type: ignore[misc]
                    )
                    lines.append(_run(one, control, runner, context))
                console.print(f"{one.number} {control or one.title}: {lines[-1].verdict} ({lines[-1].seconds:.1f} s)")
    return lines


def _run(one: Experiment, control: str, runner: Runner, context: Context) -> report.Line:
    begun, before = time.monotonic(), list[str]()
    for attempt in range(1, TRIES + 1):
        name = (
            context.folder.name if attempt == 1 else f"again-{attempt}-{context.folder.name}"
        )  # experiment 36 reads all
        folder = context.folder.with_name(name)
        arm = _once(f"{one.number} {control or one.title}", runner, dataclasses.replace(context, folder=folder))
        if control or context.long or arm.broken or arm.not_run or not arm.late or attempt == TRIES:
            break
        before += arm.late
    if before:
        arm.figures["late before"] = "; ".join(before)
    arm.broken += arm.late
    return report.Line(one, control, arm, time.monotonic() - begun)


def _once(name: str, runner: Runner, context: Context) -> Arm:
    context.folder.mkdir(parents=True)
    limit = ARM_LONG_S if context.long or context.asked_rounds else ARM_S
    try:
        with bounded(name, limit, context.folder.parent):
            return runner(context)
    except Exception as error:  # noqa: BLE001  an experiment that breaks down has shown nothing: say so and go on
        traceback.print_exc(limit=-6, chain=False)
        return Arm(not_run=f"it broke down: {type(error).__name__}: {error}"[:300])


if __name__ == "__main__":
    sys.exit(main())

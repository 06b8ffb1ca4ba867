"""What an experiment is: an arm that must hold, and control arms - the receiver mutated - that must not.

A module of this folder whose name is in MODULES calls `register` once for each of its experiments.
"""

import importlib
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.torture.nursery_client import Nursery, Victim

MODULES = (
    "killing", "power_cuts", "power_postgres", "failing", "disk_full", "stalling", "clocks", "exhaustion", "names",
    "network", "network_idle", "network_abuse",
    "sentinels",
    # the suite "hospital"
    "pixel_lies", "bombs", "differential", "poison", "model_faults",
    "security", "audit_away", "read_only",
)  # fmt: skip

SUITES = ("receiver", "hospital")


@dataclass
class Arm:
    """What one arm did and found. `broken`: one sentence for each invariant that did not hold; `late`: the same of
    bounds on time.

    counts: rounds, sent, acked, refused, unknown, missing, corrupt, duplicated, leftovers, phi; other keys are welcome.
    A key that is absent is a place where nobody looked. figures: what else is worth reading, printed as it is. done:
    what was really done, behind the title. goals: what is wanted and whether this run reached it, which on shared cores
    it may not. not_run: why the arm could not run here; that is no success. forbidden: what this machine's kernel does
    not allow, which nobody can install; that is said, and is no failure.
    """

    counts: Counter[str] = field(default_factory=Counter)
    figures: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    done: str = ""
    goals: list[tuple[bool, str]] = field(default_factory=list)
    not_run: str = ""
    forbidden: str = ""

    def goal(self, reached: bool, sentence: str) -> None:
        """sentence: the figure and what is wanted, such as `new association 17 ms, wanted < 20 ms`."""
        self.goals.append((reached, sentence))

    def require(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.broken.append(sentence)

    def in_time(self, holds: bool, sentence: str) -> None:
        """As `require`, of a bound on time. Where nothing else is broken the arm runs again: a product that is slow is
        slow each time, and a machine that stood still for a second is not."""
        if not holds:
            self.late.append(sentence)


@dataclass
class Context:
    """What an arm is given. rng: seeded for this arm alone; folder: its own, empty; rounds: what was asked for."""

    folder: Path
    rng: random.Random
    engine: str
    nursery: Nursery
    long: bool = False
    asked_rounds: int | None = None
    progress: Callable[[str], None] = lambda text: None

    def rounds(self, short: int, long: int) -> int:
        """How many rounds to run: as asked on the command line, else `short` or `long`."""
        return self.asked_rounds or (long if self.long else short)

    def receiver(self, folder: Path | None = None, **birth: Any) -> Victim:
        """A receiver in a process of its own over `folder` (default: the arm's `state`); see Nursery.bear."""
        return self.nursery.bear(folder or self.folder / "state", engine=self.engine, **birth)

    def scratch(self) -> Path:
        """A fresh folder below the arm's."""
        return Path(tempfile.mkdtemp(dir=self.folder))


Runner = Callable[[Context], Arm]


@dataclass(frozen=True)
class Control:
    """An arm in which invariants must be seen broken. shows: a regular expression; one of the broken sentences must
    match it, the one that tells of what was done to the product. Whatever else breaks beside it proves nothing."""

    shows: str
    run: Runner


@dataclass(frozen=True)
class Experiment:
    """number: of the list in docs/torture.md; part: what tells two of one number apart.

    suite: `receiver` breaks what surrounds the receiver; `hospital` what comes after it, and who is let in.
    controls: by name.
    """

    number: int
    title: str
    run: Runner
    controls: Mapping[str, Control]
    part: str = ""
    suite: str = SUITES[0]

    @property
    def name(self) -> str:
        return "-".join(filter(None, (str(self.number), self.part)))


EXPERIMENTS: list[Experiment] = []


def register(number: int, title: str, run: Runner, part: str = "", suite: str = SUITES[0], **controls: Control) -> None:
    """controls: by what is done to the product, words joined by underscores."""
    if nameless := [name for name, control in controls.items() if not isinstance(control, Control)]:
        raise TypeError(f"experiment {number}: {nameless} do not say what they must show: register a Control")
    if suite not in SUITES:
        raise ValueError(f"there is no suite {suite!r}; there are {', '.join(SUITES)}")
    EXPERIMENTS.append(Experiment(number, title, run, controls, part, suite))


def load() -> list[Experiment]:
    """Every experiment there is, in the order in which they run: what reads the others' traces comes last."""
    for module in MODULES:
        if (Path(__file__).parent / f"{module}.py").exists():
            importlib.import_module(f"tests.torture.{module}")
    return EXPERIMENTS

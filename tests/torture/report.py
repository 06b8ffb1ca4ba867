"""The one table, on a screen and as Markdown. Counts, never just "ok"."""

import re
from collections import Counter
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from tests.torture.experiment import Arm, Experiment

COLUMNS = ("rounds", "sent", "acked", "refused", "unknown", "missing", "corrupt", "duplicated", "leftovers", "phi")
NOT_LOOKED = "n/a"  # the experiment does not look there; 0: it looked and found none


@dataclass(frozen=True)
class Line:
    """One arm that ran. control: its name; "" for the arm that must hold."""

    experiment: Experiment
    control: str
    arm: Arm
    seconds: float

    @property
    def passed(self) -> bool:
        if self.arm.forbidden:
            return True
        return not self.arm.not_run and bool(self.shown if self.control else not self.arm.broken)

    @property
    def shown(self) -> list[str]:
        """The broken sentences of a control that tell of what it does to the product."""
        wanted = re.compile(self.experiment.controls[self.control].shows)
        return [sentence for sentence in self.arm.broken if wanted.search(sentence)]

    @property
    def verdict(self) -> str:
        arm = self.arm
        if arm.not_run or arm.forbidden:
            return f"NOT RUN: {arm.not_run or arm.forbidden}"
        if self.control:
            return f"caught: {self.shown[0][:300]}" if self.shown else self._missed
        worst = [f"{text} (x {n})" if n > 1 else text for text, n in Counter(arm.broken).most_common(3)]
        return "; ".join(["BROKEN: " + "; ".join(worst) if arm.broken else "holds", *self.goals])

    @property
    def _missed(self) -> str:
        others = "; ".join(Counter(self.arm.broken)) or "nothing did"
        return f"NOT CAUGHT: `{self.experiment.controls[self.control].shows}` must break and did not; {others[:600]}"

    @property
    def goals(self) -> list[str]:
        """What was wanted beyond the invariants, and whether this run's figures reach it."""
        told = [f"goal {'reached' if reached else 'missed'}: {text}" for reached, text in self.arm.goals]
        return [] if self.control else told

    @property
    def extras(self) -> str:
        counts = [f"{name} {count:,}" for name, count in self.arm.counts.items() if name not in COLUMNS]
        return ", ".join(counts + [f"{name} {value}" for name, value in self.arm.figures.items()])

    def cells(self) -> list[str]:
        name = f"control: {self.control.replace('_', ' ')}" if self.control else self.experiment.title
        if self.arm.done:
            name = f"{name}; {self.arm.done}"
        counts = [f"{self.arm.counts[column]:,}" if column in self.arm.counts else NOT_LOOKED for column in COLUMNS]
        return [str(self.experiment.number), name, *counts, self.extras, self.verdict, f"{self.seconds:.1f}"]


HEADS = ("#", "arm", *COLUMNS, "also", "verdict", "s")


def show(lines: list[Line], console: Console) -> None:
    table = Table(show_lines=False)
    for head in HEADS:
        is_text = head in ("arm", "also", "verdict")
        table.add_column(head, justify="left" if is_text else "right", overflow="fold")
    for line in lines:
        style = "red" if not line.passed else ("dim" if line.control else "")
        table.add_row(*line.cells(), style=style)
    console.print(table)


def markdown(lines: list[Line]) -> str:
    rows = [HEADS, ["---"] * len(HEADS), *(line.cells() for line in lines)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)

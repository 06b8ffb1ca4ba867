"""`opentriage drift`."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from node.asking import existing_ledger
from node.console import ConfigOption, JsonOption, err, out, settings_of
from node.fitting import column_widths
from node.watching.drift import Found, Line, State, percent, sentence
from node.watching.weeks import look

_WORDS: Final = 3  # columns of words; the others are of numbers
app = typer.Typer(add_completion=False)


@app.command()
def drift(
    everything: Annotated[bool, typer.Option("--all", help="Also what is too rare to compare.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Hold the studies of the last days against those of the weeks before, by model and by sender.

    For each finding of each model: how its probabilities are distributed (population stability index) and the share of
    studies flagged; for each model and each sender: the share of studies with an image that was not assessed, by
    reason. Only the same version of a model is compared, and only where there are enough studies (drift.* in the
    settings). What drifts differs by more than chance and by enough to matter; why, a person has to find out:
    docs/runbooks/drift.md. Reads the ledger alone, beside a node or without one. Exit status 0, whatever is found.
    """
    settings = settings_of(config)
    ledger = existing_ledger(settings)
    try:
        *_, found = look(ledger, settings.drift, datetime.now(UTC))
    finally:
        ledger.close()
    assert found is not None
    shown = [line for line in found.lines if everything or as_json or line.state is not State.RARE]
    if as_json:
        for line in shown:
            typer.echo(json.dumps(_record(line, found)))
        return
    if shown:
        out.print(_table(shown, found))
    _say(found)


def _record(line: Line, found: Found) -> dict[str, Any]:
    one = line.subject
    return {
        "kind": one.kind.value, "model": one.model, "sender": one.sender, "name": one.name, "state": line.state.value,
        "recent_studies": line.recent, "reference_studies": line.reference, "now": line.now, "before": line.before,
        "size": round(line.size, 4), "p": line.p, "compared": found.compared,
        "bins_now": line.bins_now, "bins_before": line.bins_before,
    }  # fmt: skip


def _table(lines: list[Line], found: Found) -> Table:
    headings = ("model or sender", "what", "state", "size", f"last {found.recent_days} days",
                f"{found.reference_days} days before")  # fmt: skip
    rows = [_cells(line) for line in lines]
    table = Table(box=None, pad_edge=False)
    for number, width in enumerate(_widths([headings, *rows])):
        side: JustifyMethod = "left" if number < _WORDS else "right"
        table.add_column(headings[number], justify=side, width=width, overflow="fold")
    for line, cells in zip(lines, rows, strict=True):
        table.add_row(*map(Text, cells), style="bold yellow" if line.state is State.DRIFTS else None)
    return table


def _widths(rows: list[tuple[str, ...]]) -> list[int]:
    """Numbers as they are; words share the rest of the terminal, a long one over several lines where it must be."""
    numbers = [max(map(len, column)) for column in list(zip(*rows, strict=True))[_WORDS:]]
    rest = max(out.width - sum(numbers) - 2 * (len(numbers) + _WORDS - 1), _WORDS)
    words = column_widths([row[:_WORDS] for row in rows], rest + 3 * _WORDS + 1)  # its frame is not drawn here
    while sum(words) > rest:
        words[words.index(max(words))] -= 1
    return [*words, *numbers]


def _cells(line: Line) -> tuple[str, ...]:
    one = line.subject
    size = f"{line.size:.2f}" if line.was_compared else "–"
    shares = _share(line.now, line.recent), _share(line.before, line.reference)
    return (one.model or one.sender, one.what, line.state.words, size, *shares)


def _share(share: float | None, studies: int) -> str:
    return f"{studies} studies" if share is None else f"{percent(share)} of {studies}"


def _say(found: Found) -> None:
    for line in found.drifting:
        err.print(f"drift: {sentence(line, found)}", style="bold yellow", markup=False, soft_wrap=True)
    waiting = any(line.state is State.NOT_ENOUGH for line in found.lines)
    enough = f"{found.studies_min} studies in {found.recent_days} days and {2 * found.studies_min} in those before"
    if not found.lines:
        err.print("Nothing was said of any study in the last days.")
    elif waiting:
        err.print(f"Not enough yet to compare everything: it takes {enough}.", soft_wrap=True)
    if found.compared and not found.drifting:
        err.print(f"No drift in the {found.compared} figures that could be compared.")

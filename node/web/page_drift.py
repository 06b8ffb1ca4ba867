"""Drift on the page of models: what was found the last time, a table and a chart for each finding's probabilities."""

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from markupsafe import Markup

from config import Settings
from ledger.ledger import Ledger
from node.watching import drift
from node.watching.drift import EDGES, Found, Line, State, percent
from node.web import charts

ROWS_MAX: Final = 40
_BINS: Final = [f"{low:.2f}–{high:.2f}" for low, high in pairwise((0.0, *EDGES, 1.0))]


@dataclass(frozen=True)
class Row:
    """One line of the table, in words."""

    whose: str
    what: str
    state: str
    drifts: bool
    size: str
    now: str
    before: str
    recent: int
    reference: int


@dataclass(frozen=True)
class Histogram:
    """Of one finding of one model, over the same bins in both spans."""

    title: str
    drifts: bool
    chart: Markup


def drawn(settings: Settings, ledger: Ledger, may_read: bool) -> dict[str, Any]:
    """For the template. found: None where nothing is known. may_read: strangers see no token's name."""
    found = drift.kept(ledger, settings.drift, datetime.now(UTC))
    if found is None:
        return {"found": None, "is_off": not settings.drift.every_s}
    lines = [line for line in found.lines if line.state is not State.RARE]
    return {
        "found": found,
        "is_off": False,
        "rows": [_row(line, may_read) for line in lines[:ROWS_MAX]],
        "more": max(0, len(lines) - ROWS_MAX),
        "waits": any(line.state is State.NOT_ENOUGH for line in lines),
        "histograms": [_histogram(line, found) for line in lines if any(line.bins_before)],
    }


def _row(line: Line, may_read: bool) -> Row:
    one = line.subject
    whose = one.model or (one.sender if may_read else one.public_sender)
    size = f"{line.size:.2f}" if line.was_compared else "–"
    drifts = line.state is State.DRIFTS
    shares = percent(line.now), percent(line.before)
    return Row(whose, one.what, line.state.words, drifts, size, *shares, line.recent, line.reference)


def _histogram(line: Line, found: Found) -> Histogram:
    one = line.subject
    title = f"Probability of {one.name}, {one.model}"
    said = (
        f"{line.recent} studies of the last {found.recent_days} days beside {line.reference} of the "
        f"{found.reference_days} days before; {line.state.words}"
    )
    chart = charts.pairs(title, said, _BINS, _shares(line.bins_now), _shares(line.bins_before))
    return Histogram(title, line.state is State.DRIFTS, chart)


def _shares(bins: tuple[int, ...]) -> list[float]:
    return [count / max(sum(bins), 1) for count in bins]

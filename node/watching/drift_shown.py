"""Drift for Prometheus: what was found the last time.

Models and findings are the installed ones, senders those who send most (node.watching.weeks.SENDERS_MAX): nobody on the
wire can invent labels without end. Of those who send by STOW-RS, whose names are those of tokens, a series is that of
the one who drifts, or moved most."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from prometheus_client.core import GaugeMetricFamily, Metric

from config import Settings
from ledger.ledger import Ledger
from node.watching import drift
from node.watching.drift import Kind, Line, State

OF = ["kind", "model", "sender", "name"]


def drift_shown(settings: Settings, ledger: Ledger) -> Iterator[Metric]:
    """Nothing of it where it is switched off, or was not looked for lately."""
    now = datetime.now(UTC)
    found = drift.kept(ledger, settings.drift, now)
    lines = _told_apart(found.lines) if found else []
    compared = [line for line in lines if line.was_compared]
    period = GaugeMetricFamily("opentriage_drift_period_seconds", "So often it is to be looked for drift; 0: never")
    period.add_metric([], settings.drift.every_s)
    yield period
    age = GaugeMetricFamily("opentriage_drift_age_seconds", "Since it was looked whether images or answers drift")
    if found:
        age.add_metric([], (now - found.made_at).total_seconds())
    yield age
    text = "1 where it differs from the weeks before by more than chance and by enough to matter, 0 where it does not"
    yield _family("opentriage_drift", text, [(line, [], float(line.state is State.DRIFTS)) for line in compared])
    text = "Population stability index of a finding's probabilities, Cohen's h of a share"
    yield _family("opentriage_drift_size", text, [(line, [], line.size) for line in compared])
    text = "Share of studies flagged, or with an image that was not assessed, in the recent days and in those before"
    spans = [
        (line, [span], share)
        for line in lines
        if line.subject.kind is not Kind.PROBABILITY
        for span, share in (("recent", line.now), ("reference", line.before))
        if share is not None
    ]
    yield _family("opentriage_drift_share", text, spans, "span")
    waiting = sum(line.state is State.NOT_ENOUGH for line in found.lines) if found else 0
    few = GaugeMetricFamily("opentriage_drift_not_enough", "Lines with too few studies to compare, yet")
    few.add_metric([], waiting)
    yield few


def _told_apart(lines: Iterable[Line]) -> list[Line]:
    """One for each set of labels, the first: those that drift, and then those that moved most, come first."""
    by_labels: dict[tuple[str, ...], Line] = {}
    for line in lines:
        by_labels.setdefault(_labels(line), line)
    return list(by_labels.values())


def _labels(line: Line) -> tuple[str, ...]:
    one = line.subject
    return one.kind.value, one.model, one.public_sender, one.name


def _family(name: str, text: str, values: list[tuple[Line, list[str], float]], *more: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[*OF, *more])
    for line, rest, value in values:
        family.add_metric([*_labels(line), *rest], value)
    return family

"""What Prometheus reads of heartbeats and of promised times (ledger/heartbeats.py, ledger/slo.py)."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from config import Settings
from ledger.heartbeats import Pulse
from ledger.ledger import Ledger
from ledger.slo import Promise, Tally
from node.watching.slo import targets

_BY_PROMISE = ["kind", "priority"]


def promises_shown(settings: Settings, ledger: Ledger) -> Iterator[Metric]:
    """All of it, with noughts where nothing was yet."""
    promised = targets(settings.slo)
    yield from _tallied(promised, ledger.tallied())
    target = GaugeMetricFamily("opentriage_slo_target_seconds", "What is promised, see [slo]", labels=_BY_PROMISE)
    overdue = GaugeMetricFamily(
        "opentriage_slo_overdue", "Reports that wait past their promised time, or are parked", labels=_BY_PROMISE
    )
    for promise, target_s in promised.items():
        target.add_metric([*promise], target_s)
    for promise, count in ledger.overdue(promised).items():
        overdue.add_metric([*promise], count)
    yield target
    yield overdue
    objective = GaugeMetricFamily("opentriage_slo_objective", "Share of reports that are to be there in time")
    objective.add_metric([], settings.slo.objective)
    yield objective
    yield from _heartbeats(settings, ledger.pulses())


def _tallied(promised: dict[Promise, float], tallied: dict[Promise, Tally]) -> Iterator[Metric]:
    due = CounterMetricFamily("opentriage_slo_due", "Reports whose promised time was up", labels=_BY_PROMISE)
    late = CounterMetricFamily("opentriage_slo_late", "Reports that were not there by then", labels=_BY_PROMISE)
    for promise in promised:
        tally = tallied.get(promise, Tally(0, 0))
        due.add_metric([*promise], tally.due)
        late.add_metric([*promise], tally.late)
    yield due
    yield late


def _heartbeats(settings: Settings, pulses: list[Pulse]) -> Iterator[Metric]:
    period = GaugeMetricFamily("opentriage_heartbeat_period_seconds", "How often one is sent; 0: never")
    period.add_metric([], settings.heartbeat.every_s)
    age = GaugeMetricFamily("opentriage_heartbeat_age_seconds", "Since the last heartbeat arrived", labels=["machine"])
    text = "How long each stage of the last heartbeat that arrived took"
    stages = GaugeMetricFamily("opentriage_heartbeat_stage_seconds", text, labels=["machine", "stage"])
    for pulse in pulses:
        age.add_metric([pulse.machine], pulse.age_s)
        for stage, seconds in (pulse.last.seconds if pulse.last else {}).items():
            stages.add_metric([pulse.machine, stage], seconds)
    yield from (period, age, stages)

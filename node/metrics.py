"""What Prometheus reads. What the ledger knows is read from the ledger at each scrape: it survives restarts, is the
same on every machine around one database, and cannot drift from the truth. Only what never reaches the ledger
(refused associations, bytes on the wire) comes from counters of the role processes (node/counters.py)."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from config import Settings
from ledger.ledger import Ledger
from ledger.notifications import NotificationState
from ledger.records import Disposition, Stage
from ledger.states import JobState
from node import notices
from node.counters import counted_here, counters_dir

NEVER_ANALYSED = (Disposition.PRIOR, Disposition.OWN_RESULT, Disposition.NOT_AN_IMAGE, Disposition.REJECTION_NOTE)


def make_registry(settings: Settings, ledger: Ledger) -> CollectorRegistry:
    """The registry of this node's page."""
    registry = CollectorRegistry()
    registry.register(LedgerCollector(settings, ledger))
    if counted_here():
        MultiProcessCollector(registry, path=str(counters_dir(settings)))  # type: ignore[no-untyped-call]
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """The text exposition format."""
    return generate_latest(registry)


class LedgerCollector:
    """Reads the ledger at each scrape. Labels are stages, states and configured destinations: never from the wire."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger

    def describe(self) -> list[Metric]:
        """Nothing is promised before the first scrape, so that registering does not read the ledger."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One transaction's view of the counts, and the invariant made from it."""
        counts = self._ledger.counts()
        yield from _invariant(counts)
        yield _labelled("opentriage_jobs", "Jobs now", ["stage", "state"], counts["jobs"], _every_job())
        yield _labelled("opentriage_results", "Results of models", ["status"], counts["results"])
        yield _labelled("opentriage_studies", "Studies by triage priority", ["priority"], counts["studies"])
        yield _by_destination("opentriage_deliveries", "Result objects", "state", counts["deliveries"])
        yield _by_destination(
            "opentriage_proofs", "Result objects by what proves them there", "proof", counts["proofs"]
        )
        yield _unanswered(counts["commitments"])
        yield _told(self._ledger.told_so_far())
        stopped = CounterMetricFamily(
            "opentriage_wrong_patient_stopped",
            "Objects, messages and reports that were stopped, since the installation: not shown to be their patient's",
        )
        stopped.add_metric([], counts["stopped"]["wrong_patient"])
        yield stopped
        held = counts["held"]["studies"]
        yield _gauge("opentriage_studies_held", "Studies whose images name different patients: nothing leaves", held)
        yield _gauge(
            "opentriage_oldest_job_age_seconds", "Wait of the oldest due job", self._ledger.oldest_job_age_s() or 0.0
        )
        looking = notices.read(self._settings, "analyse")
        degraded = bool(looking.get("degraded", False))
        yield _gauge(
            "opentriage_provider_degraded", "1 when models run on a lesser provider than asked for", float(degraded)
        )
        refused = len(looking.get("refused", ()))
        yield _gauge("opentriage_packages_refused", "Model packages that are there and cannot be used", refused)


def _by_destination(name: str, text: str, label: str, counted: dict[str, int]) -> Metric:
    """A destination's key may hold colons; what is counted of it does not."""
    family = GaugeMetricFamily(name, text, labels=["destination", label])
    for key, count in counted.items():
        destination, _, value = key.rpartition(":")
        family.add_metric([destination, value], count)
    return family


def _told(told: dict[str, dict[NotificationState, int]]) -> Metric:
    family = GaugeMetricFamily(
        "opentriage_notifications", "Reports by what became of telling an adapter", labels=["adapter", "state"]
    )
    for adapter, counted in told.items():
        for state, count in counted.items():
            family.add_metric([adapter, state], count)
    return family


def _unanswered(counted: dict[str, int]) -> Metric:
    text = "Requests for storage commitment that were taken and not answered"
    family = GaugeMetricFamily("opentriage_commitments_unanswered", text, labels=["destination"])
    for destination, count in counted.items():
        family.add_metric([destination], count)
    return family


def _invariant(counts: dict[str, dict[str, int]]) -> Iterator[Metric]:
    """received = terminal + in flight, for ever: drift means that something was received and forgotten."""
    received = sum(counts["instances"].values())
    again = counts["looked_again"]  # a second look at an instance counts for nothing received
    jobs = {state: counts["jobs"].get(f"{Stage.ANALYSE}:{state}", 0) - again.get(state, 0) for state in JobState}
    terminal = jobs[JobState.SUCCEEDED] + jobs[JobState.PARKED]
    terminal += sum(counts["instances"].get(disposition, 0) for disposition in NEVER_ANALYSED)
    in_flight = jobs[JobState.QUEUED] + jobs[JobState.RUNNING]
    family = CounterMetricFamily("opentriage_instances_received", "Instances acknowledged as stored")
    family.add_metric([], received)
    yield family
    yield _gauge("opentriage_instances_terminal", "Instances that nothing more will be done with", terminal)
    yield _gauge("opentriage_instances_in_flight", "Instances that wait to be looked at", in_flight)
    yield _gauge("opentriage_instances_drift", "Received less terminal less in flight", received - terminal - in_flight)


def _every_job() -> list[str]:
    return [f"{stage}:{state}" for stage in Stage for state in JobState]


def _labelled(
    name: str, text: str, labels: list[str], counted: dict[str, int], always: list[str] | None = None
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key in dict.fromkeys([*(always or []), *counted]):
        family.add_metric(key.split(":"), counted.get(key, 0))
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], value)
    return family

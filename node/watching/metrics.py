"""What Prometheus reads. What the ledger knows is read from the ledger at each scrape: it survives restarts, is the
same on every machine around one database, and cannot drift from the truth. Only what never reaches the ledger
(refused associations, bytes on the wire) comes from counters of the role processes (node/watching/counters.py)."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from config import Settings
from ledger.commitment_requests import RequestState
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.notifications import NotificationState
from ledger.peers import PEERS_MAX
from ledger.records import Stage
from ledger.states import JobState
from node import notices
from node.chores.seal import NOTICE as SEALER
from node.running.signs import Stuck
from node.watching import certificates, durability, free_space
from node.watching.counters import counted_here, counter_files
from node.watching.drift_shown import drift_shown
from node.watching.invariant import instances_of
from node.watching.promises_shown import promises_shown


def make_registry(settings: Settings, ledger: Ledger) -> CollectorRegistry:
    """The registry of this node's page."""
    registry = CollectorRegistry()
    registry.register(LedgerCollector(settings, ledger))
    if counted_here():
        registry.register(CounterCollector(settings))
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """The text exposition format."""
    return generate_latest(registry)


class CounterCollector(Collector):
    """What the roles of this machine counted, however each of them was started."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def describe(self) -> list[Metric]:
        """Nothing is promised: another role may start and count something else."""
        return []

    def collect(self) -> list[Metric]:
        files = counter_files(self._settings)
        return list(MultiProcessCollector.merge(files, accumulate=True))  # type: ignore[no-untyped-call]


class LedgerCollector:
    """Reads the ledger at each scrape. Labels are stages, states, configured destinations, and as many callers as the
    ledger has room for: never what anybody on the wire can invent without end."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger

    def describe(self) -> list[Metric]:
        """Nothing is promised before the first scrape, so that registering does not read the ledger."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Without the ledger, that it is away and what can be said without it."""
        try:
            known, is_up = list(self._of_ledger()), True
        except LedgerUnavailable:
            known, is_up = [], False
        yield _gauge("opentriage_ledger_up", "1 when the ledger can be read", float(is_up))
        yield from known
        yield from self._room()
        yield from _certificates(self._settings)
        yield from self._looking()
        yield from self._receivers()

    def _of_ledger(self) -> Iterator[Metric]:
        """One transaction's view of the counts, and the invariant made from it."""
        counts = self._ledger.counts()
        yield from _invariant(counts)
        yield from self._kept()
        shadow = float(self._settings.node.mode == "shadow")
        yield _gauge("opentriage_shadow", "1 in shadow mode: nothing new is sent", shadow)
        yield _labelled("opentriage_jobs", "Jobs now", ["stage", "state"], counts["jobs"], _every_job())
        yield _labelled("opentriage_results", "Results of models", ["status"], counts["results"])
        yield _labelled("opentriage_studies", "Studies by triage priority", ["priority"], counts["studies"])
        yield _by_destination("opentriage_deliveries", "Result objects", "state", counts["deliveries"])
        yield _by_destination(
            "opentriage_proofs", "Result objects by what proves them there", "proof", counts["proofs"]
        )
        yield _unanswered(counts["commitments"])
        yield _told(self._ledger.told_so_far())
        yield _requested(self._ledger.commitments_so_far())
        stopped = CounterMetricFamily(
            "opentriage_wrong_patient_stopped",
            "Objects, messages and reports that were stopped, since the installation: not shown to be their patient's",
        )
        stopped.add_metric([], counts["stopped"]["wrong_patient"])
        yield stopped
        yield self._contexts_refused()
        held = counts["held"]["studies"]
        yield _gauge("opentriage_studies_held", "Studies whose images name different patients: nothing leaves", held)
        yield _gauge(
            "opentriage_oldest_job_age_seconds", "Wait of the oldest due job", self._ledger.oldest_job_age_s() or 0.0
        )
        yield self._outward()
        damaged = self._ledger.damaged_count()
        yield _gauge("opentriage_files_damaged", "Stored files found damaged or gone, and not healed", damaged)
        yield from promises_shown(self._settings, self._ledger)
        yield from self._trail()
        yield from drift_shown(self._settings, self._ledger)

    def _trail(self) -> Iterator[Metric]:
        """Of the audit trail: what nobody sealed, and what its repository was not told."""
        unsealed_s = self._ledger.audit_unsealed_s()
        yield _gauge("opentriage_audit_unsealed_age_seconds", "Wait of the oldest record for its seal", unsealed_s)
        yield from self._heads()
        if self._settings.audit.is_told:
            count, oldest_s = self._ledger.audit_backlog(self._settings.audit.repository)
            yield _gauge("opentriage_audit_untold", "Audit records that the repository has not heard", count)
            yield _gauge("opentriage_audit_untold_age_seconds", "For how long the oldest of them has waited", oldest_s)

    def _heads(self) -> Iterator[Metric]:
        """Of the heads in audit.heads_file, which this role may not read: as the sealer of this machine says."""
        told = notices.read(self._settings, SEALER)
        if at := float(told.get("exported_at", 0.0)):
            age_s = max(0.0, time.time() - at)
            yield _gauge("opentriage_audit_head_age_seconds", "Since the last exported chain head was sealed", age_s)
        if "exported" in told:
            waits_s = self._ledger.audit_unexported_s(int(told["exported"]))
            text = "Wait of the oldest sealed record that no exported chain head covers: its end can be cut off unseen"
            yield _gauge("opentriage_audit_unexported_age_seconds", text, waits_s)

    def _outward(self) -> Metric:
        """0 where nothing waits, for whoever the settings name."""
        ages_s = self._ledger.oldest_outward_ages_s()
        text = "Wait of the oldest delivery, proof or message, by whom it is for"
        family = GaugeMetricFamily("opentriage_oldest_outward_age_seconds", text, labels=["stage", "destination"])
        named = {
            Stage.DELIVER: [one.key for one in self._settings.destinations],
            Stage.NOTIFY: [one.key for one in self._settings.adapters],
        }
        for stage, waits in ages_s.items():
            for key in dict.fromkeys([*named.get(stage, []), *waits]):
                family.add_metric([stage, key], waits.get(key, 0.0))
        return family

    def _looking(self) -> Iterator[Metric]:
        looking = notices.read(self._settings, "analyse")
        degraded = bool(looking.get("degraded", False))
        yield _gauge(
            "opentriage_provider_degraded", "1 when models run on a lesser provider than asked for", float(degraded)
        )
        refused = len(looking.get("refused", ()))
        yield _gauge("opentriage_packages_refused", "Model packages that are there and cannot be used", refused)
        if "models" in looking:  # before, nobody knows
            text = "Model packages that the analyser of this machine looks with; 0: every image is not assessed"
            yield _gauge("opentriage_models_loaded", text, len(looking["models"]))

    def _receivers(self) -> Iterator[Metric]:
        # From 0 on: an increase to the first one is seen only where the counter was there before.
        told = {how.value: 0 for how in Stuck} | notices.read(self._settings, "supervisor").get("stuck", {})
        text = "Receivers that lived and took no callers, and were replaced, since the node started"
        family = CounterMetricFamily("opentriage_receivers_stuck", text, labels=["how"])
        for how, count in told.items():
            family.add_metric([how], float(count))
        yield family

    def _kept(self) -> Iterator[Metric]:
        kept = self._ledger.kept()
        yield _gauge("opentriage_kept_files", "Received files that are here", kept.files)
        yield _gauge("opentriage_kept_bytes", "Their size; pictures and reports not counted", kept.size_bytes)
        yield _gauge("opentriage_kept_oldest_seconds", "Since the oldest of them came", kept.oldest_s or 0.0)

    def _room(self) -> Iterator[Metric]:
        free = free_space.free_bytes(self._settings)
        if free is not None:
            yield _gauge("opentriage_store_free_bytes", "Free on the store's disk", free)
        least = self._settings.receive.free_disk_min_bytes
        yield _gauge("opentriage_store_free_min_bytes", "With less than this free every instance is refused", least)
        if (cache := durability.write_cache(self._settings.node.state_dir)) is not None:
            text = "1 when the disk of the store has a write cache that must be flushed to survive a power cut"
            yield _gauge("opentriage_store_write_back_cache", text, float(cache == "write back"))

    def _contexts_refused(self) -> Metric:
        """By calling AE title: above all of those that got nothing, and so never stored. Where the ledger keeps as many
        callers as it may, one that has stored nothing and that the settings do not name is "other"."""
        named = {title.strip() for title in self._settings.receive.allowed_calling_ae_titles}
        has_room = len(self._ledger.peers()) < PEERS_MAX
        counted: Counter[tuple[str, str]] = Counter()
        for (title, reason, stores), count in self._ledger.refused_counts().items():
            counted[title if title and (has_room or stores or title in named) else "other", reason] += count
        family = GaugeMetricFamily(
            "opentriage_contexts_refused",
            "Presentation contexts that callers did not get (explain --peer says which, and what to do)",
            labels=["calling_ae_title", "reason"],
        )
        for (title, reason), count in sorted(counted.items()):
            family.add_metric([title, reason], count)
        return family


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


def _requested(so_far: dict[str, dict[RequestState, int]]) -> Metric:
    text = "Requests of senders for storage commitment; parked: in the last seven days"
    family = GaugeMetricFamily("opentriage_commitment_requests", text, labels=["requestor", "state"])
    for title, counted in so_far.items():
        for state, count in counted.items():
            family.add_metric([title, state], count)
    return family


def _unanswered(counted: dict[str, int]) -> Metric:
    text = "Requests for storage commitment that were taken and not answered"
    family = GaugeMetricFamily("opentriage_commitments_unanswered", text, labels=["destination"])
    for destination, count in counted.items():
        family.add_metric([destination], count)
    return family


def _certificates(settings: Settings) -> Iterator[Metric]:
    """Of every certificate that the settings name and that can be read."""
    text = "Until when a certificate of the settings is valid, in seconds since 1970"
    family = GaugeMetricFamily("opentriage_certificate_expires_timestamp_seconds", text, labels=["setting"])
    for name, until in certificates.named(settings):
        if until is not None:
            family.add_metric([name], until.timestamp())
    yield family


def _invariant(counts: Mapping[str, dict[str, int]]) -> Iterator[Metric]:
    found = instances_of(dict(counts))
    text = "Instances acknowledged as stored, those included that retention or a person removed since"
    family = CounterMetricFamily("opentriage_instances_received", text)
    family.add_metric([], found.received)
    yield family
    yield _gauge("opentriage_instances_terminal", "Instances that nothing more will be done with", found.terminal)
    yield _gauge("opentriage_instances_in_flight", "Instances that wait to be looked at", found.in_flight)
    yield _gauge("opentriage_instances_drift", "Received less terminal less in flight", found.drift)


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

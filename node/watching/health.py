"""Health is proven by traffic: an own C-ECHO was answered, models are loaded, and nothing due has waited too long."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from config import Settings
from ledger.commitment_requests import RequestState
from ledger.damage import CURE
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.records import Stage
from node import notices
from node.running.receivers import names
from node.trail import auditing
from node.watching import certificates, drift, free_space, heartbeat_health, no_model
from node.watching.echo import own_echo
from node.watching.invariant import instances_of
from node.watching.stranded import stranded

ECHO_VALID_S = 5.0  # a flood of health checks must not become a flood of associations
STARTING_S = 30.0  # until then a node without models is starting; red all the same, for nothing is looked at
_PARKED_WORDS: Final = {
    Stage.ANALYSE: "analysis",
    Stage.REPORT: "report",
    Stage.DELIVER: "delivery to {}",
    Stage.PROVE: "proof at {}",
    Stage.NOTIFY: "message for {}",
}
DRIFT_VALID_S = 60.0  # to count everything reads everything
KEEPS_DYING, DYING_WITHIN_S = 2, 600.0


@dataclass(frozen=True)
class Health:
    """reasons: empty when healthy, else a sentence each. provider: what the models run on, None when nobody says.

    alarms: a sentence each for what a person must mend while the node goes on: model packages that are refused, results
    that stay here because nobody could show whose they are, studies that are held, certificates near their end, files
    that are gone, instances that were received and forgotten, images or answers that have drifted.
    """

    echo_answered: bool
    oldest_job_s: float | None
    reasons: tuple[str, ...]
    provider: str | None = None
    degraded: bool = False  # slower than hoped for, or less than installed, and no reason to stop
    alarms: tuple[str, ...] = ()


class HealthCheck:
    """Answers at most one own C-ECHO every few seconds; asks the ledger every time."""

    def __init__(self, settings: Settings, ledger: Ledger, began: float | None = None) -> None:
        """began: since when the node runs, of time.monotonic(); None: since now."""
        self._settings = settings
        self._ledger = ledger
        self._lock = threading.Lock()
        self._echo_at = -ECHO_VALID_S
        self._echo = False
        self._began = time.monotonic() if began is None else began
        self._drift_at = -DRIFT_VALID_S
        self._drift = 0

    def check(self) -> Health:
        """The node's health now. Blocks for the length of a C-ECHO."""
        told, looking = notices.read(self._settings, "supervisor"), notices.read(self._settings, "analyse")
        starting = _starting(told, bool(looking), _receiver_is_there(self._settings, told), time.monotonic())
        echo = not starting and self._fresh_echo()  # nobody can have answered yet
        reasons = [starting] if starting else [] if echo else ["the node's own C-ECHO was not answered"]
        oldest_s: float | None = None
        alarms: list[str] = []
        try:
            oldest_s = self._ledger.oldest_job_age_s()
            reasons += self._late(oldest_s)
            reasons += [one.sentence for one in stranded(self._ledger, self._settings)]
            alarms += self._patient_alarms()
            alarms += self._commitment_alarms()
            alarms += self._damage_alarms()
            alarms += self._drift_alarms()
            alarms += _parked_alarms(self._ledger.parked_counts())
            alarms += _refused_alarms(self._ledger)
            alarms += auditing.alarms(self._settings, self._ledger)
            alarms += drift.alarms(drift.kept(self._ledger, self._settings.drift, datetime.now(UTC)))
            late, waits = heartbeat_health.judged(self._settings, self._ledger, time.monotonic() - self._began)
            reasons += late
            alarms += waits
        except LedgerUnavailable:
            reasons.append("the ledger cannot be read")
        if full := free_space.too_little(self._settings):
            reasons.append(full)
        reasons += _role_reasons(told, bool(looking or starting), time.monotonic())
        reasons += no_model.judged(looking)
        refused = looking.get("refused", [])
        alarms += _missing_receivers(self._settings, told)
        alarms += _no_spare(looking)
        reasons += certificates.ended(self._settings.receive.tls, certificates.today())
        alarms += certificates.alarms(self._settings.receive.tls, certificates.today())
        degraded = bool(looking.get("degraded", False)) or bool(refused)
        return Health(echo, oldest_s, tuple(reasons), looking.get("provider"), degraded, (*refused, *alarms))

    def _late(self, oldest_s: float | None) -> list[str]:
        limit_s = self._settings.web.oldest_job_max_s
        ages_s = self._ledger.oldest_outward_ages_s()
        answers = self._ledger.newest_answers()
        waits = [("due job", oldest_s or 0.0, "")]
        waits += [(f"report for {name}", age_s, answers.get(name, "")) for name, age_s in ages_s[Stage.DELIVER].items()]
        waits += [(f"message for the adapter {name}", age_s, "") for name, age_s in ages_s[Stage.NOTIFY].items()]
        return [
            f"the oldest {what} has waited {age_s:.0f} s; the limit is {limit_s:.0f} s"
            + (f"; its last try: {answer}" if answer else "")
            for what, age_s, answer in waits
            if age_s > limit_s
        ]

    def _patient_alarms(self) -> list[str]:
        """Counts alone: no sentence names a study or a patient."""
        stopped, held = self._ledger.stopped_and_held()
        alarms = []
        if stopped:
            alarms.append(
                f"results stopped here, because they are damaged or nobody could show whose they are: {stopped}; "
                "look at the parked jobs and the stored files"
            )
        if held:
            alarms.append(f"studies held, because their images name different patients: {held}; nothing of them leaves")
        return alarms

    def _commitment_alarms(self) -> list[str]:
        return [
            f"requests for storage commitment that {title} was never answered, in the last seven days: {count}; look "
            "at its address in [[commitment_requestors]], and whether it takes N-EVENT-REPORT on an association of ours"
            for title, states in self._ledger.commitments_so_far().items()
            if (count := states.get(RequestState.PARKED, 0))
        ]

    def _damage_alarms(self) -> list[str]:
        count = self._ledger.damaged_count()
        if not count:
            return []
        return [
            f"stored files found damaged or gone, at the start or when a sender asked whether they are kept: {count}; "
            "the log (lost_acknowledged_instance, commitment_file_damaged) and `opentriage explain STUDY_UID` say "
            f"which; {CURE}"
        ]

    def _drift_alarms(self) -> list[str]:
        with self._lock:
            if time.monotonic() - self._drift_at >= DRIFT_VALID_S:
                self._drift = instances_of(self._ledger.counts()).drift
                self._drift_at = time.monotonic()
            drift = self._drift
        if not drift:
            return []
        return [
            f"instances that were received and are neither done nor under way: {drift}; a fault of this program: keep "
            "the ledger, see docs/runbooks/instances-drift.md"
        ]

    def _fresh_echo(self) -> bool:
        with self._lock:
            if time.monotonic() - self._echo_at >= ECHO_VALID_S:
                self._echo = own_echo(self._settings, timeout_s=3.0)
                self._echo_at = time.monotonic()
            return self._echo


def _parked_alarms(parked: Mapping[tuple[Stage, str | None], int]) -> list[str]:
    """What stopped trying, by what it was for, the most first: no study, and no reason, for it may quote a person."""
    if not parked:
        return []
    most_first = sorted(parked.items(), key=lambda one: -one[1])
    listed = ", ".join(f"{_PARKED_WORDS[stage].format(name)}: {count}" for (stage, name), count in most_first)
    return [f"jobs are parked and wait for a person ({listed}); the page says why under Parked, and releases them"]


def _refused_alarms(ledger: Ledger) -> list[str]:
    """A destination that answers and will not take: it is not asked again before a person has seen to it. Its answer
    is our own words (sr_writer/statuses.py) and quotes nobody."""
    return [
        f"the destination {name} refuses reports, and {refused.reports} {'is' if refused.reports == 1 else 'are'} "
        f"parked for it: {refused.reason.rstrip('.')}; when that is mended, `opentriage release --all-for '{name}'`"
        for name, refused in sorted(ledger.refusals().items())
    ]


def _missing_receivers(settings: Settings, told: dict[str, Any]) -> list[str]:
    """While some receive, the loss of the others is no reason to be red."""
    expected = names(int(told.get("receivers", 0)))
    there = sum(bool(notices.read(settings, name)) for name in expected)
    return [f"{there} of {len(expected)} receivers are there"] if 0 < there < len(expected) else []


def _no_spare(looking: dict[str, Any]) -> list[str]:
    """The one at work goes on: no reason to be red."""
    if not (why := looking.get("no_spare")):
        return []
    return [f"no spare process of models is ready, and an image that kills the one at work makes others wait: {why}"]


def _receiver_is_there(settings: Settings, told: dict[str, Any]) -> bool:
    return any(notices.read(settings, name) for name in names(int(told.get("receivers", 1))))


def _starting(told: dict[str, Any], looks: bool, receives: bool, now: float) -> str:
    """What a node that was started a moment ago still waits for; empty later, where something died, and where no
    supervisor runs here. Red with that one sentence: what follows from it is no news. now: of time.monotonic()."""
    died = {"analyse", "receive"} & set(told.get("deaths", {}))
    if not told or died or now - float(told.get("began", now)) >= STARTING_S:
        return ""
    if not looks:
        return "starting: the models are being loaded"
    return "" if receives else "starting: the receiver is about to listen"


def _role_reasons(told: dict[str, Any], looks: bool, now: float) -> list[str]:
    """told: what the supervisor last said (node/running/supervisor.py); {} where none runs here: under
    `serve --role` each role is watched by whoever started it. looks: an analyser has loaded its models, or may still
    be doing so. now: of time.monotonic()."""
    if not told:
        return []
    reasons, why = [], told.get("why", {})
    if not looks:
        reasons.append("no analyser has loaded its models")
    for role, times in told.get("deaths", {}).items():
        deaths = sum(now - died_at < DYING_WITHIN_S for died_at in times)
        if deaths >= KEEPS_DYING:
            said = f": {why[role]}" if role in why else ""
            reasons.append(f"the role {role} died {deaths} times in the last {DYING_WITHIN_S / 60:.0f} minutes{said}")
    return reasons

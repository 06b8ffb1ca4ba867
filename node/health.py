"""Health is proven by traffic: an own C-ECHO was answered, models are loaded, and nothing due has waited too long."""

import threading
import time
from dataclasses import dataclass
from typing import Any

from config import Settings
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.records import Stage
from node import notices
from node.echo import own_echo
from node.stranded import stranded

ECHO_VALID_S = 5.0  # a flood of health checks must not become a flood of associations
STARTING_S = 30.0  # until then a node without models is starting; red all the same, for nothing is looked at
KEEPS_DYING, DYING_WITHIN_S = 2, 600.0


@dataclass(frozen=True)
class Health:
    """reasons: empty when healthy, else a sentence each. provider: what the models run on, None when nobody says.

    alarms: a sentence each for what a person must mend while the node goes on: model packages that are refused, results
    that stay here because nobody could show whose they are, studies that are held.
    """

    echo_answered: bool
    oldest_job_s: float | None
    reasons: tuple[str, ...]
    provider: str | None = None
    degraded: bool = False  # slower than hoped for, or less than installed, and no reason to stop
    alarms: tuple[str, ...] = ()


class HealthCheck:
    """Answers at most one own C-ECHO every few seconds; asks the ledger every time."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._lock = threading.Lock()
        self._echo_at = -ECHO_VALID_S
        self._echo = False

    def check(self) -> Health:
        """The node's health now. Blocks for the length of a C-ECHO."""
        reasons: list[str] = []
        echo = self._fresh_echo()
        if not echo:
            reasons.append("the node's own C-ECHO was not answered")
        oldest_s: float | None = None
        alarms: list[str] = []
        try:
            oldest_s = self._ledger.oldest_job_age_s()
            reasons += self._late(oldest_s)
            reasons += [one.sentence for one in stranded(self._ledger, self._settings)]
            alarms += self._patient_alarms()
        except LedgerUnavailable:
            reasons.append("the ledger cannot be read")
        looking = notices.read(self._settings, "analyse")
        reasons += _role_reasons(notices.read(self._settings, "supervisor"), bool(looking), time.monotonic())
        refused = looking.get("refused", [])
        degraded = bool(looking.get("degraded", False)) or bool(refused)
        return Health(echo, oldest_s, tuple(reasons), looking.get("provider"), degraded, (*refused, *alarms))

    def _late(self, oldest_s: float | None) -> list[str]:
        limit_s = self._settings.web.oldest_job_max_s
        ages_s = self._ledger.oldest_outward_ages_s()
        waits = [("due job", oldest_s or 0.0)]
        waits += [(f"report for {name}", age_s) for name, age_s in ages_s[Stage.DELIVER].items()]
        waits += [(f"message for the adapter {name}", age_s) for name, age_s in ages_s[Stage.NOTIFY].items()]
        return [
            f"the oldest {what} has waited {age_s:.0f} s; the limit is {limit_s:.0f} s"
            for what, age_s in waits
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

    def _fresh_echo(self) -> bool:
        with self._lock:
            if time.monotonic() - self._echo_at >= ECHO_VALID_S:
                self._echo = own_echo(self._settings, timeout_s=3.0)
                self._echo_at = time.monotonic()
            return self._echo


def _role_reasons(told: dict[str, Any], looks: bool, now: float) -> list[str]:
    """told: what the supervisor last said (node/supervisor.py); {} where none runs here: under `serve --role` each role
    is watched by whoever started it. looks: an analyser has loaded its models. now: of time.monotonic()."""
    if not told:
        return []
    reasons, why = [], told.get("why", {})
    if not looks:
        since_s = now - float(told.get("began", now))
        starting = since_s < STARTING_S and "analyse" not in told.get("deaths", {})
        reasons.append("starting: the models are being loaded" if starting else "no analyser has loaded its models")
    for role, times in told.get("deaths", {}).items():
        deaths = sum(now - died_at < DYING_WITHIN_S for died_at in times)
        if deaths >= KEEPS_DYING:
            said = f": {why[role]}" if role in why else ""
            reasons.append(f"the role {role} died {deaths} times in the last {DYING_WITHIN_S / 60:.0f} minutes{said}")
    return reasons

"""received = terminal + in flight, for ever: drift means that something was received and forgotten."""

from dataclasses import dataclass

from ledger.records import Disposition, Stage
from ledger.states import JobState

NEVER_ANALYSED = (Disposition.PRIOR, Disposition.OWN_RESULT, Disposition.NOT_AN_IMAGE, Disposition.REJECTION_NOTE)


@dataclass(frozen=True)
class Instances:
    """Of patients: heartbeats are counted nowhere. What was removed or forgotten stays counted, and is terminal."""

    received: int
    terminal: int  # nothing more will be done with them
    in_flight: int  # they wait to be looked at

    @property
    def drift(self) -> int:
        return self.received - self.terminal - self.in_flight


def instances_of(counts: dict[str, dict[str, int]]) -> Instances:
    """counts: of `Ledger.counts`, one moment's."""
    again = counts["looked_again"]  # a second look at an instance counts for nothing received
    jobs = {state: counts["jobs"].get(f"{Stage.ANALYSE}:{state}", 0) - again.get(state, 0) for state in JobState}
    terminal = jobs[JobState.SUCCEEDED] + jobs[JobState.PARKED]
    terminal += sum(counts["instances"].get(disposition, 0) for disposition in NEVER_ANALYSED)
    removed = counts["removed"]["instances"]
    in_flight = jobs[JobState.QUEUED] + jobs[JobState.RUNNING]
    return Instances(sum(counts["instances"].values()) + removed, terminal + removed, in_flight)

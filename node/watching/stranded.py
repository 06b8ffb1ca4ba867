"""What waits for a destination or an adapter that the settings no longer name: nobody would ever send, ask or tell it,
so somebody must be told."""

from dataclasses import dataclass

from config import Settings
from ledger.ledger import Ledger
from ledger.records import Stage
from ledger.views import ParkedJob

_WAIT = {
    Stage.DELIVER: "reports wait for {}",
    Stage.PROVE: "proofs of what was delivered wait for {}",
    Stage.NOTIFY: "messages wait for the adapter {}",
}
_CURE = {
    Stage.DELIVER: "opentriage release --from '{}' --to NAME sends what waits for it to a destination of the settings",
    Stage.PROVE: "opentriage release --drop '{}' leaves unproven what was accepted there",
    Stage.NOTIFY: "opentriage release --drop '{}' tells nobody what waits for it",
}


@dataclass(frozen=True, order=True)
class Stranded:
    """One destination or adapter for which something waits. stage: DELIVER, PROVE or NOTIFY."""

    stage: Stage
    name: str

    @property
    def sentence(self) -> str:
        return f"{_WAIT[self.stage].format(self.name)}, which the settings no longer name"

    @property
    def cure(self) -> str:
        return _CURE[self.stage].format(self.name)

    def is_named(self, settings: Settings) -> bool:
        peers = settings.adapters if self.stage is Stage.NOTIFY else settings.destinations
        return self.name in [peer.key for peer in peers]


def parked_for(job: ParkedJob) -> Stranded | None:
    """Whom a parked job is for. A parked proof is of what was lost there and is to be sent."""
    stage = Stage.DELIVER if job.stage is Stage.PROVE else job.stage
    return Stranded(stage, job.destination) if job.destination else None


def stranded(ledger: Ledger, settings: Settings) -> list[Stranded]:
    """What still waits, or was parked. A destination's proofs are left out where its reports wait too: one cure."""
    waiting = {Stranded(stage, name) for stage, ages in ledger.oldest_outward_ages_s().items() for name in ages}
    waiting |= {one for job in ledger.parked() if (one := parked_for(job))}
    lost = {one for one in waiting if not one.is_named(settings)}
    return sorted(one for one in lost if one.stage is not Stage.PROVE or Stranded(Stage.DELIVER, one.name) not in lost)

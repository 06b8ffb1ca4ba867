"""Drift of the images, or of what a model makes of them, over weeks: what was found, kept, and said.

What differs by more than chance, by more than weeks differ anyway, and by enough to matter, is said. It proves nothing:
a new scanner, an epidemic and a broken detector look alike from here, and a person has to look which it is.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

from pydantic import TypeAdapter, ValidationError

from config.drift import DriftSettings
from ledger.ledger import Ledger
from ledger.peers import BY_STOW

EDGES: Final = (0.018, 0.047, 0.119, 0.269, 0.5, 0.731, 0.881, 0.953, 0.982)  # of probability: log odds of -4 to 4
SAID_MAX: Final = 3  # sentences of health
DAY: Final = timedelta(days=1)
AHEAD: Final = timedelta(minutes=1)  # so far the clocks of machines may be apart
_MEASURES: Final = ("recent_days", "reference_days", "studies_min", "psi", "share", "since", "false_alarms")
_STALE: Final = 3  # periods after which what was found is shown no more


class Kind(StrEnum):
    PROBABILITY = "probability"  # how the probabilities of a finding are distributed
    FLAGGED = "flagged"  # share of studies in which a finding is present
    REASON = "reason"  # share of studies of which an image was not assessed, by reason


class State(StrEnum):
    DRIFTS = "drifts"
    STEADY = "steady"
    NOT_ENOUGH = "not_enough"  # yet: nothing is compared, nothing is alarmed
    RARE = "rare"  # seen too seldom to compare

    @property
    def words(self) -> str:
        """For people."""
        return {"not_enough": "not enough yet", "rare": "too rare to compare"}.get(self.value, self.value)


@dataclass(frozen=True)
class Subject:
    """What is watched. model: "name/version", or empty; sender: calling AE title, or empty. name: the finding, or the
    code of the reason."""

    kind: Kind
    model: str
    sender: str
    name: str

    @property
    def public_sender(self) -> str:
        """For whoever has not signed in: of who sends by STOW-RS no more than that."""
        return BY_STOW.rstrip(":") if self.sender.startswith(BY_STOW) else self.sender

    @property
    def what(self) -> str:
        """For a table."""
        if not self.name:
            return "not assessed"
        before = {Kind.PROBABILITY: "probability of", Kind.FLAGGED: "flagged:", Kind.REASON: "not assessed:"}
        return f"{before[self.kind]} {self.name}"


@dataclass(frozen=True)
class Line:
    """recent, reference: studies. now, before: the share of them; of PROBABILITY none. size: of the difference, PSI or
    Cohen's h. bins_*: of PROBABILITY, studies between EDGES."""

    subject: Subject
    state: State
    recent: int
    reference: int
    now: float | None = None
    before: float | None = None
    size: float = 0.0
    p: float = 1.0
    bins_now: tuple[int, ...] = ()
    bins_before: tuple[int, ...] = ()

    @property
    def was_compared(self) -> bool:
        return self.state in (State.DRIFTS, State.STEADY)


@dataclass(frozen=True)
class Found:
    """One look, and the settings it was taken by. compared: how many lines could be, which share the probability of a
    false alarm."""

    made_at: datetime
    recent_days: int
    reference_days: int
    studies_min: int
    psi: float
    share: float
    since: date
    false_alarms: float
    compared: int
    lines: tuple[Line, ...]

    def is_by(self, settings: DriftSettings) -> bool:
        """Whether a look by these settings would hold the same things against the same measures."""
        return all(getattr(self, name) == getattr(settings, name) for name in _MEASURES)

    @property
    def drifting(self) -> list[Line]:
        return [line for line in self.lines if line.state is State.DRIFTS]


_FOUND: Final[TypeAdapter[Found]] = TypeAdapter(Found)


def keep(ledger: Ledger, found: Found) -> None:
    ledger.keep_drift(_FOUND.dump_json(found).decode())


def kept(ledger: Ledger, settings: DriftSettings, now: datetime) -> Found | None:
    """What was found the last time; None where nothing was, or too long ago, or at a time that has yet to come (a clock
    was set back), or by a release that says it otherwise."""
    text = ledger.kept_drift() if settings.every_s else None
    if text is None:
        return None
    try:
        found = _FOUND.validate_json(text)
    except ValidationError:
        return None
    age = now - found.made_at
    return found if -AHEAD <= age < max(DAY, _STALE * timedelta(seconds=settings.every_s)) else None


def alarms(found: Found | None) -> list[str]:
    """For /healthz and the page: a sentence each for the first few, and how many more there are."""
    if found is None:
        return []
    lines = found.drifting
    said = [f"drift: {sentence(_public(line), found)}; see docs/runbooks/drift.md" for line in lines[:SAID_MAX]]
    more = len(lines) - len(said)
    return [*said, f"drift: {more} more, see the page of models or `opentriage drift`"] if more else said


def _public(line: Line) -> Line:
    return replace(line, subject=replace(line.subject, sender=line.subject.public_sender))


def sentence(line: Line, found: Found) -> str:
    """What moved, by how much, of how many."""
    one = line.subject
    whose = one.model or f"the sender {one.sender}"
    spans = (f"the last {found.recent_days} days", f"the {found.reference_days} days before")
    if one.kind is Kind.PROBABILITY:
        return (
            f"the probabilities that {whose} gives {one.name} have moved: population stability index {line.size:.2f} "
            f"({line.recent} studies of {spans[0]} against {line.reference} of {spans[1]})"
        )
    what = f"studies in which {whose} found {one.name}"
    if one.kind is Kind.REASON:
        what = f"studies of {whose} with an image that was not assessed ({one.name})"
    return (
        f"{what}: {percent(line.now)} of {line.recent} in {spans[0]}, {percent(line.before)} of {line.reference} in "
        f"{spans[1]}"
    )


def percent(share: float | None) -> str:
    """ "12 %", "0.4 %"; a dash where there is none."""
    if share is None:
        return "–"
    return f"{share * 100:.1f} %" if share < 0.0995 else f"{share * 100:.0f} %"

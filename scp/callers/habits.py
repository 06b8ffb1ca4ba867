"""What is learned of how a sender sends a study, and how long to wait for its next image by that.

Pauses between successive images of one study are counted in classes, two to the octave. Of every sender two questions
are asked of these counts, and both have the same answer: the shortest wait that at most one study in a hundred would
have outlasted, doubled, because a class is coarse and tomorrow is not yesterday.

- How long to wait after an image: all pauses, held against the studies that began.
- How long to wait after the release of the association that brought it: the pauses between two associations, held
  against the releases that ended the images of a study. A sender that opens an association for each image is followed
  after most of its releases: its wait after a release is as long as after an image, and the release says nothing.

A pause longer than study.complete_after_max_s is a new beginning, not a pause: nobody would have waited for it, and it
cannot make a sender seem slow. Until enough was seen the settings alone decide.
"""

import math
from dataclasses import dataclass
from typing import Final

from config.settings import StudySettings
from ledger.completion import Completion
from ledger.peers import IN_ALL, Gaps

ENOUGH_PAUSES: Final = 50
ENOUGH_STUDIES: Final = 20
ENOUGH_RELEASES: Final = 50
OUTLASTED: Final = 100  # one study in so many may outlast a wait
MARGIN: Final = 2.0
_STEPS_PER_OCTAVE: Final = 2
_FIRST_S: Final = 0.001
_LAST_BUCKET: Final = 60  # 2 ** 30 ms


def bucket_of(pause_s: float) -> int:
    """The class of a pause: 0 is up to a millisecond, each following one ends 1.41 times later."""
    if pause_s <= _FIRST_S:
        return 0
    return min(_LAST_BUCKET, math.ceil(_STEPS_PER_OCTAVE * math.log2(pause_s / _FIRST_S)))


def end_s(bucket: int) -> float:
    """The longest pause of a class."""
    return float(_FIRST_S * 2.0 ** (bucket / _STEPS_PER_OCTAVE))


@dataclass(frozen=True)
class Habits:
    """Of one sender."""

    gaps: Gaps
    longest_s: float  # study.complete_after_max_s

    @property
    def studies(self) -> int:
        return self.gaps.get((False, IN_ALL), 0)

    @property
    def releases(self) -> int:
        return self.gaps.get((True, IN_ALL), 0)

    @property
    def pauses(self) -> int:
        return sum(self._counted(between_only=False).values())

    @property
    def are_known(self) -> bool:
        return self.pauses >= ENOUGH_PAUSES and self.studies >= ENOUGH_STUDIES

    @property
    def releases_are_known(self) -> bool:
        return self.releases >= ENOUGH_RELEASES

    def pause_s(self) -> float:
        """At most one study in a hundred paused for longer."""
        return self._outlasted(between_only=False, of=self.studies)

    def pause_after_release_s(self) -> float:
        """After at most one release in a hundred the next image of the study came later."""
        return self._outlasted(between_only=True, of=self.releases)

    def _counted(self, between_only: bool) -> dict[int, int]:
        counted: dict[int, int] = {}
        for (between, bucket), count in self.gaps.items():
            if bucket != IN_ALL and (between or not between_only) and end_s(bucket - 1) < self.longest_s:
                counted[bucket] = counted.get(bucket, 0) + count
        return counted

    def _outlasted(self, between_only: bool, of: int) -> float:
        longer = 0
        for bucket, count in sorted(self._counted(between_only).items(), reverse=True):
            longer += count
            if longer * OUTLASTED > of:
                return end_s(bucket)
        return 0.0


def after_image(settings: StudySettings, sender: str, habits: Habits) -> Completion:
    """How long to wait after an image."""
    wait_s, why = settings.complete_after_s, f"how {sender} sends is not known yet"
    if habits.are_known:
        learned_s = MARGIN * habits.pause_s()
        wait_s = min(max(learned_s, settings.complete_after_min_s), settings.complete_after_max_s)
        why = f"of {habits.studies} studies from {sender} hardly one paused for half as long"
        if learned_s < wait_s:
            why = f"{sender} pauses for less, and nobody is waited for less long"
        elif learned_s > wait_s:
            why = f"{sender} pauses for longer, and nobody is waited for any longer"
    return Completion(wait_s, settings.complete_limit_s, f"No image came for {_seconds(wait_s)}: {why}.")


def after_release(settings: StudySettings, sender: str, habits: Habits) -> Completion | None:
    """How long to wait after the release of the association of the newest image; None where that says nothing."""
    if not habits.releases_are_known:
        return None
    wait_s = max(MARGIN * habits.pause_after_release_s(), settings.complete_after_release_s)
    if wait_s >= after_image(settings, sender, habits).after_s:
        return None
    because = (
        f"{sender} released the association of the newest image and sent no other for {_seconds(wait_s)}: "
        f"after {habits.releases} releases it hardly ever sent the rest of a study later than that."
    )
    return Completion(wait_s, settings.complete_limit_s, because)


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"

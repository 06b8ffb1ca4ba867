"""When images of each study arrive, and over which association: what a study's completeness is judged by.

All bounded; what was counted is handed over in batches (`scp.callers.observing`), and a restart loses what was not.
Times are the monotonic clock's, so that a stepped clock is no pause. The newest image of a study is known to all
receiver processes; which associations are still open each knows only of its own.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from config.settings import StudySettings
from ledger.completion import Completion
from ledger.peers import IN_ALL, INSTANCE, Gaps, Observed
from scp.callers.habits import Habits, after_image, after_release, bucket_of
from scp.callers.newest import Newest
from scp.network.engine import AssociationFacts, Ending, printable

STUDIES_OF_AN_ASSOCIATION_MAX: Final = 256
SENDERS_MAX: Final = 1_000  # whose counts wait to be handed over
_name = lru_cache(1024)(printable)


@dataclass
class _Open:
    """An association that has brought images. was_refused: something that it sent was not taken, and may come again."""

    studies: OrderedDict[str, None] = field(default_factory=OrderedDict)
    was_refused: bool = False


@dataclass(frozen=True)
class Released:
    """Studies whose newest images came over an association that was released, and how long they wait from now."""

    study_uids: tuple[str, ...]
    completion: Completion


class Arrivals:
    """Shared by all associations of a receiver."""

    def __init__(self, settings: StudySettings, newest: Newest | None = None) -> None:
        self._settings = settings
        self._newest = newest or Newest()
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}
        self._seen: dict[str, Observed] = {}
        self._silent: set[str] = set()  # associations that count only once they bring something
        self._habits: dict[str, Habits] = {}
        self._completions: dict[str, Completion] = {}

    def completion(self, calling_ae_title: str) -> Completion:
        """How long a study waits after an image from this sender."""
        sender = _name(calling_ae_title)
        return self._completions.get(sender) or after_image(self._settings, sender, self._habits_of(sender))

    def learn(self, gaps: Mapping[str, Gaps]) -> None:
        """What is known now of these senders."""
        for sender, counted in gaps.items():
            habits = Habits(counted, self._settings.complete_after_max_s)
            self._habits[sender] = habits
            self._completions[sender] = after_image(self._settings, sender, habits)

    def begun_silently(self, facts: AssociationFacts) -> None:
        """An association that is the node's own call, and does not count, unless it brings something."""
        with self._lock:
            self._silent.add(facts.association_id)

    def stored(self, facts: AssociationFacts, study_uid: str | None) -> None:
        """An instance is in the ledger. study_uid: of an image that keeps its study open; None for any other."""
        sender = _name(facts.calling_ae_title)
        with self._lock:
            self._speaks(facts)
            seen = self._observed(sender)
            if seen is not None:
                seen.instances += 1
            if study_uid is not None:
                self._count_pause(study_uid, facts.association_id, sender)
                self._newest.put(study_uid, facts.association_id, sender)
                self._note(study_uid, facts.association_id)

    def own(self, facts: AssociationFacts) -> None:
        """The association is the node's own call, with a heartbeat: its caller has not called."""
        with self._lock:
            if facts.association_id in self._silent:  # it was never counted
                return
            if (seen := self._observed(_name(facts.calling_ae_title))) is not None:
                seen.associations -= 1

    def refused(self, facts: AssociationFacts, status: int) -> None:
        """An instance was not taken: its sender may bring it again, so the association's release says nothing."""
        with self._lock:
            self._speaks(facts)
            self._open.setdefault(facts.association_id, _Open()).was_refused = True
            seen = self._observed(_name(facts.calling_ae_title))
            if seen is not None:
                kind = (INSTANCE, "", f"0x{status:04X}")
                seen.refused[kind] = seen.refused.get(kind, 0) + 1

    def ended(self, facts: AssociationFacts, ending: Ending) -> Released | None:
        """An association has ended; which studies need not wait as long for it, if any. An abort is no evidence."""
        sender = _name(facts.calling_ae_title)
        with self._lock:
            self._silent.discard(facts.association_id)
            ended = self._open.pop(facts.association_id, None)
            if ended is None or ending is not Ending.RELEASED or ended.was_refused:
                return None
            elsewhere = {study for other in self._open.values() for study in other.studies}
            studies = [
                study
                for study in ended.studies
                if study not in elsewhere
                and (newest := self._newest.of(study, facts.association_id)) is not None
                and newest.same
                and newest.ago_s <= self._settings.complete_after_max_s
            ]
            if (seen := self._observed(sender)) is not None and studies:
                self._count(seen, True, IN_ALL, len(studies))
        wait = after_release(self._settings, sender, self._habits_of(sender))
        return Released(tuple(studies), wait) if wait is not None and studies else None

    def take(self) -> dict[str, Observed]:
        """What was counted since this was last asked."""
        with self._lock:
            seen, self._seen = self._seen, {}
        return seen

    # --- inner; the lock is held ---

    def _speaks(self, facts: AssociationFacts) -> None:
        if facts.association_id not in self._silent:
            return
        self._silent.discard(facts.association_id)
        if (seen := self._observed(_name(facts.calling_ae_title))) is not None:
            seen.associations += 1

    def _count_pause(self, study_uid: str, association_id: str, sender: str) -> None:
        """Of whoever sent the image before: its habits decided how long this one was waited for."""
        newest = self._newest.of(study_uid, association_id)
        if newest is None or newest.ago_s > self._settings.complete_after_max_s:
            begun = self._observed(sender)
            if begun is not None:
                self._count(begun, False, IN_ALL)
        elif (seen := self._observed(newest.sender)) is not None:
            self._count(seen, not newest.same, bucket_of(newest.ago_s))

    def _note(self, study_uid: str, association_id: str) -> None:
        studies = self._open.setdefault(association_id, _Open()).studies
        studies[study_uid] = None
        studies.move_to_end(study_uid)
        if len(studies) > STUDIES_OF_AN_ASSOCIATION_MAX:
            studies.popitem(last=False)

    def _observed(self, sender: str) -> Observed | None:
        if sender not in self._seen and len(self._seen) >= SENDERS_MAX:
            return None
        return self._seen.setdefault(sender, Observed())

    @staticmethod
    def _count(seen: Observed, between: bool, bucket: int, times: int = 1) -> None:
        seen.gaps[between, bucket] = seen.gaps.get((between, bucket), 0) + times

    def _habits_of(self, sender: str) -> Habits:
        return self._habits.get(sender) or Habits({}, self._settings.complete_after_max_s)

"""Stored studies decided anew, by another package or under other settings, beside what was said of them then.

Only asks the ledger; the analyser is the node's own, its pictures go to a folder of the command's.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from inference.analyser import Analyser, Source
from ledger.records import ImageResult, ResultStatus, TriagePriority
from ledger.review import ReviewedImage, ReviewedStudy
from ledger.slices import study_priority
from ledger.store import Store

Pair = tuple[TriagePriority | None, TriagePriority | None]


@dataclass(frozen=True)
class ImageChange:
    """One image of a study: what was said of it then, and now."""

    image: ReviewedImage
    before: tuple[ImageResult, ...]
    after: tuple[ImageResult, ...]

    @property
    def urgency(self) -> tuple[int, float]:
        """Sorts first what weighs most in either."""
        said = [*self.before, *self.after]
        ranks = [result.priority.rank for result in said if result.priority]
        most = max((finding.probability for result in said for finding in result.findings), default=0.0)
        return min(ranks, default=len(TriagePriority)), -most


@dataclass(frozen=True)
class Replayed:
    """A study. why_not: a sentence where it could not be decided anew; then there is no `after`."""

    study: ReviewedStudy
    before: TriagePriority | None
    after: TriagePriority | None = None
    images: tuple[ImageChange, ...] = ()
    why_not: str = ""

    @property
    def changed(self) -> bool:
        return not self.why_not and self.before is not self.after

    @property
    def rises(self) -> bool:
        """More urgent now."""
        return self.changed and _rank(self.after) < _rank(self.before)


@dataclass
class Tally:
    """How many studies went from which priority to which, and how many could not be decided anew, by the reason."""

    pairs: Counter[Pair] = field(default_factory=Counter)
    not_replayed: Counter[str] = field(default_factory=Counter)

    def add(self, one: Replayed) -> None:
        if one.why_not:
            self.not_replayed[one.why_not] += 1
        else:
            self.pairs[one.before, one.after] += 1

    @property
    def replayed(self) -> int:
        return sum(self.pairs.values())

    @property
    def raised(self) -> int:
        return sum(count for (before, after), count in self.pairs.items() if _rank(after) < _rank(before))

    @property
    def lowered(self) -> int:
        return sum(count for (before, after), count in self.pairs.items() if _rank(after) > _rank(before))


def _rank(priority: TriagePriority | None) -> int:
    return len(TriagePriority) if priority is None else priority.rank


class Replay:
    """names: of the packages whose word is replaced; None: everybody's."""

    def __init__(self, analyser: Analyser, store: Store, batch: int, names: frozenset[str] | None) -> None:
        self._analyser = analyser
        self._store = store
        self._batch = batch
        self._names = names

    def decide(self, study: ReviewedStudy) -> Replayed:
        """Never raises for what lies in the store."""
        before = study_priority(study.said)
        if not study.images:
            return Replayed(study, before, why_not="it has no image to look at")
        if not all(image.results for image in study.images):
            return Replayed(study, before, why_not="an image of it was not looked at yet, or its report was withdrawn")
        if any(image.path is None for image in study.images):
            return Replayed(study, before, why_not="its images were removed")
        if not all(self._store.path(image.path or "").is_file() for image in study.images):
            return Replayed(study, before, why_not="a stored file of it is damaged or gone")
        changes = tuple(
            ImageChange(image, image.results, self._joined(image.results, looked))
            for image, looked in zip(study.images, self._look(study.images), strict=True)
        )
        said = [(one.image.series_instance_uid, result) for one in changes for result in one.after]
        ordered = tuple(sorted(changes, key=lambda one: one.urgency))
        return Replayed(study, before, study_priority(said), ordered)

    def _look(self, images: Sequence[ReviewedImage]) -> Iterator[tuple[ImageResult, ...]]:
        for start in range(0, len(images), self._batch):
            part = images[start : start + self._batch]
            sources = [Source(self._store.path(image.path or ""), received_at=image.received_at) for image in part]
            yield from (looked.results for looked in self._analyser.analyse(sources))

    def _joined(self, before: Sequence[ImageResult], after: Sequence[ImageResult]) -> tuple[ImageResult, ...]:
        """What the image has now: the new word, and of the old that of packages that nobody replaces."""
        if self._names is None:
            return tuple(after)
        kept = [result for result in before if result.model is not None and result.model.name not in self._names]
        meant = [result for result in after if result.status is not ResultStatus.NOT_APPLICABLE]
        return (*kept, *meant) if kept or meant else tuple(after)

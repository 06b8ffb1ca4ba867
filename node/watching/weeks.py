"""The recent days of this site held against those before, for the same version of the same model.

A study is the unit: its most probable image speaks for a finding, and one refused image for a reason.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time
from typing import Final

from config.drift import DriftSettings
from ledger.drift import SaidOfStudy
from ledger.ledger import Ledger
from ledger.records import ImageResult, ResultStatus
from node.watching.drift import DAY, EDGES, Found, Kind, Line, State, Subject
from node.watching.spread import Difference, effective, of_histograms, of_shares

SENDERS_MAX: Final = 20  # anybody may call himself anything: those who send most
LINES_MAX: Final = 300
NOBODY: Final = ""  # a study of whom nothing is known is everybody's own


@dataclass
class Group:
    """The studies of a model, or of a sender, in one span: how many, and how many of each patient."""

    studies: int = 0
    patients: Counter[str] = field(default_factory=Counter)
    events: Counter[Subject] = field(default_factory=Counter)  # of FLAGGED and REASON
    bins: dict[str, list[int]] = field(default_factory=dict)  # by finding: studies between EDGES

    def count(self, patient: str) -> None:
        self.studies += 1
        self.patients[patient] += 1

    def size(self, days: int) -> float:
        """Of how many patients the studies say as much."""
        known = [count for patient, count in self.patients.items() if patient != NOBODY]
        return effective([*known, *([1] * self.patients[NOBODY])], days)


@dataclass
class Span:
    """What was counted in so many days, by (model, "") and ("", sender)."""

    days: int
    groups: dict[tuple[str, str], Group] = field(default_factory=dict)

    def add(self, study: SaidOfStudy) -> None:
        by: dict[tuple[str, str], list[ImageResult]] = {}
        for sender, result in study.said:
            by.setdefault(("", sender), []).append(result)
            if result.model is not None:
                by.setdefault((f"{result.model.name}/{result.model.version}", ""), []).append(result)
        for whose, results in by.items():
            group = self.of(whose)
            group.count(study.patient)
            for code in {one.reason_code or one.status for one in results if one.status is not ResultStatus.ANALYSED}:
                group.events[Subject(Kind.REASON, *whose, code)] += 1
            if whose[0]:
                _add_findings(group, whose, results)

    def of(self, whose: tuple[str, str]) -> Group:
        return self.groups.setdefault(whose, Group())


def _add_findings(group: Group, whose: tuple[str, str], results: Sequence[ImageResult]) -> None:
    findings = [finding for one in results for finding in one.findings]
    for label in {finding.label for finding in findings}:
        of_label = [finding for finding in findings if finding.label == label]
        bins = group.bins.setdefault(label, [0] * (len(EDGES) + 1))
        bins[bisect_right(EDGES, max(finding.probability for finding in of_label))] += 1
        group.events[Subject(Kind.FLAGGED, *whose, label)] += any(finding.present for finding in of_label)


def look(ledger: Ledger, settings: DriftSettings, now: datetime) -> Iterator[Found | None]:
    """What there is to say now, as the last that is given; a None after each page read, for whoever wants to pause."""
    recent, reference = Span(settings.recent_days), Span(settings.reference_days)
    known_from = datetime.combine(settings.since, time(), UTC)
    for page in ledger.said_since(max(now - (recent.days + reference.days) * DAY, known_from), now):
        for study in page:
            (recent if now - study.first_received_at < recent.days * DAY else reference).add(study)
        yield None
    yield found_in(recent, reference, settings, now)


def found_in(recent: Span, reference: Span, settings: DriftSettings, now: datetime) -> Found:
    """Every line of what is still seen, those that drift first, then those with the greatest difference."""
    senders = Counter({sender: group.studies for (_, sender), group in recent.groups.items() if sender})
    kept = {"", *(sender for sender, _ in senders.most_common(SENDERS_MAX))}
    lines = [
        line
        for whose in recent.groups
        if whose[1] in kept
        for line in _Pair(whose, recent, reference, settings).lines()
    ]
    compared = sum(line.state is State.STEADY for line in lines)
    judged = [_judged(line, settings, compared) for line in lines]
    judged.sort(key=lambda line: (list(State).index(line.state), -line.size, line.subject.model, line.subject.sender))
    return Found(
        made_at=now,
        recent_days=settings.recent_days,
        reference_days=settings.reference_days,
        studies_min=settings.studies_min,
        psi=settings.psi,
        share=settings.share,
        since=settings.since,
        false_alarms=settings.false_alarms,
        compared=compared,
        lines=tuple(judged[:LINES_MAX]),
    )


class _Pair:
    """One model, or one sender, now and before."""

    def __init__(self, whose: tuple[str, str], recent: Span, reference: Span, settings: DriftSettings) -> None:
        self._whose = whose
        self._now, self._before = recent.of(whose), reference.groups.get(whose, Group())
        self._sizes = self._now.size(recent.days), self._before.size(reference.days)
        least = settings.studies_min
        self._is_enough = self._now.studies >= least and self._before.studies >= 2 * least

    def lines(self) -> Iterator[Line]:
        for label in self._now.bins:
            yield self._histogram(label)
            yield self._share(Subject(Kind.FLAGGED, *self._whose, label))
        reasons = [one for one in self._now.events | self._before.events if one.kind is Kind.REASON]
        if not self._is_enough:
            yield self._bare(Subject(Kind.REASON, *self._whose, ""))
        else:
            yield from (self._share(one) for one in sorted(reasons, key=lambda one: one.name))

    def _bare(self, subject: Subject) -> Line:
        state = State.STEADY if self._is_enough else State.NOT_ENOUGH
        return Line(subject, state, self._now.studies, self._before.studies)

    def _histogram(self, label: str) -> Line:
        now, before = self._now.bins[label], self._before.bins.get(label, [0] * (len(EDGES) + 1))
        line = replace(
            self._bare(Subject(Kind.PROBABILITY, *self._whose, label)), bins_now=tuple(now), bins_before=tuple(before)
        )
        return _measured(line, of_histograms(now, before, *self._sizes)) if self._is_enough else line

    def _share(self, subject: Subject) -> Line:
        pairs = [(one.events[subject], one.studies - one.events[subject]) for one in (self._now, self._before)]
        now, before = (with_it / max(with_it + without, 1) for with_it, without in pairs)
        line = replace(self._bare(subject), now=now, before=before)
        if not self._is_enough:
            return line
        difference = of_shares(pairs[0], pairs[1], *self._sizes)
        return _measured(line, difference) if difference else replace(line, state=State.RARE)


def _measured(line: Line, difference: Difference) -> Line:
    return replace(line, size=difference.size, p=difference.p)


def _judged(line: Line, settings: DriftSettings, compared: int) -> Line:
    """Bonferroni: all that are compared share the probability of a false alarm."""
    limit = settings.psi if line.subject.kind is Kind.PROBABILITY else settings.share
    drifts = line.state is State.STEADY and line.size >= limit and line.p < settings.false_alarms / max(compared, 1)
    return replace(line, state=State.DRIFTS) if drifts else line

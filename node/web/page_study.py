"""A study's page: what `explain` tells, with the images, the reports' trees, and what readers say of each finding."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from pydicom import dcmread

from ledger.completeness import Waiting
from ledger.ledger import Ledger
from ledger.opinions import Judged, Opinion
from ledger.records import Finding, ImageResult, InstanceResults, ReportKind
from ledger.slices import is_slice
from ledger.views import ObjectDelivery
from node.telling.places import Made, made_of
from node.telling.sr_tree import tree_lines
from node.telling.story import delivery_line, finding_line, model_words, proof_line, result_lines, spare_line, told_line
from node.web.page_unsigned import Words, without_tokens
from node.web.page_words import seemly
from sr_writer.source import UNREADABLE
from sr_writer.words import spoken

IMAGES_MAX: Final = 24  # of a stack of slices nobody wants all
TREES: Final = frozenset({"measurement_sr", "text_sr", "key_objects"})
TREE_LINES_MAX: Final = 2_000


@dataclass(frozen=True)
class JudgedFinding:
    """A finding that a reader may agree with or not. mine: what whoever looks has said; None: nothing."""

    judged: Judged
    finding: Finding
    line: str
    mine: bool | None
    agree: int
    disagree: int
    is_open: bool  # an image speaks for itself; a slice only with its series


@dataclass(frozen=True)
class ShownResult:
    """What one model said of one image."""

    result: ImageResult
    model: str
    lines: tuple[str, ...]  # besides the findings
    findings: tuple[JudgedFinding, ...]


@dataclass(frozen=True)
class ShownImage:
    """One image of the study. has_map: a heat map or boxes can be laid over it."""

    instance_id: int
    sop_instance_uid: str
    modality: str
    is_damaged: bool
    results: tuple[ShownResult, ...]
    has_map: bool


@dataclass(frozen=True)
class ShownReport:
    """One object of a report. tree: (depth, line) of what it says, empty where it is no document or is gone."""

    made: Made
    places: tuple[tuple[str, str, str, str], ...]  # destination, word's place, delivery, proof
    spare: str
    tree: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Moment:
    """One thing that happened, and how long after the first."""

    at: datetime
    after_s: float
    name: str
    text: str


def story_of(ledger: Ledger, study_uid: str, reader: str) -> dict[str, Any] | None:
    """Everything that the page shows; None when the node never received the study. reader: who looks, "" a stranger,
    who reads no sentence of a person."""
    events = ledger.events(study_uid)
    if not events:
        return None
    looked = ledger.study_instances(study_uid)
    opinions = ledger.opinions_of(study_uid)
    first, words = events[0].at, None if reader else Words(events)
    moments = [
        Moment(one.at, (one.at - first).total_seconds(), one.name, seemly(_for(words, one.text, one.name)))
        for one in events
    ]
    images = _images(looked, ledger.damaged_of(study_uid), opinions, study_uid, reader)
    return {
        "uid": study_uid,
        "entry": ledger.entry(study_uid),
        "moments": _runs(moments),
        "hold": ledger.hold(study_uid),
        "waiting": _waiting(ledger.waiting(study_uid), words),
        "images": images[:IMAGES_MAX],
        "images_in_all": len(images),
        "reports": [_report(ledger, made, words) for made in made_of(ledger.study_objects(study_uid))],
        "told": [seemly(_for(words, told_line(one))) for one in ledger.told(study_uid)],
    }


def _for(words: Words | None, text: str, name: str = "") -> str:
    """words: None for who signed in."""
    return words.without(name, text) if words else text


def _waiting(waiting: Waiting | None, words: Words | None) -> Waiting | None:
    if waiting is None or words is None:
        return waiting
    return replace(waiting, because=without_tokens(waiting.because))


def _runs(moments: Iterable[Moment]) -> list[list[Moment]]:
    """What happened again and again without anything between: told once, and how often."""
    return [list(run) for _, run in groupby(moments, key=lambda one: one.name)]


def shown_first(looked: Iterable[InstanceResults]) -> InstanceResults | None:
    """The image that says most about a study: the most urgent one, else the first."""
    ranked = sorted(looked, key=_rank)
    return ranked[0] if ranked else None


def mapped_finding(results: Iterable[ImageResult]) -> tuple[ImageResult, Finding] | None:
    """Whose evidence is laid over an image: the most probable that was found, else that was looked for."""
    found = [(result, one) for result in results for one in spoken(result) if one.activation or one.regions]
    return max(found, key=lambda pair: (pair[1].present, pair[1].probability), default=None)


def _rank(item: InstanceResults) -> tuple[Any, ...]:
    urgencies = [result.urgency for result in item.results if result.model is not None]
    return (0, *min(urgencies)) if urgencies else (1, item.instance.instance_id)


def _images(
    looked: Sequence[InstanceResults],
    damaged: frozenset[int],
    opinions: Sequence[Opinion],
    study_uid: str,
    reader: str,
) -> list[ShownImage]:
    return [
        ShownImage(
            item.instance.instance_id,
            item.instance.sop_instance_uid,
            item.instance.modality,
            item.instance.instance_id in damaged,
            tuple(_result(item, result, opinions, study_uid, reader) for result in item.results),
            mapped_finding(item.results) is not None or any(result.masks for result in item.results),
        )
        for item in sorted(looked, key=_rank)
    ]


def _result(
    item: InstanceResults, result: ImageResult, opinions: Sequence[Opinion], study_uid: str, reader: str
) -> ShownResult:
    said = spoken(result)
    findings = [_judged(item, result, one, opinions, study_uid, reader) for one in said] if result.model else []
    skip = {finding_line(one) for one in result.findings} | {f"flag {flag}" for flag in result.critical_flags}
    lines = [seemly(line) for line in result_lines(result)[1:] if line not in skip]
    return ShownResult(result, model_words(result), tuple(lines), tuple(findings))


def _judged(
    item: InstanceResults,
    result: ImageResult,
    finding: Finding,
    opinions: Sequence[Opinion],
    study_uid: str,
    reader: str,
) -> JudgedFinding:
    assert result.model is not None
    judged = Judged(study_uid, item.instance.instance_id, result.model.name, result.model.version, finding.label)
    said = [one for one in opinions if one.judged.key == judged.key and one.present is finding.present]
    mine = next((one.agrees for one in said if reader and one.by == reader), None)
    agree = sum(one.agrees for one in said)
    return JudgedFinding(
        judged, finding, finding_line(finding), mine, agree, len(said) - agree, is_open=not is_slice(result)
    )


def _report(ledger: Ledger, made: Made, words: Words | None) -> ShownReport:
    """A withdrawn report says why it was withdrawn: its tree is for who signed in."""
    places = tuple(
        (one.destination or "", one.state.value if one.state else "", _for(words, delivery_line(one)), _proof(one))
        for one in made.places
    )
    shown = made.places[0] if made.places else None
    is_open = words is None or made.report_kind != ReportKind.WITHDRAWN
    tree = tuple(_tree(ledger, shown)) if shown is not None and shown.kind in TREES and is_open else ()
    return ShownReport(made, places, _for(words, spare_line(made)), tree)


def _proof(one: ObjectDelivery) -> str:
    return proof_line(one) if one.state is not None and one.proof.value != "none" else ""


def _tree(ledger: Ledger, shown: ObjectDelivery) -> Iterator[tuple[int, str]]:
    """Of an object that we wrote ourselves; nothing where it is gone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        try:
            lines = list(tree_lines(dcmread(ledger.store.path(shown.path))))
        except UNREADABLE:
            return
    for line in lines[:TREE_LINES_MAX]:
        text = line.lstrip(" ")
        yield (len(line) - len(text)) // 2, seemly(text)

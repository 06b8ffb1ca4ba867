"""Which image and which finding speak first. Order only; nothing is decided here."""

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.records import Finding, ImageResult, InstanceRef, ResultStatus, StudyFindings
from sr_writer.words import FLAGGED, spoken


@dataclass(frozen=True)
class Read:
    """One model's result on one instance."""

    instance: InstanceRef
    result: ImageResult


def ranked(finding: Finding) -> tuple[bool, bool, float, str]:
    """Sort key: present before doubtful before the rest, then the more probable."""
    return (not finding.present, not finding.in_doubt, -finding.probability, finding.label)


def reads(findings: StudyFindings) -> list[Read]:
    """Every result that concerns a reader, worst image first; the order does not depend on arrival."""
    found = [
        Read(seen.instance, result)
        for seen in findings.looked_at
        for result in seen.results
        if result.status is not ResultStatus.NOT_APPLICABLE
    ]
    return sorted(found, key=_urgency)


def _urgency(read: Read) -> tuple[int, tuple[bool, bool, float, str], str, str]:
    rank = read.result.priority.rank if read.result.priority is not None else 99
    first = min((ranked(finding) for finding in spoken(read.result)), default=(True, True, 0.0, ""))
    return rank, first, read.instance.sop_instance_uid, read.result.model.name if read.result.model else ""


def analysed(found: Sequence[Read]) -> list[Read]:
    return [read for read in found if read.result.status is ResultStatus.ANALYSED and read.result.model is not None]


def marked(findings: StudyFindings) -> tuple[str, ...]:
    """The labels that are present on any image or in any series, most urgent first.

    In a study that is not flagged they come from models that may not raise the priority.
    """
    images = [finding for read in analysed(reads(findings)) for finding in sorted(spoken(read.result), key=ranked)]
    labels = [finding.label for finding in images if finding.present]
    labels += [volume.label for volume in findings.volumes if volume.present]
    return tuple(dict.fromkeys(labels))


def measured(findings: StudyFindings) -> bool:
    """Whether a report has measurements beside its text: flagged, or marked by a model that may not flag."""
    return findings.priority in FLAGGED or bool(marked(findings))


def not_judged(found: Sequence[Read]) -> list[Read]:
    """A model was meant to look and could not."""
    return [read for read in found if read.result.status in (ResultStatus.NOT_ASSESSED, ResultStatus.FAILED)]

"""Which image and which finding speak first. Order only; nothing is decided here."""

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.records import Finding, ImageResult, InstanceRef, ReportKind, ResultStatus, StudyFindings, VolumeFinding
from ledger.slices import is_slice, remarks, results_of, unjudged
from sr_writer.dress import Report
from sr_writer.words import FLAGGED, spoken


@dataclass(frozen=True)
class Read:
    """One model's result on one instance. remark: a refused slice that says nothing against its study."""

    instance: InstanceRef
    result: ImageResult
    remark: bool = False


def ranked(finding: Finding) -> tuple[bool, bool, float, str]:
    """Sort key: present before doubtful before the rest, then the more probable."""
    return (not finding.present, not finding.in_doubt, -finding.probability, finding.label)


def reads(findings: StudyFindings) -> list[Read]:
    """Every result that concerns a reader, worst image first and mere remarks last; the order does not depend on
    arrival. Before its study is complete nothing is made of a series, and so nothing of its refused slices."""
    said = results_of(findings.looked_at)
    early = findings.kind is ReportKind.PROVISIONAL
    passed = [is_slice(result) and unjudged(result) for _, result in said] if early else remarks(said)
    images = [seen.instance for seen in findings.looked_at for _ in seen.results]
    found = [
        Read(image, result, remark)
        for image, (_, result), remark in zip(images, said, passed, strict=True)
        if result.status is not ResultStatus.NOT_APPLICABLE
    ]
    return sorted(found, key=lambda read: (read.remark, _urgency(read)))


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
    return tuple(dict.fromkeys([*_marked_images(findings), *marked_volumes(findings)]))


def marked_volumes(findings: StudyFindings) -> tuple[str, ...]:
    """Those of any series."""
    return tuple(dict.fromkeys(volume.label for volume in in_order(findings.volumes) if speaks(volume)))


def measured(report: Report) -> bool:
    """Whether a report has measurements beside its text: flagged, or marked by a model that may not flag."""
    findings = report.findings
    return findings.priority in FLAGGED or bool(report.segments or _marked_images(findings))


def marked_anything(findings: StudyFindings) -> bool:
    """Whether a study has something to show: flagged, or marked by a model that may not raise a priority."""
    volumes = any(volume.slices and volume.ordered for volume in findings.volumes)
    return findings.priority in FLAGGED or volumes or bool(_marked_images(findings))


def _marked_images(findings: StudyFindings) -> list[str]:
    images = by_image(analysed(reads(findings)))
    every = [finding for read in images for finding in sorted(spoken(read.result), key=ranked)]
    return [finding.label for finding in every if finding.present]


def in_order(volumes: Sequence[VolumeFinding]) -> list[VolumeFinding]:
    """Suspected first, then undetermined, then the rest; the order does not depend on arrival."""
    return sorted(volumes, key=lambda v: (not v.present, not v.undetermined, v.label, v.series_instance_uid))


def speaks(volume: VolumeFinding) -> bool:
    """Whether a glance should see it: suspected, or marked in part and not decided."""
    return volume.present or (volume.undetermined and bool(volume.slices))


def not_judged(found: Sequence[Read]) -> list[Read]:
    """A model was meant to look and could not; mere remarks are left out."""
    return [read for read in found if unjudged(read.result) and not read.remark]


def of_slice_model(read: Read) -> bool:
    """Its findings speak for a series together (`StudyFindings.volumes`), never by themselves."""
    return is_slice(read.result)


def by_image(found: Sequence[Read]) -> list[Read]:
    """The results that speak for one image each."""
    return [read for read in found if not of_slice_model(read)]

"""From findings to a priority, by a table that the site configures; judged finding by finding, never by the top one."""

from collections.abc import Iterable
from dataclasses import dataclass

from config.settings import DecideSettings, RecommendSettings
from inference.body_parts import SPINE_PARTS
from inference.manifest import LabelSpec
from ledger.records import Finding, TriagePriority, most_urgent

RESPIRATORY_EMERGENCY = "RESPIRATORY_EMERGENCY"
NEUROLOGICAL_RISK = "NEUROLOGICAL_RISK"
RESPIRATORY_LABELS = frozenset({"pneumonia", "pneumothorax"})
ROUNDING = 1e-9


@dataclass(frozen=True)
class Decision:
    priority: TriagePriority
    critical_flags: tuple[str, ...]
    recommendations: tuple[str, ...]


def operating_point(spec: LabelSpec, settings: DecideSettings) -> float:
    """The site's threshold for this label, else the package's."""
    return settings.thresholds.get(spec.label, spec.operating_point.threshold)


def high_operating_point(spec: LabelSpec, settings: DecideSettings) -> float:
    return settings.high_probability if spec.high_operating_point is None else spec.high_operating_point


def in_doubt(probability: float, sd: float, point: float, settings: DecideSettings) -> bool:
    """Absent, but close below its operating point; or the passes disagree."""
    near = point - settings.doubt_margin - ROUNDING <= probability < point
    return near or sd > settings.doubt_sd


def decide(
    findings: tuple[Finding, ...],
    body_part: str | None,
    may_raise_priority: bool,
    settings: DecideSettings,
    recommend: RecommendSettings,
) -> Decision:
    """The priority of one analysed image.

    A package that may not raise an alarm leaves every priority at LOW and sets no flag; its findings stay visible.
    """
    if not may_raise_priority:
        return Decision(TriagePriority.LOW, (), ())
    priority = most_urgent([TriagePriority.LOW, *(priority_of(finding, settings) for finding in findings)])
    flags = critical_flags(findings, body_part, settings)
    return Decision(priority, flags, recommendations(findings, priority, recommend))


def priority_of(finding: Finding, settings: DecideSettings) -> TriagePriority:
    """What one finding by itself asks for."""
    asked = [TriagePriority.LOW]
    critical = finding.label in settings.critical_findings and finding.probability >= finding.high_operating_point
    if finding.present and critical:
        asked.append(TriagePriority(settings.critical_priority))
    if finding.present:
        asked.append(TriagePriority(settings.present_priority))  # the settings keep it from being LOW
    if finding.in_doubt:
        asked.append(TriagePriority(settings.doubt_priority))
    return most_urgent(asked)


def critical_flags(findings: tuple[Finding, ...], body_part: str | None, settings: DecideSettings) -> tuple[str, ...]:
    """Flags for JSON and the page; in DICOM only where the settings say so."""
    respiratory = any(
        finding.present
        and finding.label in RESPIRATORY_LABELS
        and finding.probability > settings.respiratory_emergency_probability
        for finding in findings
    )
    neurological = body_part in SPINE_PARTS and any(
        finding.present and finding.label == "fracture" and finding.probability > settings.neurological_risk_probability
        for finding in findings
    )
    return (RESPIRATORY_EMERGENCY,) * respiratory + (NEUROLOGICAL_RISK,) * neurological


def recommendations(
    findings: tuple[Finding, ...], priority: TriagePriority, recommend: RecommendSettings
) -> tuple[str, ...]:
    """About reading and further imaging, never about treatment."""
    texts: list[str] = [recommend.high] if priority is TriagePriority.HIGH else []
    texts += [recommend.present.get(finding.label, "") for finding in findings if finding.present]
    texts += [recommend.doubt] if any(finding.in_doubt for finding in findings) else []
    return _distinct(texts)


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))

"""The words a radiologist reads. One place, so that what must never be said is never said.

Never: the word that calls an image healthy, and the lowest priority's name (DESIGN.md, "words we never use").
"""

import re
from collections.abc import Iterable

from ledger.records import Finding, ImageResult, Region, TriagePriority, VolumeFinding

DISCLAIMER = (
    "AI triage output. For research use only - not for diagnostic use. Not reviewed by a physician. "
    "Other disease was not looked for."
)
DO_NOT_USE = "Do not use the earlier AI result."
NOT_RAISED = "priority not raised; other disease was not looked for."
NO_FINDING = "No flagged finding; other disease was not looked for."
BANNER = "AI – RESEARCH – NOT FOR DIAGNOSIS"
FLAGGED = (TriagePriority.HIGH, TriagePriority.MEDIUM)

_REASON_UNSAID = "the reason is in the node's own log"
_INTERNAL_LABELS = frozenset({"normal"})  # a class of some models that says nothing to a reader
_UNSPEAKABLE = re.compile(r"\b(?i:normal(?:ly|ity)?)\b|\bLOW\b")  # "too low" is plain English
_LONG_STRING = 64  # VR LO, PS3.5 6.2


def unspeakable(text: str) -> str:
    """The first word in it that no reader may see; empty when every word may be seen."""
    found = _UNSPEAKABLE.search(text)
    return found.group() if found else ""


def sayable(text: str, instead: str = "") -> str:
    """`text`, or `instead` when it holds a word that no reader may see (a site's own text, a reason from afar)."""
    text = " ".join(text.split())
    return instead if unspeakable(text) else text


def spoken(result: ImageResult) -> tuple[Finding, ...]:
    """The findings a reader may see: a model's internal classes are left out."""
    return speakable(result.findings)


def speakable(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those of them."""
    return tuple(finding for finding in findings if finding.label not in _INTERNAL_LABELS)


def reason_of(text: str) -> str:
    """A reason as it stands within a sentence: without a full stop, and never with a word that no reader may see."""
    return sayable(text, _REASON_UNSAID).rstrip(". ") or _REASON_UNSAID


def name_of(said: Finding | VolumeFinding) -> str:
    """ "pneumonia" as it begins a sentence."""
    return said.label.replace("_", " ").capitalize()


def percent(probability: float) -> str:
    """93.1 for 0.931; never a certainty the model does not have."""
    if probability > 0.9995:
        return ">99.9"
    if 0.0 < probability < 0.0005:
        return "<0.1"
    return f"{probability * 100:.1f}"


def in_percent(probability: float) -> float:
    """As a number, never 0 or 100: no calibration set is large enough to vouch for that."""
    return min(max(round(probability * 100.0, 2), 0.01), 99.99)


def plus_minus(said: Finding | VolumeFinding) -> str:
    """ "93.1 % ± 3.0 %": the mean and the sd of the calibrated passes."""
    sd = said.probability_sd
    return f"{percent(said.probability)} % ± {'<0.1' if sd < 0.0005 else f'{sd * 100:.1f}'} %"


def number_of(finding: Finding, region: Region) -> float:
    """The probability beside a box: the finding's where the box is its only one, so that all say one number."""
    return finding.probability if len(finding.regions) == 1 else region.probability


def beside_box(finding: Finding, region: Region) -> str:
    """ "Fracture 52.4 % ± 9.4 %"; of one box of several which number it is: "Fracture, this box 51.6 %"."""
    if len(finding.regions) == 1:
        return f"{name_of(finding)} {plus_minus(finding)}"
    return f"{name_of(finding)}, this box {percent(region.probability)} %"


def boxes_of(finding: Finding, shown: bool = True) -> str:
    """ "1 box", "3 boxes"; nothing for a finding without boxes, or where no place is shown."""
    count = len(finding.regions) if shown else 0
    return "" if not count else "1 box" if count == 1 else f"{count} boxes"


def standing(finding: Finding, priority: TriagePriority | None = TriagePriority.HIGH) -> str:
    """Where a finding stands towards its operating point. priority: of its result."""
    if finding.present:
        word = "FLAGGED" if priority in FLAGGED else "MARKED, priority not raised"
        return f"{word}, in doubt" if finding.in_doubt else word
    return "IN DOUBT" if finding.in_doubt else "not flagged"


def series_description(priority: TriagePriority | None, what: str) -> str:
    """The class first, since viewers show some 20 characters; unflagged studies are left blank (LO, 64 characters)."""
    if priority in FLAGGED:
        return f"AI TRIAGE {priority.value}: {what} (research)"[:_LONG_STRING]
    return f"AI result: {what} (research)"[:_LONG_STRING]

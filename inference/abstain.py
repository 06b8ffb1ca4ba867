"""When a package says "cannot assess" of an image that it has looked at (docs/adr/0008).

Abstention takes the place of "no flagged finding" and of nothing else: a finding that is present, and a priority that
was asked for, stand; the finding is then marked as in doubt.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from inference.decide import Decision
from inference.doubt import figure_of_doubt
from inference.errors import CannotLook
from inference.findings import calibrate
from inference.manifest import Manifest
from ledger.records import Finding, TriagePriority

CODE = "abstained"
REASON = "The model looked at the image and cannot assess it: it is too uncertain of its own answer."
Findings = tuple[Finding, ...]


def doubtful_labels(manifest: Manifest, scores: NDArray[np.float32], distance: float | None) -> frozenset[str]:
    """The labels whose figure of doubt lies beyond the manifest's threshold.

    scores: (T, L) raw. distance: of the image's features, None where the package has no gate.
    """
    rule = manifest.abstention
    if rule is None:
        return frozenset()
    away = None if distance is None else np.asarray(distance, np.float64)
    doubts = {
        spec.label: float(figure_of_doubt(rule.by, calibrate(scores[:, i], spec.calibration), away))
        for i, spec in enumerate(manifest.labels)
    }
    return frozenset(label for label, doubt in doubts.items() if not doubt <= rule.threshold)


def says_nothing_found(findings: Findings, decision: Decision) -> bool:
    """Whether the answer is that nothing was found: no finding present, no priority asked for.

    Only such an answer can be withheld; a package's rule is chosen among these (training/packaging/abstain.py).
    """
    return decision.priority is TriagePriority.LOW and not any(finding.present for finding in findings)


def weighed(
    findings: Findings, doubtful: frozenset[str], decide: Callable[[Findings], Decision]
) -> tuple[Findings, Decision]:
    """The findings and what is decided on them. Raises CannotLook when a doubtful answer would be "nothing found".

    Doubt never lowers a priority: what was asked for without it is asked for with it.
    """
    decision = decide(findings)
    stated = [finding for finding in findings if finding.label in doubtful]
    if not stated:
        return findings, decision
    if says_nothing_found(findings, decision):
        raise CannotLook(CODE, REASON)
    marked = tuple(replace(f, in_doubt=f.in_doubt or (f.present and f.label in doubtful)) for f in findings)
    return marked, decide(marked)

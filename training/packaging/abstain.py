"""Which figure of doubt finds a package's errors, and from where on the package abstains.

The figure is the one with the least area under the risk-coverage curve on the calibration split (validation/doubt.py);
ties go to plain maximum probability. The threshold leaves the stated share of that split undoubted. The node abstains
only where it would otherwise say that nothing was found (docs/adr/0008), so more than that share is answered: the
manifest's `coverage` is what really is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from inference.doubt import figure_of_doubt
from inference.findings import INTERNAL_LABEL, calibrate
from inference.manifest import Abstention, Doubt, LabelSpec
from validation.bootstrap import DRAWS
from validation.doubt import NAMES, compare

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Chosen:
    """The rule for the manifest, and the comparison it rests on (as validation.doubt.compare gives it)."""

    rule: Abstention
    evidence: dict[str, Any]


def choose_abstention(
    labels: Sequence[LabelSpec],
    scores: NDArray[np.float32],
    truth: NDArray[np.float32],
    groups: Sequence[str],
    distance: Floats | None,
    undoubted: float = 0.95,
    draws: int = DRAWS,
) -> Chosen:
    """Of the calibration split.

    scores: (N, T, L) raw passes; truth: (N, L) in {0, 1}, NaN where it is not known; groups: the patient of each of N;
    distance: (N,) of the features, None where the package has no gate. undoubted: the share of the images that the
    threshold leaves undoubted.
    """
    stated = [i for i, spec in enumerate(labels) if spec.label != INTERNAL_LABEL]
    passes = [calibrate(scores[..., i], labels[i].calibration) for i in stated]
    present = np.stack(
        [p.mean(axis=1) >= labels[i].operating_point.threshold for i, p in zip(stated, passes, strict=True)]
    )
    known = truth[:, stated].T
    wrong = ((known > 0.5) != present) & ~np.isnan(known)
    doubts = {
        by: np.max([figure_of_doubt(by, p, distance) for p in passes], axis=0)
        for by in get_args(Doubt)
        if by != "distance" or distance is not None
    }
    evidence = compare(wrong.any(axis=0), doubts, groups, draws)
    return Chosen(_rule(evidence, doubts, np.asarray(present.any(axis=0)), undoubted), evidence)


def _rule(
    evidence: dict[str, Any], doubts: dict[Doubt, Floats], present: NDArray[np.bool_], undoubted: float
) -> Abstention:
    plain: Doubt = "max_probability"
    by = next((by for by in doubts if by == evidence["winner"]), plain)
    threshold = threshold_at(doubts[by], undoubted)
    doubtful = doubts[by] > threshold
    stands = int((doubtful & present).sum())
    n = len(present)
    return Abstention(
        by=by,
        threshold=threshold,
        coverage=round(1.0 - (int(doubtful.sum()) - stands) / n, 4),
        text=f"{_why(by, evidence)}; of {n} images {int(doubtful.sum())} lie beyond the threshold, of which {stands}"
        " have a finding that is present and are answered all the same",
    )


def _why(by: Doubt, evidence: dict[str, Any]) -> str:
    if evidence["winner"] is None:
        return f"{NAMES[by]}: nothing to choose by, no image of the calibration split was answered wrongly"
    told = ", ".join(f"{NAMES[name]} {row['aurc']:.5f}" for name, row in evidence["orderings"].items())
    return f"{NAMES[by]} has the least area under the risk-coverage curve, {evidence['errors']} errors: {told}"


def threshold_at(doubt: Floats, undoubted: float) -> float:
    """The least threshold, of six digits, beyond which no more than 1 - `undoubted` of the images lie."""
    ranked = np.sort(doubt)
    kept = min(len(ranked), max(1, int(np.ceil(undoubted * len(ranked) - 1e-9))))
    return float(np.ceil(ranked[kept - 1] * 1e6) / 1e6)

"""Which figure of doubt finds a package's misses, and from where on the package abstains.

The node abstains only where it would otherwise say that nothing was found (docs/adr/0008), so figure and threshold are
chosen among those answers of the calibration split alone, told apart by the node's own code: past the gate, nothing
present, no priority asked for, at the operating points of the age group. The figure is the one with the least area
under the risk-coverage curve among them (validation/doubt.py); ties go to plain maximum probability. The threshold
leaves the stated share of them undoubted. A rule that would withhold none of them is not shipped; `text` says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from config.settings import DecideSettings, RecommendSettings
from inference.abstain import says_nothing_found
from inference.decide import decide
from inference.doubt import figure_of_doubt
from inference.errors import CannotLook
from inference.findings import calibrate, findings_of
from inference.gate import check_features
from inference.manifest import Abstention, Doubt, Manifest
from validation.bootstrap import DRAWS
from validation.doubt import NAMES, compare

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
SETTINGS = DecideSettings()  # the site's own may differ; these are what a package ships for


@dataclass(frozen=True)
class Chosen:
    """The rule for the manifest, None where none is shipped; `text` says why it is this one, or none.

    Of the calibration images that the gate lets pass: answered; silent, those whose answer would be that nothing was
    found; missed, silent ones with a finding; withheld, silent ones on which the node abstains, of which
    withheld_missed were missed. evidence: as validation.doubt.compare gives it, of the silent ones; None without any.
    """

    rule: Abstention | None
    text: str
    answered: int
    silent: int
    missed: int
    withheld: int = 0
    withheld_missed: int = 0
    evidence: dict[str, Any] | None = None


@dataclass(frozen=True)
class Calibrated:
    """What the graph gave for N images of the calibration split.

    scores: (N, T, L) raw passes; truth: (N, L) in {0, 1}, NaN where it is not known; groups: the patient of each of N;
    distance: (N,) of the features, None where the package has no gate.
    """

    scores: NDArray[np.float32]
    truth: NDArray[np.float32]
    groups: Sequence[str]
    distance: Floats | None

    def where(self, chosen: Flags) -> "Calibrated":
        distance = None if self.distance is None else self.distance[chosen]
        return Calibrated(self.scores[chosen], self.truth[chosen], list(compress(self.groups, chosen)), distance)


def choose_rules(
    manifest: Manifest, seen: Calibrated, members: Sequence[Flags], undoubted: float, draws: int = DRAWS
) -> tuple[Manifest, dict[str, Chosen]]:
    """The manifest with its rules, and what they rest on by age group; "" is the package's own rule.

    members: of each age group of the manifest, (N,) who belongs to it. Where a group has no rule the package's own
    would stand in for it, which was not chosen among its answers; then there is none either.
    """
    groups = {
        group.name: choose_abstention(manifest.at_age(group.ages_years[0]), seen.where(who), undoubted, draws)
        for group, who in zip(manifest.age_groups, members, strict=True)
    }
    own = choose_abstention(manifest.at_age(None), seen, undoubted, draws)
    without = " and ".join(name for name, chosen in groups.items() if chosen.rule is None)
    if own.rule and without:
        text = f"none: it would stand in for a rule of {without}, among whose answers it was not chosen"
        own = replace(own, rule=None, text=text, withheld=0, withheld_missed=0)
    aged = tuple(group.model_copy(update={"abstention": groups[group.name].rule}) for group in manifest.age_groups)
    return manifest.model_copy(update={"age_groups": aged, "abstention": own.rule}), {**groups, "": own}


def choose_abstention(manifest: Manifest, seen: Calibrated, undoubted: float = 0.95, draws: int = DRAWS) -> Chosen:
    """manifest: as it stands for these patients. undoubted: the share that the threshold leaves undoubted of the
    answers that nothing was found."""
    seen = seen.where(_past_the_gate(manifest, seen.distance, len(seen.scores)))
    answered, stated = len(seen.scores), _stated(manifest)
    silent = np.array([_silent(manifest, one) for one in seen.scores], bool)
    missed = np.asarray((seen.truth[:, stated] > 0.5).any(axis=1) & silent)
    n, misses = int(silent.sum()), int(missed.sum())
    if not n:
        return Chosen(None, "none: no answer was that nothing was found", answered, n, misses)
    doubts = _doubts(manifest, stated, seen)
    evidence = compare(missed[silent], {by: d[silent] for by, d in doubts.items()}, seen.where(silent).groups, draws)
    by: Doubt = next((by for by in doubts if by == evidence["winner"]), "max_probability")
    threshold = threshold_at(doubts[by][silent], undoubted)
    doubtful = doubts[by] > threshold
    withheld, of_them_missed = int((doubtful & silent).sum()), int((doubtful & missed).sum())
    if not withheld:
        text = (
            f"none: no threshold that leaves {undoubted:.0%} of the {n} answers that nothing was found undoubted would"
            " withhold one of them"
        )
        return Chosen(None, text, answered, n, misses, evidence=evidence)
    text = (
        f"{_why(by, evidence)}; of {n} answers that nothing was found {withheld} lie beyond the threshold and are"
        f" withheld, {of_them_missed} of the {misses} misses among them; {int((doubtful & ~silent).sum())} alarms lie"
        " beyond it and stand"
    )
    rule = Abstention(by=by, threshold=threshold, coverage=round(1.0 - withheld / answered, 4), text=text)
    return Chosen(rule, text, answered, n, misses, withheld, of_them_missed, evidence)


def _past_the_gate(manifest: Manifest, distance: Floats | None, n: int) -> Flags:
    if distance is None:
        return np.ones(n, bool)
    return np.array([_lets_pass(manifest, float(one)) for one in distance], bool)


def _lets_pass(manifest: Manifest, distance: float) -> bool:
    try:
        check_features(distance, manifest)
    except CannotLook:
        return False
    return True


def _stated(manifest: Manifest) -> list[int]:
    """The labels that become findings of their own name."""
    nothing = np.zeros((1, len(manifest.labels)), np.float32)
    found = {finding.label for finding in findings_of(nothing, None, manifest, SETTINGS, (1, 1))}
    return [i for i, spec in enumerate(manifest.labels) if spec.label in found]


def _silent(manifest: Manifest, scores: NDArray[np.float32]) -> bool:
    """scores: (T, L) of one image. Whether the node would say that nothing was found."""
    findings = findings_of(scores, None, manifest, SETTINGS, (1, 1))
    return says_nothing_found(
        findings, decide(findings, None, manifest.may_raise_priority, SETTINGS, RecommendSettings())
    )


def _doubts(manifest: Manifest, stated: Sequence[int], seen: Calibrated) -> dict[Doubt, Floats]:
    """Of each image the greatest over its stated labels: one label beyond the threshold is enough for the node."""
    passes = [calibrate(seen.scores[..., i], manifest.labels[i].calibration) for i in stated]
    return {
        by: np.max([figure_of_doubt(by, p, seen.distance) for p in passes], axis=0)
        for by in get_args(Doubt)
        if by != "distance" or seen.distance is not None
    }


def _why(by: Doubt, evidence: dict[str, Any]) -> str:
    if evidence["winner"] is None:
        return f"{NAMES[by]}: nothing to choose by, no finding was missed on the calibration split"
    told = ", ".join(f"{NAMES[name]} {row['aurc']:.5f}" for name, row in evidence["orderings"].items())
    return f"{NAMES[by]} has the least area under the risk-coverage curve, {evidence['errors']} misses: {told}"


def threshold_at(doubt: Floats, undoubted: float) -> float:
    """The least threshold, of six digits, beyond which no more than 1 - `undoubted` of the images lie."""
    ranked = np.sort(doubt)
    kept = min(len(ranked), max(1, int(np.ceil(undoubted * len(ranked) - 1e-9))))
    return float(np.ceil(ranked[kept - 1] * 1e6) / 1e6)

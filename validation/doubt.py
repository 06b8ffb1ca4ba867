"""Which figure of doubt finds the model's errors: risk against coverage, when people take the most doubtful images.

Coverage is the share of images that the model still answers; risk is the share of errors among those. A figure of doubt
is worth what its curve lies below the level of all errors. AURC is the mean risk over all coverages: small is good.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from validation.bootstrap import DRAWS, bootstrap

Floats = NDArray[np.float64]
COVERAGES = (0.99, 0.95, 0.9, 0.8, 0.7)
NAMES = {  # as a manifest's abstention calls them
    "sd": "sd over the passes",
    "mutual_information": "mutual information",
    "entropy": "predictive entropy",
    "max_probability": "maximum probability",
    "distance": "out-of-distribution distance",
}
PLAIN = "max_probability"


def risk_at_coverage(wrong: NDArray[np.bool_], doubt: Floats) -> Floats:
    """(N,): the risk when the k least doubtful images are answered, k = 1..N. Equal doubts share their mean risk."""
    return np.asarray(_Risk(wrong, doubt).curve(np.ones((1, len(wrong))))[0])


def aurc(wrong: NDArray[np.bool_], doubt: Floats) -> float:
    """The mean of `risk_at_coverage`."""
    return float(risk_at_coverage(wrong, doubt).mean())


def best_aurc(wrong: NDArray[np.bool_]) -> float:
    """What a figure would reach that doubts exactly the errors."""
    return aurc(wrong, wrong.astype(np.float64))


class _Risk:
    """Risk curves of one ordering for many sets of weights at once."""

    def __init__(self, wrong: NDArray[np.bool_], doubt: Floats) -> None:
        self._order = np.argsort(doubt, kind="stable")
        ranked = doubt[self._order]
        self._wrong = wrong[self._order].astype(np.float64)
        self._starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        self._sizes = np.diff(np.r_[self._starts, len(ranked)])

    def curve(self, weights: Floats) -> Floats:
        """weights: (draws, N). Returns (draws, N) in the order of doubt; 0 before the first image drawn."""
        ranked = weights[:, self._order]
        errors = np.add.reduceat(ranked * self._wrong, self._starts, axis=1)
        images = np.add.reduceat(ranked, self._starts, axis=1)
        share = np.divide(errors, images, out=np.zeros_like(errors), where=images > 0)
        answered = np.cumsum(ranked, axis=1)
        wrongly = np.cumsum(ranked * np.repeat(share, self._sizes, axis=1), axis=1)
        return np.asarray(np.divide(wrongly, answered, out=np.zeros_like(wrongly), where=answered > 0))

    def area(self, weights: Floats) -> Floats:
        """(draws,): AURC of each draw."""
        ranked = weights[:, self._order]
        return np.asarray((self.curve(weights) * ranked).sum(axis=1) / ranked.sum(axis=1))


def compare(
    wrong: NDArray[np.bool_],
    doubts: Mapping[str, Floats],
    groups: Sequence[str],
    draws: int = DRAWS,
    seed: int = 1,
) -> dict[str, Any]:
    """AURC of each ordering with its patient bootstrap, against plain maximum probability, and the winner.

    wrong: (N,); doubts: name -> (N,), NaN-free. Ties for the first place go to the plainer figure.
    """
    risks = {name: _Risk(wrong, values) for name, values in doubts.items()}
    rows = {}
    for name, risk in risks.items():
        at = risk.curve(np.ones((1, len(wrong))))[0]
        rows[name] = {
            "name": NAMES[name],
            "aurc": round(float(at.mean()), 6),
            "bootstrap95_by_patient": bootstrap(risk.area, groups, draws, seed, digits=6),
            "risk_at_coverage": {f"{share:g}": round(float(at[_last(share, len(at))]), 4) for share in COVERAGES},
            **_against_plain(name, risks, groups, draws, seed),
        }
    winner = min(rows, key=lambda name: (rows[name]["aurc"], name != PLAIN)) if wrong.any() else None
    return {
        "errors": int(wrong.sum()),
        "n": len(wrong),
        "risk_at_full_coverage": round(float(wrong.mean()), 4),
        "aurc_of_a_perfect_order": round(best_aurc(wrong), 6),
        "orderings": rows,
        "winner": winner,
    }


def _against_plain(
    name: str, risks: Mapping[str, _Risk], groups: Sequence[str], draws: int, seed: int
) -> dict[str, Any]:
    """AURC less that of maximum probability, with the interval of the difference over the same draws."""
    if name == PLAIN or PLAIN not in risks:
        return {}
    one, plain = risks[name], risks[PLAIN]
    difference = bootstrap(lambda weights: one.area(weights) - plain.area(weights), groups, draws, seed, digits=6)
    return {"less_plain_bootstrap95": difference, "against_plain": _verdict(difference)}


def _verdict(difference: list[float] | None) -> str:
    """better, worse or alike: whether the interval of the difference leaves out 0."""
    if difference is None or difference[0] <= 0.0 <= difference[1]:
        return "alike"
    return "better" if difference[1] < 0.0 else "worse"


def _last(coverage: float, n: int) -> int:
    """The index of the last image answered at this coverage; at least one is."""
    return max(0, int(np.floor(coverage * n + 1e-9)) - 1)

"""The same figures by age, sex, view and site, with the worst group named: an average hides whom a model fails.

The worst is named however small it is, marked as few images where it is; the worst of those not small beside it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from validation.border import Kinds, honest_area
from validation.figures import Evidence, from_present
from validation.floors import SMALL_GROUP
from validation.roc import auc, delong_interval
from validation.table import AGE_GROUPS, NOT_STATED, OLDEST

Group = dict[str, Any]
_AGE_ORDER = [name for _, name in AGE_GROUPS] + [OLDEST]


def subgroups(evidence: Evidence) -> dict[str, Any]:
    """By trait its groups in order and the worst of them; and the worst of all traits, with and without small ones."""
    traits = {name: _of_trait(name, evidence) for name in evidence.traits}
    named = [{"trait": name, **group} for name, trait in traits.items() if trait["worst"] for group in trait["groups"]]
    return {
        "small_below": SMALL_GROUP,
        "traits": traits,
        "worst": _worst(named),
        "worst_not_small": _worst([group for group in named if not group["small"]]),
    }


def _of_trait(name: str, evidence: Evidence) -> dict[str, Any]:
    values = np.asarray(evidence.traits[name], dtype=str)
    groups = [_group(str(value), evidence.where(values == value)) for value in _ordered(values)]
    worst = _worst(groups) if len(groups) > 1 else None
    return {"groups": groups, "worst": worst and worst["group"]}


def _group(name: str, part: Evidence) -> Group:
    counted, looked = from_present(part.judged, part.truth), part.looked_at
    area, drawn = auc(looked.truth, looked.judged.probability), delong_interval(looked.truth, looked.judged.probability)
    honest = honest_area(area, drawn, Kinds.of(looked.truth, looked.patients), "DeLong")
    ill = int((part.truth > 0.5).sum())
    return {
        "group": name,
        "images": len(part.truth),
        "with": ill,
        "without": len(part.truth) - ill,
        "patients": len(set(part.patients)),
        "sensitivity": counted["sensitivity"],
        "specificity": counted["specificity"],
        "refused": counted["refused"],
        "auc": None if np.isnan(area) else round(area, 4),
        "auc_delong95": drawn,
        **{f"auc_{name}": figure for name, figure in honest.items()},
        "small": min(ill, len(part.truth) - ill) < SMALL_GROUP,
    }


def _worst(groups: Sequence[Group]) -> Group | None:
    """Of equals the larger: it is the surer."""
    return min(groups, key=lambda group: (_rank(group), -group["images"]), default=None)


def _rank(group: Group) -> float:
    """Balanced accuracy: what is found of those with and left alone of those without, weighted alike; or that which
    there is, where the group has images of one kind only."""
    values = [group[name]["value"] for name in ("sensitivity", "specificity") if group[name]["n"]]
    return float(sum(values)) / len(values)


def _ordered(values: np.ndarray[Any, np.dtype[np.str_]]) -> Sequence[str]:
    """Ages by age, all else by name; what is not stated comes last."""
    names = sorted(set(values.tolist()), key=lambda name: (_AGE_ORDER.index(name) if name in _AGE_ORDER else -1, name))
    return sorted(names, key=lambda name: name == NOT_STATED)

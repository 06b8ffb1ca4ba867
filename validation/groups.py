"""The same figures by age, sex, view and site, with the worst group named: an average hides whom a model fails."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from validation.figures import Evidence, from_present
from validation.floors import SMALL_GROUP
from validation.roc import auc, delong_interval
from validation.table import AGE_GROUPS, NOT_STATED, OLDEST

Group = dict[str, Any]
_AGE_ORDER = [name for _, name in AGE_GROUPS] + [OLDEST]


def subgroups(evidence: Evidence) -> dict[str, Any]:
    """By trait its groups in order and the worst of them; and the worst of all traits."""
    traits = {name: _of_trait(name, evidence) for name in evidence.traits}
    named = [(name, trait["worst"]) for name, trait in traits.items() if trait["worst"]]
    worst = min(named, key=lambda pair: _rank(_find(traits[pair[0]], pair[1])), default=None)
    return {
        "small_below": SMALL_GROUP,
        "traits": traits,
        "worst": {"trait": worst[0], **_find(traits[worst[0]], worst[1])} if worst else None,
    }


def _of_trait(name: str, evidence: Evidence) -> dict[str, Any]:
    values = np.asarray(evidence.traits[name], dtype=str)
    groups = [_group(str(value), evidence.where(values == value)) for value in _ordered(values)]
    comparable = [group for group in groups if not group["small"]]
    worst = min(comparable, key=_rank)["group"] if len(comparable) > 1 else None
    return {"groups": groups, "worst": worst}


def _group(name: str, part: Evidence) -> Group:
    counted, looked = from_present(part.judged, part.truth), part.looked_at
    area = auc(looked.truth, looked.judged.probability)
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
        "auc_delong95": delong_interval(looked.truth, looked.judged.probability),
        "small": min(ill, len(part.truth) - ill) < SMALL_GROUP,
    }


def _rank(group: Group) -> float:
    """Balanced accuracy: what is found of those with and left alone of those without, weighted alike."""
    return float(group["sensitivity"]["value"] + group["specificity"]["value"]) / 2.0


def _find(trait: dict[str, Any], name: str) -> Group:
    found: Group = next(group for group in trait["groups"] if group["group"] == name)
    return found


def _ordered(values: np.ndarray[Any, np.dtype[np.str_]]) -> Sequence[str]:
    """Ages by age, all else by name; what is not stated comes last."""
    names = sorted(set(values.tolist()), key=lambda name: (_AGE_ORDER.index(name) if name in _AGE_ORDER else -1, name))
    return sorted(names, key=lambda name: name == NOT_STATED)

"""Whether a figure holds against its floor, and whether these images can show it.

`met`: the whole 95 % interval is on the good side. `reached_not_proven`: the figure is, the interval is not.
`missed`: the figure is not. `too_few`: fewer than ten patients of a kind, unless even the good end of the interval
misses. `unknown`: there is no figure.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from validation.border import TOO_FEW
from validation.floors import Floor

Figures = Mapping[str, Any]
Interval = list[float] | None
COUNTS = ("images_with", "images_without")
KINDS = {"sensitivity": "patients_with", "specificity": "patients_without"}  # whom a figure rests on; others on both


def status(value: float | None, interval: Interval, floor: Floor, patients: int) -> str:
    """One of the words above. patients: of the rarer kind; a figure without an interval is never met."""
    if value is None:
        return "unknown"
    good, bad = (None, None) if interval is None else (interval if floor.at_most else interval[::-1])
    if good is not None and not floor.holds(good):
        return "missed"
    if patients < TOO_FEW:
        return "too_few"
    if not floor.holds(value):
        return "missed"
    return "met" if bad is not None and floor.holds(bad) else "reached_not_proven"


def checked(label: Figures, floors: Mapping[str, Floor]) -> dict[str, Any]:
    """Each figure of a label that has a floor: value, interval, floor, status."""
    checks = {
        name: {
            "value": value,
            "interval95": interval,
            "floor": floors[name].value,
            "status": status(value, interval, floors[name], patients),
        }
        for name, value, interval, patients in _floored(label)
    }
    return checks | {name: _counted(label[name.removeprefix("images_")], floors[name]) for name in COUNTS}


def _counted(images: int, floor: Floor) -> dict[str, Any]:
    """A count is what it is: it has no interval."""
    holds = "met" if floor.holds(images) else "missed"
    return {"value": images, "interval95": None, "floor": floor.value, "status": holds}


def _floored(label: Figures) -> Iterator[tuple[str, float | None, Interval, int]]:
    """Name, value, interval and how many patients of the rarer kind it rests on."""
    for name in ("sensitivity", "specificity"):
        yield name, label[name]["value"], label[name]["wilson95"], label[KINDS[name]]
    area = label.get("auc_of_those_looked_at")
    if area:
        least = min(area["patients_with"], area["patients_without"])
        at, calibrated = label["sensitivity_at_90_specificity"], label["after_calibration"]
        yield "auc", area["value"], area["interval95"], least
        yield "sensitivity_at_90_specificity", at["value"], at["interval95"], least
        yield "calibration_error", calibrated["ece_15_bins"], calibrated["ece_bootstrap95_by_patient"], least
    if "dice" in label:
        dice = label["dice"]
        yield "dice", dice["mean"], dice["bootstrap95_by_patient"], dice.get("patients") or 0

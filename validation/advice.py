"""Plain sentences on where a figure falls under its floor, is not yet shown to reach it, or cannot be known.

Each has a severity: `below` (the figure itself is under its floor), `not_shown` (it is not, but its 95 % interval is:
too few images) or `note`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from validation.doubt import NAMES, PLAIN
from validation.floors import Floor

Advice = dict[str, str]
Figures = Mapping[str, Any]
MEASURES = {
    "sensitivity": "Do not rely on the flag to bring these images forward: lower the operating point"
    " (decide.thresholds), or use the package for other patients, and validate again on images not used to choose it.",
    "specificity": "Too many studies would be brought forward for nothing: raise the operating point"
    " (decide.thresholds), and validate again on images not used to choose it.",
    "auc": "The order itself is poor on these images; no other operating point can mend that.",
    "sensitivity_at_90_specificity": "With one false alarm in ten, too much is missed whatever the operating point.",
    "calibration_error": "Do not read the probability as a chance here: recalibrate on images of this site. The share"
    " of images with the finding in this table counts too: a set enriched with them shifts every probability.",
    "dice": "The outlines are not those of the person who drew the masks: volumes are not to be relied upon.",
    "looked_at": "The package is not meant for many of these images, or they are unlike those it was trained on: see"
    " the reasons. Every one of them is read as without triage.",
    "read": "Files that cannot be read are never triaged: see the reasons.",
}


def advise(figures: Figures, floors: Mapping[str, Floor]) -> list[Advice]:
    """figures: the whole of validation.json so far. The gravest come first."""
    found = [*_of_images(figures["images"], floors)]
    for label, part in figures["labels"].items():
        found += _of_label(label, part, floors)
    found += _of_table(figures)
    order = ("below", "not_shown", "note")
    return sorted(found, key=lambda advice: order.index(advice["severity"]))


def status(value: float | None, low: float | None, floor: Floor) -> str:
    """met, below, not_shown or unknown. low: the end of the 95 % interval on the bad side; None: there is none."""
    if value is None:
        return "unknown"
    if not floor.holds(value):
        return "below"
    return "met" if low is None or floor.holds(low) else "not_shown"


def checked(label: Figures, floors: Mapping[str, Floor]) -> dict[str, Any]:
    """Each figure of a label that has a floor: value, interval, floor, status."""
    return {name: _check(value, interval, floors[name]) for name, value, interval in _floored(label)}


def _check(value: float | None, interval: list[float] | None, floor: Floor) -> dict[str, Any]:
    bad_end = None if interval is None else interval[1 if floor.at_most else 0]
    return {"value": value, "interval95": interval, "floor": floor.value, "status": status(value, bad_end, floor)}


def _floored(label: Figures) -> Iterator[tuple[str, float | None, list[float] | None]]:
    for name in ("sensitivity", "specificity"):
        yield name, label[name]["value"], label[name]["wilson95"]
    for name, key in (("auc", "auc_of_those_looked_at"), ("sensitivity_at_90_specificity",) * 2):
        if key in label:
            yield name, label[key]["value"], label[key]["bootstrap95_by_patient"]
    if "after_calibration" in label:
        yield "calibration_error", label["after_calibration"]["ece_15_bins"], None
    if "dice" in label:
        yield "dice", label["dice"]["mean"], label["dice"]["bootstrap95_by_patient"]
    yield "images_with", label["with"], None
    yield "images_without", label["without"], None


def _of_label(label: str, part: Figures, floors: Mapping[str, Floor]) -> Iterator[Advice]:
    for name, check in part["floors"].items():
        floor = floors[name]
        if check["status"] == "below" and name.startswith("images_"):
            yield _advice("not_shown", label, name, _few(name, floor, check["value"]))
        elif check["status"] == "below":
            yield _advice("below", label, name, f"{_stated(floor, check)}. {_measure(name, part, floor)}")
        elif check["status"] == "not_shown":
            yield _advice("not_shown", label, name, f"{_not_shown(floor, check)}")
        elif check["status"] == "unknown":
            yield _advice("note", label, name, f"{floor.words} cannot be measured on these images.")
    yield from _of_groups(label, part, floors)
    yield from _of_doubt(label, part)


def _measure(name: str, part: Figures, floor: Floor) -> str:
    """What to do: another operating point mends nothing where it is the refusals that cost."""
    looked = part["of_those_looked_at"].get(name)
    if looked and looked["value"] is not None and floor.holds(looked["value"]):
        return (
            f"Of those looked at it is {looked['value']:.3f}: what lowers it are images that were not looked at, which"
            " no operating point mends. See the reasons."
        )
    return MEASURES[name]


def _stated(floor: Floor, check: Figures) -> str:
    side = "over its ceiling" if floor.at_most else "under its floor"
    return f"{floor.words} is {_number(check)}, {side} of {floor.value:g}"


def _not_shown(floor: Floor, check: Figures) -> str:
    return (
        f"{floor.words} is {_number(check)}: above its floor of {floor.value:g}, but this many images cannot show that"
        " it stays there. Add images."
    )


def _number(check: Figures) -> str:
    if check["interval95"] is None:
        return f"{check['value']:.3f}"
    low, high = check["interval95"]
    return f"{check['value']:.3f} (95 % interval {low:.3f} to {high:.3f})"


def _few(name: str, floor: Floor, images: int) -> str:
    figure = "sensitivity" if name == "images_with" else "specificity"
    what = floor.words[0].lower() + floor.words[1:]
    return f"Only {images} {what} ({floor.value:g} are asked for): the {figure} rests on few cases."


def _of_groups(label: str, part: Figures, floors: Mapping[str, Floor]) -> Iterator[Advice]:
    """One sentence for each figure, with every group that falls under the floor; small groups prove nothing."""
    groups = [
        (trait, g) for trait, found in part["groups"]["traits"].items() for g in found["groups"] if not g["small"]
    ]
    for name in ("sensitivity", "specificity"):
        floor = floors[f"group_{name}"]
        under = [(trait, g) for trait, g in groups if not floor.holds(g[name]["value"])]
        if under:
            named = "; ".join(f"{trait} {g['group']} {_share(g[name])}" for trait, g in under)
            text = f"{name.capitalize()} is under the floor of {floor.value:g} for every group in {named}. Treat the"
            text += f" package as not validated for {'this group' if len(under) == 1 else 'these groups'}."
            yield _advice("below", label, f"group_{name}", text)


def _of_doubt(label: str, part: Figures) -> Iterator[Advice]:
    doubt = part.get("doubt")
    if not doubt or not doubt["winner"] or doubt["winner"] == PLAIN:
        return
    row = doubt["orderings"][doubt["winner"]]
    if row["against_plain"] == "better":
        text = (
            f"The {NAMES[doubt['winner']]} finds errors better than plain maximum probability (the interval of the"
            f" difference lies below zero): abstaining by it at a coverage of 0.95 would lower the share of errors"
            f" among the answered from {doubt['risk_at_full_coverage']:.3f} to {row['risk_at_coverage']['0.95']:.3f}."
        )
    else:
        text = (
            f"The {NAMES[doubt['winner']]} orders the errors best here, but not demonstrably better than plain maximum"
            " probability."
        )
    yield _advice("note", label, "doubt", text)


def _of_images(images: Figures, floors: Mapping[str, Floor]) -> Iterator[Advice]:
    for name, share in (("read", images["read"]), ("looked_at", images["looked_at"])):
        if share["value"] is not None and not floors[name].holds(share["value"]):
            text = (
                f"{floors[name].words} is {_share(share)}, under its floor of {floors[name].value:g}. {MEASURES[name]}"
            )
            yield _advice("below", "", name, text)


def _of_table(figures: Figures) -> Iterator[Advice]:
    table = figures["table"]
    if not table["has_patients"]:
        text = (
            "The table has no column “patient”: every image counted as a patient of its own, so intervals are too"
            " narrow where patients have several images."
        )
        yield _advice("note", "", "patients", text)
    absent = [name for name in ("age", "sex", "view", "site") if name not in table["traits"]]
    if absent:
        columns = ", ".join(f"“{name}”" for name in absent)
        text = f"The table has no column {columns}: nobody can say here whether the package fails such a group."
        yield _advice("note", "", "traits", text)
    if table["labels_without_truth"]:
        names = ", ".join(table["labels_without_truth"])
        yield _advice("note", "", "labels", f"The package also finds {names}; the table says nothing of it.")


def _share(share: Figures) -> str:
    low, high = share["wilson95"]
    return f"{share['value']:.3f} ({share['hits']} of {share['n']}; 95 % interval {low:.3f} to {high:.3f})"


def _advice(severity: str, label: str, figure: str, text: str) -> Advice:
    return {"severity": severity, "label": label, "figure": figure, "text": text}

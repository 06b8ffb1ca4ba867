"""Plain sentences on where a figure falls under its floor, is not yet shown to reach it, or cannot be known.

Severities are the words of validation.checks for a figure with a floor, `few_images` and `note`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from validation.border import TOO_FEW
from validation.checks import COUNTS
from validation.doubt import NAMES, PLAIN
from validation.floors import Floor

Advice = dict[str, str]
Figures = Mapping[str, Any]
NEARLY_NOTHING = 0.1  # below this share looked at, the figures speak of the files and the refusals, not of the model
ORDER = ("missed", "too_few", "reached_not_proven", "few_images", "note")
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
    """figures: the whole of validation.json so far. The gravest come first; where nearly nothing was looked at that is
    all there is to say."""
    looked_at = figures["images"]["looked_at"]["value"]
    if looked_at is not None and looked_at < NEARLY_NOTHING:
        return [_nothing_seen(figures["images"])]
    found = [*_of_images(figures["images"], floors)]
    for label, part in figures["labels"].items():
        found += _of_label(label, part, floors)
    found += _of_table(figures)
    return sorted(found, key=lambda advice: ORDER.index(advice["severity"]))


def _of_label(label: str, part: Figures, floors: Mapping[str, Floor]) -> Iterator[Advice]:
    for name, check in part["floors"].items():
        floor = floors[name]
        if check["status"] == "missed" and name in COUNTS:
            yield _advice("few_images", label, name, _few(name, floor, check["value"]))
        elif check["status"] == "missed":
            yield _advice("missed", label, name, f"{_stated(floor, check)}. {_measure(name, part, floor)}")
        elif check["status"] == "too_few":
            yield _advice("too_few", label, name, _too_few(name, floor, check))
        elif check["status"] == "reached_not_proven":
            yield _advice("reached_not_proven", label, name, _not_proven(floor, check))
        elif check["status"] == "unknown":
            yield _advice("note", label, name, f"{floor.words} cannot be measured on these images.")
    yield from _of_groups(label, part, floors)
    yield from _of_doubt(label, part)


def _measure(name: str, part: Figures, floor: Floor) -> str:
    """What to do: another operating point mends nothing where it is the refusals that cost."""
    looked = part["of_those_looked_at"].get(name)
    if looked and looked["value"] is None:
        return "None of these images was looked at, which no operating point mends. See the reasons."
    if looked and floor.holds(looked["value"]):
        return (
            f"Of those looked at it is {looked['value']:.3f}: what lowers it are images that were not looked at, which"
            " no operating point mends. See the reasons."
        )
    return MEASURES[name]


def _stated(floor: Floor, check: Figures) -> str:
    side = "over its ceiling" if floor.at_most else "under its floor"
    return f"{floor.words} is {_number(check)}, {side} of {floor.value:g}"


def _not_proven(floor: Floor, check: Figures) -> str:
    side, bound = ("under", "ceiling") if floor.at_most else ("above", "floor")
    return (
        f"{floor.words} is {_number(check)}: {side} its {bound} of {floor.value:g}, but this many images cannot show"
        " that it stays there. Add images."
    )


def _too_few(name: str, floor: Floor, check: Figures) -> str:
    whose = {"sensitivity": "with the finding", "specificity": "without the finding", "dice": "in all"}
    kind = whose.get(name, "with, or without, the finding")
    return f"{floor.words} is {_number(check)} on fewer than {TOO_FEW} patients {kind}. Add images."


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
    """One sentence for each figure, with every group that falls under the floor; a small one does when all of its
    interval does, and is else only named."""
    groups = [(trait, g) for trait, found in part["groups"]["traits"].items() for g in found["groups"]]
    for name in ("sensitivity", "specificity"):
        floor = floors[f"group_{name}"]
        low = [(trait, g) for trait, g in groups if g[name]["n"] and not floor.holds(g[name]["value"])]
        under = [pair for pair in low if not pair[1]["small"] or not floor.holds(pair[1][name]["wilson95"][1])]
        doubtful = [pair for pair in low if pair not in under]
        if under:
            named = _those(under, name)
            text = f"{name.capitalize()} is under the floor of {floor.value:g} for every group in {named}. Treat the"
            text += f" package as not validated for {'this group' if len(under) == 1 else 'these groups'}."
            yield _advice("missed", label, f"group_{name}", text)
        if doubtful:
            text = f"{name.capitalize()} lies under the floor of {floor.value:g} for every group in"
            text += f" {_those(doubtful, name)}, on few images. Add images of such patients."
            yield _advice("too_few", label, f"group_{name}", text)


def _those(groups: list[tuple[str, Figures]], name: str) -> str:
    return "; ".join(f"{trait} {group['group']} {_share(group[name])}" for trait, group in groups)


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


def _nothing_seen(images: Figures) -> Advice:
    share, why = images["looked_at"], images["reasons"]
    text = f"Only {share['hits']} of {share['n']} images were looked at: nothing can be said of the model here."
    if why:
        most = max(why, key=lambda row: row["images"])
        text += f" Most often ({most['images']} images): {str(most['reason'] or most['reason_code']).rstrip('.')}."
    return _advice("missed", "", "looked_at", f"{text} Mend that first and validate again.")


def _of_images(images: Figures, floors: Mapping[str, Floor]) -> Iterator[Advice]:
    for name, share in (("read", images["read"]), ("looked_at", images["looked_at"])):
        if share["value"] is not None and not floors[name].holds(share["value"]):
            text = (
                f"{floors[name].words} is {_share(share)}, under its floor of {floors[name].value:g}. {MEASURES[name]}"
            )
            yield _advice("missed", "", name, text)


def _of_table(figures: Figures) -> Iterator[Advice]:
    table = figures["table"]
    if not table["has_patients"]:
        text = (
            "The table has no column “patient”: every image counted as a patient of its own, so intervals are too"
            " narrow where patients have several images."
        )
        yield _advice("note", "", "patients", text)
    elif table["rows_without_patient"]:
        text = f"Rows that name no patient: {table['rows_without_patient']}. Each counted as a patient of its own."
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

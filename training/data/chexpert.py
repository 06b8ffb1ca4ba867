"""Tables in CheXpert's style: one column for each label with 1, 0, -1 (uncertain) or nothing (not mentioned).

What an uncertain label becomes (Irvin et al. 2019; the smoothed kinds: Pham et al. 2019):
  ones, zeros                    1.0 or 0.0
  ignore                         not known: the loss leaves it out
  ones-smoothed, zeros-smoothed  a draw from [0.55, 0.85] or [0.0, 0.3], the same for the same image at every reading
"""

import csv
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from training.data.rows import UNKNOWN, Row
from training.recipe import CsvColumns, DataSet, RecipeError, Uncertain

SMOOTHED = {"ones-smoothed": (0.55, 0.85), "zeros-smoothed": (0.0, 0.3)}
_PATIENT = re.compile(r"patient\d+")
_SEXES = {"female": "F", "f": "F", "male": "M", "m": "M"}


def chexpert_rows(folder: Path, labels: Sequence[str], plan: DataSet) -> list[Row]:
    """Raises RecipeError when the table lacks a label's or a named column. Lateral films have no view and stay out."""
    path = folder / plan.table
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        found = {name.lower().replace(" ", "_"): name for name in reader.fieldnames or ()}
        missing = [label for label in labels if _key(label) not in found]
        if missing or plan.columns.image not in (reader.fieldnames or ()):
            raise RecipeError(f"{path}: no column for {', '.join(missing) or plan.columns.image}")
        names = [found[_key(label)] for label in labels]
        return [_row(folder, row, names, plan) for row in reader if row.get("Frontal/Lateral", "") != "Lateral"]


def meaning(cell: str, image: str, uncertain: Uncertain, blank: str) -> float:
    """The label in [0, 1], or NaN, that a cell stands for. Raises RecipeError for anything but 1, 0, -1 and empty."""
    if not cell.strip():
        return 0.0 if blank == "negative" else UNKNOWN
    try:
        value = float(cell)
    except ValueError:
        value = UNKNOWN
    if value in (0.0, 1.0):
        return value
    if value != -1.0:
        raise RecipeError(f"{image}: a label must be 1, 0, -1 or empty, not {cell!r}")
    if uncertain == "ignore":
        return UNKNOWN
    if uncertain in SMOOTHED:
        low, high = SMOOTHED[uncertain]
        return low + (high - low) * _position(image)
    return 1.0 if uncertain == "ones" else 0.0


def _row(folder: Path, row: dict[str, str], names: Sequence[str], plan: DataSet) -> Row:
    columns = plan.columns
    image = row[columns.image]
    age = _cell(row, columns.age_years)
    return Row(
        name=image,
        file=folder / image,
        labels=tuple(meaning(row[name], image, plan.uncertain, plan.blank) for name in names),
        group=f"{plan.domain}-{_patient(row, columns)}",
        age_years=float(age) if age else UNKNOWN,
        sex=_SEXES.get(_cell(row, columns.sex).lower(), ""),
        view=_cell(row, columns.view).upper(),
        site=_cell(row, columns.site),
    )


def _patient(row: dict[str, str], columns: CsvColumns) -> str:
    if columns.patient:
        return row[columns.patient]
    found = _PATIENT.search(row[columns.image])
    if found is None:
        raise RecipeError(f"{row[columns.image]}: no patientNNNNN in the path; name the column: columns.patient")
    return found.group()


def _cell(row: dict[str, str], column: str) -> str:
    return (row.get(column) or "").strip() if column else ""


def _key(label: str) -> str:
    return label.lower().replace(" ", "_")


def _position(image: str) -> float:
    """In [0, 1), by the image's name alone."""
    return int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big") / 2**64

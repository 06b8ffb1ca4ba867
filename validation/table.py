"""The table of labelled images that `opentriage validate` reads, checked row by row before anything runs."""

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ledger.errors import PermanentError

OPTIONAL = ("patient", "age", "sex", "view", "site", "mask")
TRAITS = ("age", "sex", "view", "site")
NOT_STATED = "not stated"
ANY_LABEL = "label"  # the column of a package that finds one thing only
AGE_GROUPS = ((1, "under 1 year"), (6, "1 to 5"), (12, "6 to 11"), (18, "12 to 17"), (40, "18 to 39"), (65, "40 to 64"))
OLDEST = "65 and over"
TRUTHS = {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "": np.nan}
AGE_UNITS = {"Y": 1.0, "M": 1.0 / 12.0, "W": 7.0 / 365.25, "D": 1.0 / 365.25}  # PS3.5 6.2, AS
SEXES = {"MALE": "M", "FEMALE": "F", "M": "M", "F": "F", "O": "O"}
SHOWN = 10


class TableError(PermanentError):
    """The table cannot be used; the text names the lines at fault and quotes no patient."""


@dataclass(frozen=True)
class Table:
    """N labelled images; every column has N entries.

    truth: by label, (N,) in {0, 1}, NaN where the table does not say. traits: by name, the group each image is in.
    """

    path: Path
    sha256: str
    names: tuple[str, ...]  # as the table writes them
    images: tuple[Path, ...]
    truth: dict[str, NDArray[np.float64]]
    patients: tuple[str, ...]
    ages: tuple[float | None, ...]
    traits: dict[str, tuple[str, ...]]
    masks: tuple[Path | None, ...] | None
    has_patients: bool
    unused: tuple[str, ...] = ()  # columns that nothing asked for
    without_patient: int = 0  # rows whose cell “patient” is empty: each counts as a patient of its own

    def __len__(self) -> int:
        return len(self.names)


@dataclass
class _Rows:
    """What has been read so far, and what was wrong."""

    folder: Path
    labels: dict[str, str]  # label -> column
    columns: Sequence[str]
    first_lines: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    ages: list[float | None] = field(default_factory=list)

    def take(self, line: int, values: list[str]) -> None:
        if len(values) != len(self.columns):
            self.faults.append(f"line {line}: {len(values)} fields where the heading has {len(self.columns)}")
            return
        row = {name: value.strip() for name, value in zip(self.columns, values, strict=True)}
        self.faults += [f"line {line}: {fault}" for fault in self._faults(line, row)]
        self.rows.append(row)

    def _faults(self, line: int, row: dict[str, str]) -> Iterator[str]:
        image = row["image"]
        if not image:
            yield "no image is named"
        elif (first := self.first_lines.setdefault(image, line)) != line:
            yield f"the same image as in line {first}"
        for column in self.labels.values():
            if row[column] not in TRUTHS:
                yield f"{column} is {row[column][:20]!r}; it must be 0, 1 or left empty"
        try:
            self.ages.append(age_years(row.get("age", "")))
        except ValueError as error:
            yield str(error)


def read_table(path: Path, labels: Sequence[str]) -> Table:
    """labels: of the package. Raises TableError with a sentence that names up to ten lines at fault."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: not a text in UTF-8; save it again as “CSV UTF-8”") from error
    heading = text.split("\n", 1)[0]
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=";" if heading.count(";") > heading.count(",") else ","
    )
    columns = [name.strip().lower() for name in next(reader, [])]
    rows = _Rows(path.parent, _label_columns(path, columns, labels), columns)
    try:
        for values in reader:
            if any(value.strip() for value in values):
                rows.take(reader.line_num, values)
    except csv.Error as error:
        raise TableError(f"{path}, line {reader.line_num}: {error}") from error
    if rows.faults:
        more = f"\n… and {len(rows.faults) - SHOWN} more" if len(rows.faults) > SHOWN else ""
        raise TableError(f"{path} cannot be used:\n" + "\n".join(rows.faults[:SHOWN]) + more)
    if not rows.rows:
        raise TableError(f"{path}: there is no row below the heading")
    if not any(row[column] for row in rows.rows for column in rows.labels.values()):
        raise TableError(f"{path}: no row says 0 or 1 in {', '.join(rows.labels.values())}")
    return _table(path, content, rows)


def age_years(text: str) -> float | None:
    """A number of years (3, 0.5, or 0,5 as in tables with semicolons), or a DICOM Age String such as 018M (PS3.5 6.2).

    None when empty. Raises ValueError.
    """
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)([YMWD]?)", text.upper().replace(",", "."))
    years = float(match[1]) * AGE_UNITS[match[2] or "Y"] if match else -1.0
    if not 0.0 <= years <= 150.0:
        raise ValueError(f"age is {text[:20]!r}; it must be in years, such as 3 or 0.5, or a DICOM age such as 018M")
    return years


def age_group(age: float | None) -> str:
    if age is None:
        return NOT_STATED
    return next((name for below, name in AGE_GROUPS if age < below), OLDEST)


def _label_columns(path: Path, columns: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Which column tells the truth of which label."""
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise TableError(f"{path}, line 1: the column {twice[0]!r} stands there twice")
    if "image" not in columns:
        tabs = "; separate the columns by commas or semicolons, not by tabs" if any("\t" in c for c in columns) else ""
        said = ", ".join(columns).replace("\t", " ") or "empty"
        raise TableError(f"{path}, line 1: there is no column 'image'; the heading is {said}{tabs}")
    found = {label: label for label in labels if label in columns}
    if not found and len(labels) == 1 and ANY_LABEL in columns:
        found = {labels[0]: ANY_LABEL}
    if not found:
        alone = f" (or {ANY_LABEL!r})" if len(labels) == 1 else ""
        raise TableError(
            f"{path}, line 1: no column is named like a finding of the package: {', '.join(labels)}{alone};"
            f" the heading is {', '.join(columns)}"
        )
    return found


def _table(path: Path, content: bytes, rows: _Rows) -> Table:
    def column(name: str) -> list[str]:
        return [row.get(name, "") for row in rows.rows]

    known = {"image", *OPTIONAL, *rows.labels.values()}
    traits = {
        "age": [age_group(age) for age in rows.ages],
        "sex": [SEXES.get(sex.upper(), sex) or NOT_STATED for sex in column("sex")],
        "view": [view.upper() or NOT_STATED for view in column("view")],
        "site": [site or NOT_STATED for site in column("site")],
    }
    return Table(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        names=tuple(column("image")),
        images=tuple(rows.folder / name for name in column("image")),
        truth={label: np.array([TRUTHS[v] for v in column(name)]) for label, name in rows.labels.items()},
        patients=tuple(patient or f"\0{i}" for i, patient in enumerate(column("patient"))),
        ages=tuple(rows.ages),
        traits={name: tuple(values) for name, values in traits.items() if name in rows.columns},
        masks=tuple(rows.folder / m if m else None for m in column("mask")) if "mask" in rows.columns else None,
        has_patients="patient" in rows.columns,
        unused=tuple(name for name in rows.columns if name not in known),
        without_patient=sum(not patient for patient in column("patient")),
    )

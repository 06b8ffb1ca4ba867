"""One line of a data set's table, before its pixels are read."""

import math
from dataclasses import dataclass
from pathlib import Path

UNKNOWN = math.nan


@dataclass(frozen=True)
class Row:
    name: str
    file: Path
    labels: tuple[float, ...]  # in [0, 1], NaN: not known; in the recipe's order
    group: str  # the patient
    age_years: float = UNKNOWN
    sex: str = ""  # "F", "M" or "": not known
    view: str = ""  # "PA", "AP" or ""
    site: str = ""

"""The model packages of this machine as their own files describe them: manifest, card, validation. Nothing is run."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from config.settings import LookSettings
from inference.manifest import Manifest, parse_manifest
from inference.package import default_models_dir
from node.web import charts
from node.web.charts import Interval
from node.web.markdown import render

FILE_MAX: Final = 2_000_000  # bytes of a card or a table of figures
_FIGURES: Final = (  # in the order in which a reader asks for them
    ("sensitivity", "Sensitivity"),
    ("specificity", "Specificity"),
    ("auc_of_those_looked_at", "AUC"),
    ("sensitivity_at_90_specificity", "Sensitivity at 90 % specificity"),
    ("refused", "Not looked at"),
    ("boxes_found", "Boxes found"),
    ("pictures_with_a_true_box_found", "Pictures with a true box"),
    ("patients_found", "Patients found"),
    ("patients_with_a_false_run", "Patients with a false run"),
)
_PARTS: Final = ("slices", "as_a_reader_sees_it", "runs")
_INTERVALS: Final = ("interval95", "wilson95", "bootstrap95_by_patient", "bootstrap95_by_group", "delong95")


@dataclass(frozen=True)
class Figures:
    """Held-out figures of one group of patients, drawn and in words."""

    title: str
    figures: tuple[Interval, ...]
    chart: Markup


@dataclass(frozen=True)
class Card:
    """One installed package."""

    manifest: Manifest
    folder: Path

    @property
    def key(self) -> str:
        return f"{self.manifest.name}/{self.manifest.version}"

    @property
    def may_raise(self) -> bool:
        return self.manifest.may_raise_priority

    @property
    def reads(self) -> str:
        reads = self.manifest.reads
        parts = (reads.modalities, reads.body_parts, reads.views)
        return "; ".join(", ".join(one) for one in parts if one)

    def card(self) -> Markup:
        """MODEL_CARD.md; empty where there is none."""
        return render(_text(self.folder / "MODEL_CARD.md"), top_level=2)

    def figures(self) -> tuple[Figures, ...]:
        """Of validation.json; nothing where there is none that can be read."""
        try:
            found = json.loads(_text(self.folder / "validation.json") or "{}")
        except ValueError:
            return ()
        return tuple(_drawn(title, test) for title, test in _tests(found) if _of(test))

    def plots(self) -> tuple[str, ...]:
        """PNG files beside the card that the manifest pins."""
        return tuple(name for name in sorted(self.manifest.files) if name.endswith(".png"))


def cards(look: LookSettings) -> list[Card]:
    """Every package that lies in the models folder and has a manifest that can be read."""
    root = default_models_dir() if look.models_dir == Path() else look.models_dir
    found = []
    for path in sorted(root.glob("*/*/manifest.json")):
        try:
            found.append(Card(parse_manifest(path.read_bytes()), path.parent))
        except (OSError, ValueError):
            continue  # whoever loads the models says why
    return found


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > FILE_MAX:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _tests(found: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The held-out figures, by group where there are groups."""
    if not isinstance(found, Mapping):
        return
    for group in found.get("groups", ()):
        if isinstance(group, Mapping) and isinstance(group.get("test"), Mapping):
            yield str(group.get("name", "")), group["test"]
    for label, test in (found.get("labels") or {}).items():
        yield str(label), test
    if isinstance(found.get("test"), Mapping):
        yield "", found["test"]


def _of(test: Mapping[str, Any]) -> list[Interval]:
    parts = [test, *(test[name] for name in _PARTS if isinstance(test.get(name), Mapping))]
    made: dict[str, Interval] = {}
    for name, words in _FIGURES:
        for part in parts:
            figure = part.get(name)
            if isinstance(figure, Mapping) and isinstance(figure.get("value"), int | float):
                made.setdefault(words, _interval(words, figure, figure["value"]))
    dice = test.get("dice", {}).get("as_counted") if isinstance(test.get("dice"), Mapping) else None
    if isinstance(dice, Mapping) and isinstance(dice.get("mean"), int | float):
        made["Dice, mean of patients"] = _interval("Dice, mean of patients", dice, dice["mean"])
    return list(made.values())


def _interval(name: str, figure: Mapping[str, Any], value: float) -> Interval:
    both = next((figure[key] for key in _INTERVALS if isinstance(figure.get(key), list)), None)
    low, high = (float(both[0]), float(both[1])) if both and len(both) == 2 else (None, None)
    words = f"{value:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None else "")
    return Interval(name, float(value), low, high, words)


def _drawn(title: str, test: Mapping[str, Any]) -> Figures:
    found = _of(test)
    said = "; ".join(f"{one.name} {one.words}" for one in found)
    name = f"Held-out figures{f' of {title}' if title else ''} with 95 % intervals"
    return Figures(title, tuple(found), charts.intervals(name, said, found))

"""The page a person reads: one file with everything in it, for screen and for paper."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from validation.plots import DARK, LIGHT, plots
from validation.run import Validation

TEMPLATES = Path(__file__).with_name("templates")
Plots = Mapping[str, Mapping[str, Mapping[str, bytes]]]  # label -> plot -> light or dark -> PNG


def slug(label: str) -> str:
    """A label as part of a file's name and of an address in the page."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def draw(validation: Validation) -> Plots:
    """All plots in both themes. Raises ImportError without matplotlib."""
    drawn: dict[str, dict[str, dict[str, bytes]]] = {}
    for label, evidence in validation.evidence.items():
        figures = validation.figures["labels"][label]
        light, dark = (plots(evidence, figures, theme) for theme in (LIGHT, DARK))
        drawn[label] = {name: {"light": light[name], "dark": dark[name]} for name in light}
    return drawn


def page(figures: Mapping[str, Any], drawn: Plots) -> str:
    """HTML that needs no other file."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["slug"] = slug
    pictures = {
        label: _Absent(
            {
                name: {theme: base64.b64encode(png).decode() for theme, png in themes.items()}
                for name, themes in of_label.items()
            }
        )
        for label, of_label in drawn.items()
    }
    css = (TEMPLATES / "validation.css").read_text(encoding="utf-8")
    return environment.get_template("validation.html").render(f=_Absent.of(figures), plots=pictures, css=css)


def write(validation: Validation, folder: Path) -> list[Path]:
    """The light plots as PNG and the page; returns the paths."""
    drawn = draw(validation)
    written = []
    for label, of_label in drawn.items():
        for name, themes in of_label.items():
            written.append(folder / f"{slug(label)}-{name}.png")
            written[-1].write_bytes(themes["light"])
    written.append(folder / "validation.html")
    written[-1].write_text(page(validation.figures, drawn), encoding="utf-8")
    return written


class _Absent(dict[str, Any]):
    """A mapping whose absent keys are None, so that the template may ask for a figure that could not be made."""

    def __missing__(self, key: str) -> None:
        return None

    @classmethod
    def of(cls, value: Any) -> Any:
        """The value with every mapping in it made so."""
        if isinstance(value, Mapping):
            return cls({key: cls.of(inner) for key, inner in value.items()})
        return [cls.of(inner) for inner in value] if isinstance(value, list | tuple) else value

"""For a setting that does not exist: which one was meant, and on which line of the file it stands."""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

from config.settings import Settings

Place = Sequence[int | str]  # as pydantic tells where: ("destinations", 0, "prot"); a union's tag may stand between
_HEADER = re.compile(r"\s*(\[{1,2})\s*([\w.\"' -]+?)\s*\]{1,2}\s*(?:#.*)?$")
_KEY = re.compile(r"\s*[\"']?([\w-]+)[\"']?\s*[.=]")


def meant(place: Place) -> str:
    """The dotted name that comes nearest, without the numbers of a list; "" where none is near."""
    section, models = _section(place)
    names = sorted({name for model in models for name in model.model_fields})
    found = get_close_matches(str(place[-1]), names, n=1, cutoff=0.6)
    return ".".join([*section, *found]) if found else ""


def line_of(text: str, place: Place) -> int | None:
    """Where the last part of a place stands in a TOML file, from 1; None where it is not written in the plain way."""
    above, name = _section(place)[0], place[-1]
    item = next((part for part in place if isinstance(part, int)), None)
    section: list[str] = []
    tables: dict[str, int] = {}  # how many of an array came before this one
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            section = [part.strip(" \"'") for part in header[2].split(".")]
            if header[1] == "[[":
                tables[section[0]] = tables.get(section[0], -1) + 1
            if section == [*above, name]:
                return number
        key = _KEY.match(line)
        is_item = item is None or (bool(section) and tables.get(section[0]) == item)
        if key and key[1] == name and section == above and is_item:
            return number
    return None


def _section(place: Place) -> tuple[list[str], list[type[BaseModel]]]:
    """The names above the last one, and what may stand there: of a union several."""
    names: list[str] = []
    models: list[type[BaseModel]] = [Settings]
    for part in place[:-1]:
        fields = [model.model_fields[part] for model in models if isinstance(part, str) and part in model.model_fields]
        if fields:  # else the number of an item, or a union's tag
            names.append(str(part))
            models = [model for field in fields for model in _models_in(field.annotation)]
    return names, models


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)

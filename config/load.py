"""Read a TOML file over the defaults, refuse what is wrong with a sentence, and tell where each value came from."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from config import near
from config.settings import Settings
from config.wanted import WANTED

DEFAULT_FILE = Path(__file__).with_name("default.toml")
SITE_FILE = Path(__file__).with_name("site.toml")  # an example of what a site sets


_CREDENTIALS = re.compile(r"//\S*@")  # of a URL


class ConfigError(ValueError):
    """The configuration cannot be used; the message names the file, the key and what it may be."""


def load_settings(path: Path | None = None) -> Settings:
    """The settings of `path`, or the defaults. Raises ConfigError with every wrong key in one message."""
    if path is None:
        return Settings()
    try:
        return Settings.model_validate(_read(path))
    except ValidationError as error:
        raise ConfigError(_sentences(path, error)) from None


def origins(settings: Settings, path: Path | None) -> Iterator[tuple[str, Any, str]]:
    """Yield (dotted key, effective value, "default" or the file's name) for every setting."""
    given = _read(path) if path else {}
    yield from _walk(settings, given, str(path), "")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None


def _walk(model: BaseModel, given: dict[str, Any], source: str, prefix: str) -> Iterator[tuple[str, Any, str]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _walk(value, given.get(name, {}), source, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, source if name in given else "default"


def _wanted(problem: ErrorDetails) -> str:
    """What is wrong, in words: a pattern is nothing for a person to read."""
    said = problem["msg"].removeprefix("Value error, ")
    return WANTED.get(problem.get("ctx", {}).get("pattern", ""), said)


def _given(problem: ErrorDetails) -> str:
    """What stands in the file. Not a whole section, which holds what is right too, and not where a password may be."""
    given, secret = problem["input"], "database_url" in problem["loc"]
    if secret or isinstance(given, dict | BaseModel):
        return ""
    return f" (given: {_CREDENTIALS.sub('//...@', repr(given))})"


def _sentences(path: Path, error: ValidationError) -> str:
    text = path.read_text(encoding="utf-8")
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "the file"
        if problem["type"] == "extra_forbidden":
            where = f", line {line}" if (line := near.line_of(text, problem["loc"])) else ""
            meant = f"; did you mean {name}?" if (name := near.meant(problem["loc"])) else ""
            lines.append(f"{path}{where}: {key}: there is no such setting{meant}")
        else:
            lines.append(f"{path}: {key}: {_wanted(problem)}{_given(problem)}")
    return "\n".join(lines)

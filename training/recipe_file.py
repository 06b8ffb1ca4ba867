"""A recipe as a file: read, told apart by its task, checked. Every fault is a RecipeError in words."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

CLASSIFICATION, DETECTION, SEGMENTATION = "classification", "detection", "segmentation"
TASKS = (CLASSIFICATION, DETECTION, SEGMENTATION)


class RecipeError(ValueError):
    """A recipe that cannot be followed, with every fault on a line of its own."""


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Plan = TypeVar("Plan", bound=Part)


def read_toml(path: Path) -> dict[str, Any]:
    """Raises RecipeError for a file that is missing, unreadable or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe {path}: {error.strerror or error}") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise RecipeError(f"{path} is no TOML file: {error}") from None


def task_of(path: Path) -> str:
    """One of TASKS: what the file's `task` says, classification where it says nothing."""
    task = read_toml(path).get("task", CLASSIFICATION)
    if task not in TASKS:
        raise RecipeError(f"{path}: task is {', '.join(TASKS[:-1])} or {TASKS[-1]}, not {task!r}")
    return str(task)


def checked(kind: type[Plan], fields: Mapping[str, Any], where: str) -> Plan:
    """Raises RecipeError that names each key at fault."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, e['loc'])) or '(whole)'}: {e['msg']}" for e in error.errors()]
        raise RecipeError("\n".join([f"{where}:", *faults])) from None

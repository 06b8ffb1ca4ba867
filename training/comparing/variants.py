"""A comparison file: a recipe, and below it [compare] and [[variants]], each a name and what it overrides."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from training.recipe import Name, Recipe, parse_recipe, with_init_below
from training.recipe_file import Part, RecipeError, checked, read_toml


class ComparePlan(Part):
    """What all variants share, and how the table is headed."""

    title: str = "Variants compared"
    budget: str = ""  # one sentence: what every variant was given
    train_images: int = 0  # of each domain at most, whole patients in the order of their hash; 0: all
    published: dict[str, tuple[float, float]] = Field(
        default_factory=dict
    )  # name -> (sensitivity, specificity) to stand beside
    published_domain: str = ""  # the domain they speak of


class VariantPlan(Part):
    name: Name
    note: str = ""
    set: dict[str, Any] = Field(default_factory=dict)  # dotted key -> value; in lists by number: "data.1.share"


@dataclass(frozen=True)
class Variant:
    name: str
    note: str
    recipe: Recipe


def read_comparison(path: Path, variants: Path | None = None) -> tuple[ComparePlan, tuple[Variant, ...]]:
    """Raises RecipeError. variants: a file whose [[variants]] (and [compare]) stand in for the recipe's own."""
    fields = read_toml(path)
    compare, listed = fields.pop("compare", {}), fields.pop("variants", [])
    if variants is not None:
        other = read_toml(variants)
        compare, listed = other.get("compare", compare), other.get("variants", [])
    where = str(variants or path)
    if not listed:
        raise RecipeError(
            f"{where} has no [[variants]], so there is nothing to compare: add some, each with a name and what it sets,"
            " or name a file of them with --variants to run them over this recipe"
        )
    plan = checked(ComparePlan, compare, f"{where}, [compare]")
    plans = [checked(VariantPlan, one, f"{where}, [[variants]] number {i}") for i, one in enumerate(listed, start=1)]
    names = [one.name for one in plans]
    if len(set(names)) < len(names):
        raise RecipeError(f"{where}: [[variants]] must each have a name of their own, because it is their folder's")
    return plan, tuple(_variant(one, fields, path) for one in plans)


def _variant(plan: VariantPlan, fields: Mapping[str, Any], path: Path) -> Variant:
    where = f"{path}, variant {plan.name}"
    changed = overridden(fields, plan.set, where)
    return Variant(plan.name, plan.note, with_init_below(parse_recipe(changed, where), path.parent))


def overridden(fields: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A deep copy of `fields` with each dotted key set. Raises RecipeError for a path that leads nowhere."""
    out = copy.deepcopy(dict(fields))
    for dotted, value in changes.items():
        *way, last = dotted.split(".")
        here: Any = out
        try:
            for step in way:
                here = here[int(step)] if isinstance(here, list) else here.setdefault(step, {})
            here[int(last) if isinstance(here, list) else last] = copy.deepcopy(value)
        except (AttributeError, IndexError, TypeError, ValueError):
            raise RecipeError(f"{where}: {dotted} leads nowhere") from None
    return out

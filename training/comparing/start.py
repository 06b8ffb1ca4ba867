"""Variants that ask for ImageNet weights where there are any all get them, or none does: a table that gave some of
them a start the others could not have would compare starts, not what it says."""

from dataclasses import replace

import typer

from training.comparing.variants import Variant
from training.networks.imagenet import SOURCES, WeightsUnavailable, fetch

ASKING = "imagenet-if-available"


def one_start(variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
    """The same with `imagenet-if-available` decided for all who ask for it: "imagenet" or "none"."""
    asking = [one for one in variants if one.recipe.model.weights == ASKING and not one.recipe.fit.init]
    architectures = dict.fromkeys(one.recipe.model.architecture for one in asking)
    weights = "imagenet"
    try:
        for architecture in sorted(architectures, key=SOURCES.__contains__):  # what nobody has costs no download
            fetch(architecture)
    except WeightsUnavailable as error:
        typer.echo(f"{error}; so every variant that asks for ImageNet weights starts from random ones", err=True)
        weights = "none"
    return tuple(_with(one, weights) if one in asking else one for one in variants)


def _with(variant: Variant, weights: str) -> Variant:
    model = variant.recipe.model.model_copy(update={"weights": weights})
    return replace(variant, recipe=variant.recipe.model_copy(update={"model": model}))

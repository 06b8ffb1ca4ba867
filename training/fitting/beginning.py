"""How a fit begins, and the record of it: random weights, ImageNet's, or those of an earlier run.

The record is RUN/start.json. The recipe says what was asked for; whether ImageNet weights could be fetched it cannot.
"""

import json
from pathlib import Path
from typing import Any

from training.fitting.network import start
from training.networks import imagenet
from training.recipe import Recipe

START = "start.json"


def begin_from(net: Any, recipe: Recipe, out: Path) -> str:
    """Fill a fresh network as the recipe asks and note it in `out`/start.json. Returns the words that were noted.

    Where `fit.init` is set nothing is fetched."""
    weights = recipe.model.weights
    if recipe.fit.init:
        fresh = start(net, Path(recipe.fit.init))
        began = f"the weights of {_earlier(Path(recipe.fit.init))}"
        if fresh:
            began += f"; from random weights: {', '.join(fresh)}"
    else:
        began = imagenet.start(net.features, recipe.model.architecture, weights)
    record = {"asked_for": recipe.fit.init or weights, "began_from": began}
    out.mkdir(parents=True, exist_ok=True)
    (out / START).write_text(json.dumps(record, indent=2) + "\n")
    return began


def _earlier(weights: Path) -> str:
    """The run by its folder's name, and what that one began from where it says so."""
    before = began_from(weights.parent)
    return f"{weights.parent.name}, which began from {before}" if before else weights.parent.name


def began_from(run: Path) -> str:
    """What a run noted; "" for a run from before there was a note, or none at all."""
    path = run / START
    return str(json.loads(path.read_text())["began_from"]) if path.exists() else ""

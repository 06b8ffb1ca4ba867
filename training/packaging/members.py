"""The members of an ensemble: runs over the same patients with the same network, each a graph with masks of its own.

Member i draws its masks with the recipe's `mc_seed` + i. The gate's axes are the first member's, as in the node
(inference/views.py); calibration, operating points and abstention rest on the passes of all.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.manifest import InputSpec
from training.fitting.network import build
from training.networks.monte_carlo import WORDS, McConfig, McTriageNet
from training.packaging.graphs import EXACT, MODEL, Parity, agreement, write_graphs
from training.packaging.look import Model
from training.packaging.weights import with_weights
from training.recipe import Recipe, RecipeError, parse_recipe

SHIPPED_BYTES = 20_000_000  # of a whole package: what this project ships
NETWORK = ("architecture", "dropout", "dropout_place", "attention_ratio", "metadata")


def load_net(recipe: Recipe, run: Path, member: int = 0) -> McTriageNet:
    """The averaged network of a finished run; of an unfinished one, that of its last epoch."""
    net = with_weights(build(recipe), run)
    return McTriageNet(net, McConfig(recipe.model.mc_passes, recipe.model.mc_seed + member)).eval()


def file_of(member: int) -> str:
    return f"model-{member + 1}.onnx" if member else MODEL


def check_runs(recipe: Recipe, runs: Sequence[Path]) -> None:
    """Raises RecipeError where several runs are no ensemble. One alone is taken as it is.

    A run over other patients is refused: it may have been trained on those that this recipe holds out.
    """
    if len({run.resolve() for run in runs}) < len(runs):
        raise RecipeError("--member: a run stands twice; each member needs a run of its own")
    wanted = _common(recipe)
    for run in runs if len(runs) > 1 else ():
        noted = run / "recipe.json"
        if not noted.exists():
            raise RecipeError(f"{run} has no recipe.json, so nobody knows who trained it: it cannot be a member")
        found = _common(parse_recipe(json.loads(noted.read_text()), str(noted)))
        other = [name for name in wanted if wanted[name] != found[name]]
        if other:
            raise RecipeError(f"{run} cannot be a member: its run differs from the recipe in {', '.join(other)}")


def _common(recipe: Recipe) -> dict[str, Any]:
    """What members must have in common: what they are shown, what they say, what they are, who trained them."""
    shown = recipe.model_dump(include={"labels", "size", "percentiles", "histogram", "value_range"})
    network = {f"model.{name}": getattr(recipe.model, name) for name in NETWORK}
    data = [part.model_dump(exclude={"share"}) | {"salt": part.salt or recipe.name} for part in recipe.data]
    return {**shown, **network, "data": data}


def write_members(
    first: McTriageNet,
    recipe: Recipe,
    runs: Sequence[Path],
    spec: InputSpec,
    folder: Path,
    images: NDArray[np.float32],
    threads: int,
) -> tuple[Model, Parity]:
    """Each run's graph in `folder`; of several, those of an earlier call go first.

    first: the network of the first run, its features standardised; images: (N, 1, H, W), to measure parity on.
    Returns all members as one model, and the greatest of what parity measured. Raises when it is too poor.
    """
    for stale in folder.glob("model*.onnx"):
        stale.unlink()
    measured = []
    for i, run in enumerate(runs):
        net = load_net(recipe, run, i) if i else first
        half, exact = write_graphs(net, spec, run, folder, threads, name=file_of(i))
        measured.append(agreement(net, half, exact, images))
    files = [folder / file_of(i) for i in range(len(runs))]
    worst = {
        graph: {name: max(one[graph][name] for one in measured) for name in measured[0][graph]} for graph in measured[0]
    }
    return Model(files, spec, threads), worst


def exact_twins(runs: Sequence[Path]) -> list[Path]:
    """The members' float32 graphs; none where one of them is missing."""
    twins = [run / EXACT for run in runs]
    return twins if all(twin.exists() for twin in twins) else []


def passes_in_words(recipe: Recipe, members: int) -> str:
    """The manifest's sentence on its sd."""
    model, views = recipe.model, len(recipe.shipped().test_time)
    if members == views == 1:
        return WORDS[model.dropout_place].format(passes=model.mc_passes)
    each = {"head": "masked heads on one pass", "last_block": "masked passes through the last block on one pass"}
    return (
        f"sd over {model.mc_passes * views * members} passes, after calibrating each:"
        f" {model.mc_passes} {each[model.dropout_place]} over each of {views} views by each of {members} networks;"
        " of the backbone's own uncertainty it hears no more than what views and networks disagree about"
    )


def too_large(folder: Path) -> str:
    """A sentence where the package is larger than what this project ships, else ""."""
    total = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    if total <= SHIPPED_BYTES:
        return ""
    return (
        f"With its members the package has {total / 1e6:.1f} MB, more than the {SHIPPED_BYTES / 1e6:.0f} MB that this"
        " project ships."
    )

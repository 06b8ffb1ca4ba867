"""What uncertain labels are taken for, side by side: the classes each policy gives and the AUC a fit reaches with it.

Every policy fits the same recipe on the same patients with the same budget. The AUC is counted on the held-out images
whose label is certain, so that no policy is judged by its own guesses.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from training.data.chexpert import chexpert_rows
from training.data.distribution import count_classes, table
from training.data.images import LabelledImages, join
from training.data.readers import read_set
from training.data.splits import split_set
from training.fitting.fit import fit_splits
from training.fitting.network import predict
from training.recipe import Recipe, RecipeError, Uncertain
from validation.statistics import auc_by_group

POLICIES: tuple[Uncertain, ...] = ("ones", "zeros", "ignore", "ones-smoothed", "zeros-smoothed")
Sets = dict[str, LabelledImages]


def relabelled(recipe: Recipe, data: Path, images: Sequence[LabelledImages], policy: Uncertain) -> Sets:
    """The recipe's splits with every csv set's uncertain labels taken as the policy says; pixels are read once."""
    parts: list[Sets] = []
    for plan, whole in zip(recipe.data, images, strict=True):
        if plan.reader == "csv":
            rows = chexpert_rows(data / plan.folder, recipe.labels, plan.model_copy(update={"uncertain": policy}))
            whole = dataclasses.replace(whole, labels=np.array([row.labels for row in rows], np.float32))
        parts.append(split_set(whole, plan, recipe.name))
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: join([part[name] for part in parts if name in part]) for name in names}


def compare_policies(
    recipe: Recipe, data: Path, run: Path, policies: Sequence[Uncertain] = POLICIES, fits: bool = True
) -> dict[str, Any]:
    """Writes uncertain.json and uncertain.md to `run`, and each fit to `run`/<policy>. Raises RecipeError when no set
    of the recipe is a csv."""
    if not any(plan.reader == "csv" for plan in recipe.data):
        raise RecipeError(f'{recipe.name}: no data set with reader = "csv", so no label is uncertain')
    run.mkdir(parents=True, exist_ok=True)
    images = [read_set(plan, recipe, data) for plan in recipe.data]
    certain = relabelled(recipe, data, images, "ignore")
    held_out = "test" if len(certain.get("test", ())) else "calibration"
    report: dict[str, Any] = {"recipe": recipe.name, "auc_on": f"{held_out} split, certain labels", "policies": {}}
    for policy in policies:
        splits = relabelled(recipe, data, images, policy)
        counts = count_classes(splits["train"], recipe.labels)
        Console(stderr=True).print(table(f"train split, uncertain as {policy}", counts))
        entry: dict[str, Any] = {"train": [dataclasses.asdict(c) for c in counts]}
        if fits:
            entry |= _fitted(recipe, splits, certain[held_out], run / policy)
        report["policies"][policy] = entry
    (run / "uncertain.json").write_text(json.dumps(report, indent=2) + "\n")
    (run / "uncertain.md").write_text(as_text(report, recipe))
    return report


def _fitted(recipe: Recipe, splits: Sets, held_out: LabelledImages, run: Path) -> dict[str, Any]:
    began = time.monotonic()
    net = fit_splits(recipe, splits, run)
    logits = predict(net, held_out, recipe, recipe.fit.stages[-1].size)
    out = {}
    for i, label in enumerate(recipe.labels):
        known = ~np.isnan(held_out.labels[:, i])
        truth = (held_out.labels[known, i] > 0.5).astype(np.float64)
        groups = [group for group, kept in zip(held_out.groups, known, strict=True) if kept]
        both = bool(truth.any()) and not truth.all()
        out[label] = auc_by_group(truth, logits[known, i].astype(np.float64), groups) if both else None
    return {"auc": out, "seconds": round(time.monotonic() - began, 1)}


def as_text(report: dict[str, Any], recipe: Recipe) -> str:
    """A table, one line for each policy and label."""
    lines = [
        f"AUC on the {report['auc_on']}; 95 % interval: bootstrap over patients. Same patients, seed and budget.",
        "",
        "| uncertain as | label | with | without | left out | AUC |",
        "|---|---|--:|--:|--:|---|",
    ]
    for policy, entry in report["policies"].items():
        for label in recipe.labels:
            own = [c for c in entry["train"] if c["label"] == label]
            ill, well, unknown = (sum(c[name] for c in own) for name in ("with_it", "without", "unknown"))
            auc = entry.get("auc", {}).get(label)
            lines.append(f"| {policy} | {label} | {ill} | {well} | {unknown} | {_auc_text(auc)} |")
    return "\n".join(lines) + "\n"


def _auc_text(auc: dict[str, Any] | None) -> str:
    if auc is None:
        return "not measured"
    interval = auc["bootstrap95_by_patient"]
    return f"{auc['value']:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")

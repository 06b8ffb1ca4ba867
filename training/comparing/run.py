"""Train every variant in turn. What is finished is skipped; what was cut off goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from training.comparing.figures import figures_of
from training.comparing.start import one_start
from training.comparing.table import forest, markdown
from training.comparing.variants import ComparePlan, Variant, read_comparison
from training.data.images import LabelledImages, join, position_of
from training.data.splits import read_splits
from training.fitting.beginning import began_from
from training.fitting.fit import fit_splits
from training.recipe import Recipe

RESULT = "result.json"
Splits = dict[str, LabelledImages]
Result = dict[str, Any]


class Reader:
    """Splits from disk; the last ones are kept, because variants mostly differ in other things."""

    def __init__(self, data: Path, plan: ComparePlan) -> None:
        self.data, self.plan = data, plan
        self.key, self.last = "", Splits()

    def splits(self, recipe: Recipe) -> Splits:
        key = recipe.model_dump_json(include={"name", "labels", "size", "percentiles", "histogram", "data"})
        if key != self.key:
            parts = {name: part.labelled() for name, part in read_splits(recipe, self.data).items()}
            self.key, self.last = key, parts | {"train": few(parts["train"], self.plan.train_images, recipe.name)}
        return self.last


def few(train: LabelledImages, most: int, salt: str) -> LabelledImages:
    """About `most` images of each domain, whole patients in the order of their hash; 0: all."""
    if not most:
        return train
    kept = []
    for part in train.by_domain().values():
        patients = sorted(set(part.groups), key=lambda group: position_of(group, f"{salt} few"))
        counts = {group: part.groups.count(group) for group in patients}
        room = np.cumsum([counts[group] for group in patients]) <= most
        chosen = {group for group, fits in zip(patients, room, strict=True) if fits}
        kept.append(part.where(np.array([group in chosen for group in part.groups], bool)))
    return join(kept)


def compare(recipe: Path, data: Path, out: Path, variants: Path | None = None) -> list[Result]:
    """Run a comparison file; compare.md, compare.json and compare.png in `out` grow with every variant."""
    plan, chosen = read_comparison(recipe, variants)
    chosen = one_start(chosen)
    results: list[Result] = []
    for result in run_all(plan, chosen, data, out):
        results.append(result)
        _write(out / "compare.json", {"plan": plan.model_dump(mode="json"), "results": results})
        (out / "compare.md").write_text(markdown(plan, results))
        forest(plan, results, out / "compare.png")
    return results


def run_all(plan: ComparePlan, variants: tuple[Variant, ...], data: Path, out: Path) -> Iterator[Result]:
    """One folder per variant below `out`; their results in the file's order."""
    reader = Reader(data, plan)
    for variant in tqdm(variants, desc="comparing", unit="variant", mininterval=1):
        yield _one(plan, variant, reader, out / variant.name)


def _one(plan: ComparePlan, variant: Variant, reader: Reader, out: Path) -> Result:
    wanted = {"recipe": variant.recipe.model_dump(mode="json"), "train_images": plan.train_images}
    done = _finished(out, wanted)
    if done is not None:
        tqdm.write(f"{variant.name}: finished before")
        return done | {"note": variant.note}
    tqdm.write(f"{variant.name}: {variant.note or 'fitting'}")
    splits = reader.splits(variant.recipe)
    _begin(out, wanted)
    net = fit_splits(variant.recipe, splits, out)
    counts = {name: len(part) for name, part in splits.items()}
    result = {"name": variant.name, "note": variant.note, "images": counts, "began_from": began_from(out)}
    result |= figures_of(net, splits, variant.recipe) | {"made_by": wanted}
    _write(out / RESULT, result)
    for leftover in ("checkpoint.pt", "best.pt"):
        (out / leftover).unlink(missing_ok=True)
    return result


def _finished(out: Path, wanted: Result) -> Result | None:
    path = out / RESULT
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    return result if result["made_by"] == wanted else None


def _begin(out: Path, wanted: Result) -> None:
    """A folder whose checkpoint belongs to this very plan, or none."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "plan.json"
    if not path.exists() or json.loads(path.read_text()) != wanted:
        for stale in ("checkpoint.pt", "best.pt", "weights.pt", RESULT):
            (out / stale).unlink(missing_ok=True)
    _write(path, wanted)


def _write(path: Path, content: Result) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2) + "\n")
    part.replace(path)

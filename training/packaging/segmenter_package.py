"""The whole package of a slice model in one go: core, figures on held-out patients, card, contact sheet."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.fit_input import resize
from inference.manifest import read_manifest
from ledger.store import Store
from training.data.brain import MarkedSlices, as_the_node_sees
from training.drawing.contours import Panel, contact_sheet
from training.fitting.segment import read_slice_curve, slice_splits
from training.packaging.package import pin
from training.packaging.segmenter import write_segmenter
from training.packaging.slice_card import slice_card
from training.packaging.slice_figures import Seen, against_goals, see, slice_figures
from training.segmentation_recipe import SegmentationRecipe
from validation.bootstrap import DRAWS
from validation.judge import Judge
from validation.overlap import by_patient, count, dice

SHEET_SIDE = 192  # pixels of a panel
FIGURES = "figures.json"  # of a run: what its package reached on its test patients


def package_segmenter(
    recipe: SegmentationRecipe,
    data: Path,
    run: Path,
    folder: Path,
    leave_out: str | None = None,
    folds: tuple[Path, ...] = (),
    threads: int = 0,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Write the package and what it reached. folds: runs with an institution left out, already packaged.

    Returns validation.json's content; RUN/figures.json and RUN/slices.png are written beside the weights.
    """
    left_out = {one["left_out"]: one["test"] for one in map(_figures_of, folds)}
    splits = slice_splits(recipe, data, leave_out)
    parity = write_segmenter(recipe, run, splits, folder, threads)
    seen = _seen(folder, splits["test"], threads)
    test = slice_figures(seen, recipe.package.label, recipe.package.segmentation.min_slices, draws)
    figures = {
        "package": f"{recipe.name}/{recipe.package.version}",
        "label": recipe.package.label,
        "code_path": "inference.analyser over pictures of slices, CPU",
        "splits": {name: _counts(part) for name, part in splits.items()},
        "left_out": leave_out,
        "leave_one_institution_out": left_out,
        "test": test | {"goals": against_goals(test)},
        "export_parity": parity,
    }
    (run / FIGURES).write_text(json.dumps(figures, indent=2) + "\n")
    (folder / "validation.json").write_text(json.dumps(figures, indent=2) + "\n")
    manifest = read_manifest(folder)
    (folder / "MODEL_CARD.md").write_text(slice_card(manifest, figures, how_it_was_made(recipe, run, leave_out)))
    pin(manifest, folder)
    sheet_of(seen, recipe, run / "slices.png")
    return figures


def how_it_was_made(recipe: SegmentationRecipe, run: Path, leave_out: str | None = None) -> str:
    fit, widths = recipe.fit, ", ".join(map(str, recipe.model.widths))
    stages = fit.fold_stages if leave_out else fit.stages
    plan = ", then ".join(f"{stage.epochs} epochs at {stage.size} pixels" for stage in stages)
    curve = read_slice_curve(run / "curve.csv")
    some = [line for i, line in enumerate(curve) if i % 5 == 4 or i == len(curve) - 1]
    points = ", ".join(f"{line['epoch']}: {line['calibration_dice']} and {line['calibration_auc']}" for line in some)
    return (
        "A residual U-Net from a random start: the picture's 2 x 2 pixels folded into channels, four contracting blocks"
        f" and a bottleneck of {widths} channels, four expanding blocks with concatenation; slices are told by mean and"
        f" maximum of the two deepest scales, with dropout {recipe.model.dropout} before a linear classifier."
        f" {plan} of {fit.epoch_slices} drawn slices each ({fit.marked_share:.0%} with a tumour), bfloat16 on one CPU"
        f" core; AdamW, one-cycle rate up to {fit.max_lr}, batches of {fit.batch}, Dice over the batch and"
        f" cross-entropy, weights averaged ({fit.ema_decay}). Augmentation turns, scales, shifts, bends and mirrors,"
        " and varies coil shading, gamma, sharpness and noise; every slice is stretched again afterwards, as by the"
        " node."
        f"\n\nOn the calibration split after some epochs, counted from 0, mean Dice and slice AUC: {points}."
        "\n\nNot done, and likely to help: a longer schedule on a GPU at 256 pixels, the neighbouring slices as further"
        " channels, pretraining on other brain images, an ensemble of folds, heads without a tumour."
    )


def sheet_of(seen: Seen, recipe: SegmentationRecipe, out: Path) -> None:
    """The best, a middling and the worst patients by Dice: of each, four slices spread over the tumour."""
    slices = seen.slices
    names, volumes = by_patient(count(seen.counted, slices.masks > 0), slices.patients)
    each = dice(volumes)
    order = np.argsort(-np.nan_to_num(each))
    middle = len(order) // 2
    chosen = dict.fromkeys([*order[:2], *order[middle : middle + 2], *order[-2:]])
    rows = []
    for i in chosen:
        own = np.flatnonzero((np.array(slices.patients) == names[i]) & (slices.marked | seen.counts))
        some = own[np.linspace(0, len(own) - 1, 6).round().astype(int)[1:-1]]
        pictures = as_the_node_sees(slices.pixels[some], SHEET_SIDE, recipe.shape, recipe.percentiles)
        home = slices.institutions[own[0]]
        rows.append(
            [
                Panel(f"{home}, Dice {each[i]:.2f}", picture, _small(slices.masks[k] > 0), _small(seen.counted[k]))
                for k, picture in zip(some, pictures, strict=True)
            ]
        )
    contact_sheet(rows, out)


def _small(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return resize(mask.astype(np.float32), SHEET_SIDE, SHEET_SIDE, "letterbox") >= 0.5


def _seen(folder: Path, test: MarkedSlices, threads: int) -> Seen:
    with tempfile.TemporaryDirectory() as place:
        store = Store(Path(place), fsync=lambda descriptor: None)
        store.prepare()
        judge = Judge(folder, threads, store=store)
        try:
            return see(judge, test, store)
        finally:
            judge.close()


def _counts(part: MarkedSlices) -> dict[str, int]:
    return {"slices": len(part), "with": int(part.marked.sum()), "patients": len(set(part.patients))}


def _figures_of(run: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((run / FIGURES).read_text())
    if not figures["left_out"]:
        raise ValueError(f"{run}: no institution was left out of this run")
    return figures

"""The whole package of a detector in one go: core, figures on held-out groups, card, contact sheet."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.manifest import read_manifest
from ledger.records import ImageResult
from training.data.fracture import BoxedImages
from training.detection_recipe import DetectionRecipe
from training.drawing.boxes import Framed, contact_sheet
from training.fitting.detection import read_splits
from training.packaging.detector import write_detector
from training.packaging.detector_card import detector_card
from training.packaging.detector_figures import detector_figures, drawn_boxes, marks
from training.packaging.package import pin

SHEET = (3, 6)  # rows and columns of the contact sheet


def package_detector(
    recipe: DetectionRecipe, data: Path, run: Path, folder: Path, threads: int = 0, draws: int = 1000
) -> dict[str, Any]:
    """Write the package; RUN/boxes.png shows pictures of the test split. Returns validation.json's content."""
    splits = read_splits(recipe, data)
    parity = write_detector(recipe, run, splits, folder, threads)
    test, said = detector_figures(recipe, folder, splits["test"], data, threads, draws)
    figures: dict[str, Any] = {
        "package": f"{recipe.name}/{recipe.package.version}",
        "label": recipe.package.label,
        "splits": {name: _counts(part) for name, part in splits.items()},
        "test": test,
        "export_parity": parity,
        "bytes": (folder / "model.onnx").stat().st_size,
    }
    (folder / "validation.json").write_text(json.dumps(figures, indent=2) + "\n")
    manifest = read_manifest(folder)
    (folder / "MODEL_CARD.md").write_text(detector_card(manifest, figures, how_it_was_made(recipe, run)))
    pin(manifest, folder)
    sheet_of(said, splits["test"], run / "boxes.png")
    return figures


def how_it_was_made(recipe: DetectionRecipe, run: Path) -> str:
    model, fit = recipe.model, recipe.fit
    with (run / "curve.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    points = ", ".join(f"{line['epoch']}: {line['ap_30']}" for line in lines if line["ap_30"])
    return (
        "A one-stage detector without anchors that began from random weights: a residual"
        f" trunk of {', '.join(map(str, model.stages))} channels at strides 2 to 32, a feature pyramid down to stride"
        f" 8, a heat map of centres and the way to the four edges from each cell; dropout {model.dropout} before the"
        f" heat map. {len(lines)} of {fit.epochs} planned epochs, bfloat16 on CPU cores; AdamW, one-cycle rate up to"
        f" {fit.max_lr}, batches of {fit.batch}, focal loss and GIoU, weights averaged ({fit.ema_decay}). Augmentation"
        " mirrors, turns (any angle up to 15 degrees, some quarter turns), scales, shifts and varies exposure."
        f"\n\nAverage precision at IoU 0.3 on the calibration split by epoch: {points}."
        "\n\nNot done, and likely to help, most promising first: a trunk pretrained on radiographs of limbs (MURA,"
        " FracAtlas), which this set is too small to replace; pictures without a fracture to train and to count"
        " specificity on; a longer schedule at 512 pixels on a GPU; an ensemble."
    )


def sheet_of(said: Sequence[ImageResult], test: BoxedImages, out: Path) -> None:
    """The first picture of every so many groups, as the set lists them: neither the best nor the worst are chosen."""
    first: dict[str, int] = {}
    for i, group in enumerate(test.groups):
        first.setdefault(group, i)
    rows, columns = SHEET
    chosen = list(first.values())[:: max(1, len(first) // (rows * columns))][: rows * columns]
    contact_sheet([_framed(said[i], test, i) for i in chosen], columns, out)


def _framed(result: ImageResult, test: BoxedImages, i: int) -> Framed:
    found, drawn = marks(result, test, i)
    caption = f"{found} of {len(test.boxes[i])} found, {drawn - found} false" if result.findings else "refused"
    return Framed(caption, test.pixels[i], test.boxes[i], drawn_boxes(result, test, i))


def _counts(part: BoxedImages) -> dict[str, int]:
    return {
        "pictures": len(part),
        "boxes": sum(map(len, part.boxes)),
        "without_box": sum(len(boxes) == 0 for boxes in part.boxes),
        "groups": len(set(part.groups)),
    }

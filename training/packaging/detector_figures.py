"""What a detector reaches on groups it has not seen: boxes through its ONNX graph, decisions through the node.

Average precision and the FROC curve need every box, so they are counted on what the graph gives for the node's own
tensors; what a reader would be shown (boxes at the operating point, refusals) is what the node's analyser says.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from inference.analyser import Source
from ledger.records import ImageResult, ResultStatus
from training.data.fracture import BoxedImages, Boxes, to_letterbox
from training.detection_recipe import DetectionRecipe
from training.packaging.detector import HIT, OUTPUTS, found_of, input_spec, look
from training.packaging.look import Model
from validation.boxes import NOBODY, Found, average_precision, by_group, matched, sensitivity_at
from validation.judge import Judge
from validation.statistics import proportion

KIND = "DX/EXTREMITY"
LOOSE, USUAL = 0.3, 0.5  # IoU
FALSE_BOXES = (0.5, 1.0, 2.0)  # per picture
STRANGERS = 60  # pictures of each other set shown to the gate
Figures = dict[str, Any]


def detector_figures(
    recipe: DetectionRecipe, folder: Path, test: BoxedImages, data: Path, threads: int = 0, draws: int = 1000
) -> tuple[Figures, list[ImageResult]]:
    """The figures, and what the node said of each picture of the test split."""
    model = Model(folder / "model.onnx", input_spec(recipe), threads, OUTPUTS)
    seen, _ = look(model, test, recipe)
    figures: Figures = {"boxes_drawn_by": "the ONNX graph on the node's tensors", "iou": {}}
    for iou in (LOOSE, USUAL):
        found = found_of(seen, test, iou)
        figures["iou"][str(iou)] = {
            "average_precision": by_group(found, test.groups, _precision, draws),
            "sensitivity_at_false_boxes_per_picture": {
                str(rate): by_group(found, test.groups, partial(_sensitivity, rate=rate), draws) for rate in FALSE_BOXES
            },
        }
    judge = Judge(folder, threads)
    try:
        said = judge.look([Source(data / recipe.folder / "images" / name, KIND) for name in test.names])
        figures["as_a_reader_sees_it"] = reader_figures(said, test)
        figures["gate"] = [_refused(judge, what, files) for what, files in strangers(data)]
    finally:
        judge.close()
    return figures, said


def reader_figures(said: Sequence[ImageResult], images: BoxedImages) -> Figures:
    """At the operating point, refused pictures among the missed. Boxes are compared in pixels of the source."""
    with_box = [len(true) > 0 for true in images.boxes]
    rows = [marks(result, images, i) for i, result in enumerate(said)]
    right, wrong = np.array([hits for hits, _ in rows]), np.array([drawn - hits for hits, drawn in rows])
    boxes, n = sum(map(len, images.boxes)), sum(with_box)
    return {
        "code_path": "inference.analyser over the picture files, CPU",
        "iou": HIT,
        "boxes_found": proportion(int(right.sum()), boxes),
        "pictures_with_a_true_box_found": proportion(int(((right > 0) & with_box).sum()), n),
        "pictures_marked_with_box": proportion(sum(d > 0 for (_, d), w in zip(rows, with_box, strict=True) if w), n),
        "false_boxes_per_picture": round(float(wrong.mean()), 3),
        "pictures_without_box": {
            "n": len(images) - n,
            "groups": len({g for g, w in zip(images.groups, with_box, strict=True) if not w}),
            "marked": sum(d > 0 for (_, d), w in zip(rows, with_box, strict=True) if not w),
            "note": "not proven whole: no specificity follows",
        },
        "refused": proportion(sum(result.status is not ResultStatus.ANALYSED for result in said), len(said)),
    }


def marks(result: ImageResult, images: BoxedImages, i: int) -> tuple[int, int]:
    """(true boxes found, boxes drawn) of picture i."""
    drawn = drawn_boxes(result, images, i)
    return int((matched(drawn, images.boxes[i], HIT) != NOBODY).sum()), len(drawn)


def drawn_boxes(result: ImageResult, images: BoxedImages, i: int) -> Boxes:
    """The boxes of what is present in picture i, from its pixels to [0, 1] of the input."""
    regions = [region for finding in result.findings if finding.present for region in finding.regions]
    rows, columns = images.shapes[i]
    shares = [
        [top / rows, left / columns, bottom / rows, right / columns]
        for top, left, bottom, right in (region.box for region in regions)
    ]
    return to_letterbox(np.array(shares, np.float32).reshape(-1, 4), images.shapes[i], images.pixels.shape[1])


def strangers(data: Path) -> list[tuple[str, list[Path]]]:
    """Pictures of other things that are there, each told to be a limb."""
    sets = (("chests of children", "chest_pneumonia"), ("chests of adults", "chest_adult"))
    found = []
    for what, name in sets:
        files = [
            file for file in sorted((data / name / "images").glob("*")) if file.suffix in (".jpg", ".jpeg", ".png")
        ]
        found += [(what, files[:: max(1, len(files) // STRANGERS)][:STRANGERS])] if files else []
    return found


def _refused(judge: Judge, what: str, files: list[Path]) -> Figures:
    said = judge.look([Source(file, KIND) for file in files])
    return {
        "set": what,
        "not_analysed": proportion(sum(result.status is not ResultStatus.ANALYSED for result in said), len(said)),
    }


def _precision(found: Found) -> float:
    return average_precision(found.scores, found.hits, int(found.true.sum()))


def _sensitivity(found: Found, rate: float) -> float:
    return sensitivity_at(found, rate)[0]

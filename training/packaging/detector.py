"""From a detector's weights to its package: graph, calibration of boxes, gate, golden vectors, licence, manifest.

A probability here is that of a box: that it marks what the set's own readers marked (IoU of HIT or more), among the
boxes drawn on the calibration split. Nearly every picture of the set shows a fracture, so no probability of a fracture
in a patient can be calibrated on it. The finding's probability is that of its best box.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from tqdm import tqdm

from inference.distribution import dump_distribution
from inference.manifest import (
    Calibration,
    DetectionSpec,
    InputSpec,
    LabelSpec,
    Licence,
    Manifest,
    OperatingPoint,
    UncertaintySpec,
)
from training.data.fracture import BoxedImages
from training.detection_recipe import DetectionRecipe
from training.fitting.detection import build, to_range
from training.networks.detector import McDetector
from training.packaging.calibrate import Scaling, logit
from training.packaging.gate_fit import choose_threshold, fit_distribution, gate_spec
from training.packaging.golden import golden
from training.packaging.graphs import Parity, agreement, standardised, write_graphs
from training.packaging.legal import licence_text
from training.packaging.look import Model
from training.packaging.package import pin
from training.packaging.weights import with_weights
from validation.boxes import NOBODY, Found, matched, sensitivity_at

OUTPUTS = ("scores", "cam", "boxes", "box_scores", "features")
HIT = 0.3  # IoU from which a box marks a true one: the set's boxes are drawn loosely
SPOKEN_FROM = 0.02  # raw score: boxes below it are noise that no calibration need describe
CHANGES = "images resized, all classes taken as one, sources that share a picture joined"
PARITY_IMAGES = 48  # of the test split


def load_detector(recipe: DetectionRecipe, run: Path) -> McDetector:
    """The averaged network of a finished run; of an unfinished one, that of its last epoch."""
    net = with_weights(build(recipe), run)
    return McDetector(net, recipe.model.mc_passes, recipe.model.mc_seed).eval()


def write_detector(
    recipe: DetectionRecipe, run: Path, splits: dict[str, BoxedImages], folder: Path, threads: int = 0
) -> Parity:
    """Everything but card and figures. Returns the parity that was measured; raises when it is too poor."""
    folder.mkdir(parents=True, exist_ok=True)
    net, spec = load_detector(recipe, run), input_spec(recipe)
    features = _train_features(net, splits["train"], recipe)
    model, exact = write_graphs(net, spec, run, folder, threads, OUTPUTS)
    # of scores alone: which box of two equal ones comes first may differ, and with it the boxes
    measured = agreement(net, model, exact, _tensors(splits["test"], recipe)[:PARITY_IMAGES])
    seen, seen_features = look(model, splits["calibration"], recipe)
    distribution = fit_distribution(features, seen_features)
    (folder / "gate.npz").write_bytes(dump_distribution(distribution))
    (folder / "golden.npz").write_bytes(golden(model, spec, limb_phantoms(recipe.size)))
    (folder / "LICENSE").write_text(licence_text(recipe.package.weights_licence, (recipe.package.source,), CHANGES))
    label = label_spec(recipe, seen, splits["calibration"])
    pin(_manifest(recipe, spec, label, choose_threshold(distribution.distance(seen_features))), folder)
    return measured


def look(
    model: Model, images: BoxedImages, recipe: DetectionRecipe
) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]:
    """Every box (N, B, 4) of the input and its raw score (N, B); features (N, C). Picture by picture, as the node."""
    out = [model.run(one[np.newaxis]) for one in tqdm(_tensors(images, recipe), desc="looking", mininterval=5)]
    boxes, scores, features = (np.concatenate([one[i] for one in out]) for i in (2, 3, 4))
    return (boxes, scores[:, :, 0]), features


def found_of(seen: tuple[NDArray[np.float32], NDArray[np.float32]], images: BoxedImages, iou: float) -> Found:
    """What the boxes hit; a silenced one, whose score is next to nothing, hits nothing."""
    hits = np.stack([matched(boxes, true, iou) for boxes, true in zip(seen[0], images.boxes, strict=True)])
    return Found(seen[1], hits, np.array([len(true) for true in images.boxes]))


def fit_box_scaling(scores: NDArray[np.float64], hit: NDArray[np.bool_]) -> Scaling:
    """Of boxes as they come, each counted once. scores, hit: (M,)."""
    logits = logit(scores)

    def loss(parameters: NDArray[np.float64]) -> float:
        p = 1.0 / (1.0 + np.exp(-(logits / np.exp(parameters[0]) + parameters[1])))
        p = np.clip(p, 1e-6, 1.0 - 1e-6)
        return float(-np.where(hit, np.log(p), np.log(1.0 - p)).mean())

    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-7})
    return Scaling(round(float(np.exp(best.x[0])), 4), round(float(best.x[1]), 4))


def label_spec(
    recipe: DetectionRecipe, seen: tuple[NDArray[np.float32], NDArray[np.float32]], images: BoxedImages
) -> LabelSpec:
    """Calibrated and with an operating point of so many false boxes an image, both on the calibration split."""
    package, found = recipe.package, found_of(seen, images, HIT)
    spoken = found.scores >= SPOKEN_FROM
    scaling = fit_box_scaling(found.scores[spoken].astype(np.float64), found.hits[spoken] != NOBODY)
    share, lowest = sensitivity_at(found, package.false_boxes_per_image)
    point = float(np.floor(scaling.apply(np.array(lowest)) * 1e4) / 1e4)
    without = found.true == 0
    silent = (
        float((scaling.apply(found.scores[without, 0].astype(np.float64)) < point).mean()) if without.any() else 0.0
    )
    return LabelSpec(
        label=package.label,
        code=package.code,
        operating_point=OperatingPoint(
            threshold=min(max(point, 0.01), 0.99),
            sensitivity=round(share, 4),
            specificity=round(silent, 4),
            chosen_on=f"calibration split, n={len(images)} pictures of {len(set(images.groups))} groups: at most"
            f" {package.false_boxes_per_image:g} false boxes a picture. Sensitivity is that of {int(found.true.sum())}"
            f" boxes; specificity is that of {int(without.sum())} pictures without a box and means nothing",
        ),
        calibration=Calibration(method="platt", temperature=scaling.temperature, bias=scaling.bias),
    )


def limb_phantoms(size: int, n: int = 4, seed: int = 11) -> list[NDArray[np.float32]]:
    """n made-up pictures (size, size) float32 in [0, 1]: two bright shafts in a grey sleeve, most of them broken."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1.0 : 1.0 : size * 1j, -1.0 : 1.0 : size * 1j]
    out = []
    for i in range(n):
        tilt, level = rng.uniform(-0.2, 0.2), rng.uniform(-0.5, 0.5)
        step = np.where(y > level, 0.06 * i, 0.0)  # the first is whole
        axes = [x - tilt * y - side - step for side in (-0.14, 0.16)]
        shafts = sum(np.exp(-((a / 0.08) ** 4)) - 0.5 * np.exp(-((a / 0.04) ** 2)) for a in axes)
        line = 0.4 * (i > 0) * np.exp(-(((y - level) / 0.015) ** 2))
        picture = 0.25 * np.exp(-((x / 0.5) ** 6)) + shafts * (0.55 - line) + rng.normal(0.0, 0.02, x.shape)
        out.append(np.clip(picture, 0.0, 1.0).astype(np.float32))
    return out


def input_spec(recipe: DetectionRecipe) -> InputSpec:
    return InputSpec(
        height=recipe.size,
        width=recipe.size,
        fit="letterbox",
        window="header",
        percentiles=recipe.percentiles,
        value_range=recipe.value_range,
    )


def _tensors(images: BoxedImages, recipe: DetectionRecipe) -> NDArray[np.float32]:
    batch = torch.from_numpy(images.pixels).float().unsqueeze(1) / 255.0
    return to_range(batch, recipe).contiguous(memory_format=torch.contiguous_format).numpy()


@torch.inference_mode()
def _train_features(net: McDetector, train: BoxedImages, recipe: DetectionRecipe) -> NDArray[np.float32]:
    """Standardises the graph's features on the training split and returns them, (N, C); in bfloat16, as in training."""
    raw = []
    for start in tqdm(range(0, len(train), 32), desc="training features", unit="batch", mininterval=5):
        batch = torch.from_numpy(train.pixels[start : start + 32]).float().unsqueeze(1) / 255.0
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.fit.autocast):
            stem, deep, _, _ = net.net.towers(to_range(batch, recipe))
        raw.append(net.raw_features(stem.float(), deep.float()))
    return standardised(net, raw)


def _manifest(recipe: DetectionRecipe, spec: InputSpec, label: LabelSpec, threshold: float) -> Manifest:
    package, model = recipe.package, recipe.model
    return Manifest(
        name=recipe.name,
        version=package.version,
        created=package.created,
        task="detection",
        intended_use=package.intended_use,
        not_for=package.not_for,
        licence=Licence(weights=package.weights_licence, non_commercial=False, data=(package.source,)),
        files={"model.onnx": "0" * 64, "gate.npz": "0" * 64},
        input=spec,
        labels=(label,),
        uncertainty=UncertaintySpec(
            method="mc-dropout-head",
            passes=model.mc_passes,
            dropout=model.dropout,
            seed=model.mc_seed,
            text=f"sd over {model.mc_passes} masked heads at the best box, after calibrating each; blind to the"
            " backbone's own uncertainty and to boxes that were not drawn",
        ),
        reads=package.reads,
        gate=gate_spec(threshold),
        detection=DetectionSpec(box_threshold=label.operating_point.threshold, max_boxes=package.max_boxes),
        may_raise_priority=package.may_raise_priority,
    )

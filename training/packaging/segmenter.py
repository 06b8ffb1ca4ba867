"""From the weights of a slice model to its package: graph, calibration, gate, golden vectors, licence, manifest.

The gate's threshold has a margin: a few held-out patients do not span the heads of other hospitals, and a refused slice
of a tumour is worse here than a strange one that is looked at, since only FLAIR series get this far. The margin was
chosen after a first look at an institution left out, where without it 20 of 121 slices with a tumour were refused.

The slice's operating point is a probability of 0.5 of a calibration in which both kinds of slices weigh the same, and
the masks' threshold is 0.5: with a handful of patients to choose on, a better cut would follow single patients.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from inference.distribution import dump_distribution
from inference.manifest import (
    Calibration,
    InputSpec,
    LabelSpec,
    Licence,
    Manifest,
    OperatingPoint,
    UncertaintySpec,
)
from training.data.brain import MarkedSlices, as_the_node_sees
from training.fitting.segment import build_resunet, to_value_range
from training.networks.monte_carlo import METHODS, McConfig
from training.networks.resunet import McSegNet
from training.packaging.calibrate import fit_scaling
from training.packaging.gate_fit import choose_threshold, fit_distribution, gate_spec
from training.packaging.golden import golden, head_phantoms
from training.packaging.graphs import PARITY_FP16, Parity, agreement, standardised, write_graphs
from training.packaging.legal import licence_text
from training.packaging.look import Model, Outputs
from training.packaging.package import pin
from training.packaging.weights import with_weights
from training.segmentation_recipe import SegmentationRecipe

OUTPUTS = ("scores", "masks", "features")
EVEN = 0.5
PARITY_SLICES = 96  # of the test split
AT_MOST = {"scores": PARITY_FP16, "masks": 0.05}  # where an outline runs a rounding moves a pixel most
CHANGES = "slices resized and stretched, split by patient"
GATE_MARGIN = 1.3


def load_segmenter(recipe: SegmentationRecipe, run: Path) -> McSegNet:
    """The averaged network of a finished run; of an unfinished one, that of its last epoch."""
    net = with_weights(build_resunet(recipe), run)
    return McSegNet(net, McConfig(recipe.model.mc_passes, recipe.model.mc_seed)).eval()


def write_segmenter(
    recipe: SegmentationRecipe, run: Path, splits: dict[str, MarkedSlices], folder: Path, threads: int = 0
) -> Parity:
    """Everything but card and figures. Returns the parity that was measured; raises when it is too poor."""
    folder.mkdir(parents=True, exist_ok=True)
    net, spec = load_segmenter(recipe, run), _input(recipe)
    features = _train_features(net, _pictures(splits["train"], recipe), recipe)
    model, exact = write_graphs(net, spec, run, folder, threads, OUTPUTS)
    some = splits["test"].where(np.arange(len(splits["test"])) % max(1, len(splits["test"]) // PARITY_SLICES) == 0)
    measured = agreement(net, model, exact, _tensors(_pictures(some, recipe), recipe), AT_MOST)
    outputs = _look(model, _tensors(_pictures(splits["calibration"], recipe), recipe))
    distribution = fit_distribution(features, outputs.features)
    (folder / "gate.npz").write_bytes(dump_distribution(distribution))
    (folder / "golden.npz").write_bytes(golden(model, spec, head_phantoms(spec.height, spec.width)))
    (folder / "LICENSE").write_text(licence_text(recipe.package.weights_licence, recipe.package.sources, CHANGES))
    label = label_spec(recipe, outputs.scores[:, :, 0].astype(np.float64), splits["calibration"].marked)
    threshold = round(GATE_MARGIN * choose_threshold(distribution.distance(outputs.features)), 3)
    pin(_manifest(recipe, spec, label, threshold), folder)
    return measured


def label_spec(recipe: SegmentationRecipe, scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> LabelSpec:
    """scores: (N, T) of the calibration split; truth: (N,)."""
    scaling = fit_scaling(scores, truth.astype(np.float64))
    present = scaling.apply(scores).mean(axis=1) >= EVEN
    package, marked = recipe.package, int(truth.sum())
    return LabelSpec(
        label=package.label,
        code=package.code,
        site=package.site,
        operating_point=OperatingPoint(
            threshold=EVEN,
            sensitivity=round(float(present[truth].mean()), 4),
            specificity=round(float((~present[~truth]).mean()), 4),
            chosen_on=f"not chosen: even odds; calibrated on {len(truth)} slices of patients held out"
            f" ({marked} with, {len(truth) - marked} without)",
        ),
        calibration=Calibration(method="platt", temperature=scaling.temperature, bias=scaling.bias),
    )


def _input(recipe: SegmentationRecipe) -> InputSpec:
    return InputSpec(
        height=recipe.size,
        width=recipe.size,
        fit=recipe.shape,
        window="header",
        percentiles=recipe.percentiles,
        value_range=recipe.value_range,
        test_time=recipe.test_time,
    )


def _pictures(part: MarkedSlices, recipe: SegmentationRecipe) -> NDArray[np.float32]:
    return as_the_node_sees(part.pixels, recipe.size, recipe.shape, recipe.percentiles)


def _tensors(pictures: NDArray[np.float32], recipe: SegmentationRecipe) -> NDArray[np.float32]:
    return to_value_range(torch.from_numpy(pictures).unsqueeze(1), recipe).contiguous().numpy()


@torch.inference_mode()
def _train_features(net: McSegNet, pictures: NDArray[np.float32], recipe: SegmentationRecipe) -> NDArray[np.float32]:
    """Standardises the graph's features on the training split and returns them, (N, C); in bfloat16, as in training."""
    raw = []
    for start in tqdm(range(0, len(pictures), 32), desc="training features", unit="batch", mininterval=5):
        with torch.autocast("cpu", torch.bfloat16):
            batch = to_value_range(torch.from_numpy(pictures[start : start + 32]).unsqueeze(1), recipe)
            raw.append(net.raw_features(net.net.encode(batch)).float())
    return standardised(net, raw)


def _look(model: Model, images: NDArray[np.float32]) -> Outputs:
    bar = tqdm(range(0, len(images), 16), desc="calibration", unit="batch", mininterval=5)
    found = [model.passes(images[start : start + 16]) for start in bar]
    return Outputs(np.concatenate([one.scores for one in found]), np.concatenate([one.features for one in found]))


def _manifest(recipe: SegmentationRecipe, spec: InputSpec, label: LabelSpec, threshold: float) -> Manifest:
    package, model = recipe.package, recipe.model
    return Manifest(
        name=recipe.name,
        version=package.version,
        created=package.created,
        task="segmentation",
        intended_use=package.intended_use,
        not_for=package.not_for,
        licence=Licence(weights=package.weights_licence, non_commercial=package.non_commercial, data=package.sources),
        files={"model.onnx": "0" * 64, "gate.npz": "0" * 64},
        input=spec,
        labels=(label,),
        uncertainty=UncertaintySpec(
            method=METHODS["head"],
            passes=model.mc_passes,
            dropout=model.dropout,
            seed=model.mc_seed,
            text=f"sd over {model.mc_passes} masked heads on the features of each of {len(recipe.test_time)} views,"
            " after calibrating each; of the slice's finding, not of its outline; blind to most of the encoder's own"
            " uncertainty",
        ),
        reads=package.reads,
        gate=gate_spec(threshold, "slices", GATE_MARGIN),
        segmentation=package.segmentation,
        may_raise_priority=package.may_raise_priority,
    )

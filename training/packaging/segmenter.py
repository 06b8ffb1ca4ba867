"""From the weights of a slice model to its package: graph, calibration, gate, golden vectors, licence, manifest.

The gate's threshold has a margin: a few held-out patients do not span the heads of other hospitals, and a refused slice
of a tumour is worse here than a strange one that is looked at, since only FLAIR series get this far. The margin was
chosen after a first look at an institution left out, where without it 20 of 121 slices with a tumour were refused.

The slice's operating point is a probability of 0.5 of a calibration in which both kinds of slices weigh the same, and
the masks' threshold is 0.5: with a handful of patients to choose on, a better cut would follow single patients.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from inference.distribution import dump_distribution
from inference.manifest import (
    Calibration,
    GateSpec,
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
from training.packaging.export import export, halve_weights, save
from training.packaging.gate_fit import COMPONENTS, REFUSED_SHARE, choose_threshold, fit_distribution
from training.packaging.golden import golden, head_phantoms
from training.packaging.look import Model, Outputs
from training.packaging.package import PARITY_FP16, PARITY_FP32, parity, pin
from training.packaging.weights import with_weights
from training.segmentation_recipe import SegmentationRecipe

OUTPUTS = ("scores", "masks", "features")
EVEN = 0.5
PARITY_SLICES = 96  # of the test split
PARITY_MASKS_FP16 = 0.05  # where an outline runs a rounding moves a pixel's probability most
GATE_MARGIN = 1.3
LEGAL_CODE = {"CC-BY-NC-SA-4.0": "https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode"}


def load_segmenter(recipe: SegmentationRecipe, run: Path) -> McSegNet:
    """The averaged network of a finished run; of an unfinished one, that of its last epoch."""
    net = with_weights(build_resunet(recipe), run)
    return McSegNet(net, McConfig(recipe.model.mc_passes, recipe.model.mc_seed)).eval()


def write_segmenter(
    recipe: SegmentationRecipe, run: Path, splits: dict[str, MarkedSlices], folder: Path, threads: int = 0
) -> dict[str, Any]:
    """Everything but card and figures. Returns the parity that was measured; raises when it is too poor."""
    folder.mkdir(parents=True, exist_ok=True)
    net, spec = load_segmenter(recipe, run), _input(recipe)
    features = _train_features(net, _pictures(splits["train"], recipe), recipe)
    full = export(net, recipe.size, OUTPUTS)
    save(full, run / "model-fp32.onnx")
    save(halve_weights(full), folder / "model.onnx")
    model = Model(folder / "model.onnx", spec, threads, OUTPUTS)
    some = splits["test"].where(np.arange(len(splits["test"])) % max(1, len(splits["test"]) // PARITY_SLICES) == 0)
    exact = Model(run / "model-fp32.onnx", spec, threads, OUTPUTS)
    measured = _parity(net, exact, model, _tensors(_pictures(some, recipe), recipe))
    outputs = _look(model, _tensors(_pictures(splits["calibration"], recipe), recipe))
    distribution = fit_distribution(features, outputs.features)
    (folder / "gate.npz").write_bytes(dump_distribution(distribution))
    (folder / "golden.npz").write_bytes(golden(model, spec, head_phantoms(spec.height, spec.width)))
    (folder / "LICENSE").write_text(licence_of_slices(recipe))
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


def licence_of_slices(recipe: SegmentationRecipe) -> str:
    package = recipe.package
    sources = "\n\n".join(f"  {one.name}\n  Licence: {one.licence}\n  {one.attribution}" for one in package.sources)
    return (
        f"The weights in model.onnx and the figures in gate.npz are licensed {package.weights_licence}\n"
        f"({LEGAL_CODE[package.weights_licence]}): no commercial use; what is\n"
        "built on them is passed on under the same terms.\n\n"
        f"They were fitted to:\n\n{sources}\n\n"
        "Changes made: slices resized and stretched, split by patient, used to fit the weights. No image is part of\n"
        "this package; golden.npz holds made-up pictures only. When you pass the package on, keep this file with it.\n"
        "Provided as is, without warranty of any kind.\n"
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
    features = torch.cat(raw)
    net.standardise(features)
    return ((features - net.feature_mean) / net.feature_scale).numpy()


def _parity(net: McSegNet, exact: Model, half: Model, images: NDArray[np.float32]) -> dict[str, Any]:
    measured = {"fp32_against_torch": parity(net, exact, images), "fp16_against_torch": parity(net, half, images)}
    full, stored = measured["fp32_against_torch"], measured["fp16_against_torch"]
    poor = max(full["scores"], full["masks"]) > PARITY_FP32
    if poor or stored["scores"] > PARITY_FP16 or stored["masks"] > PARITY_MASKS_FP16:
        raise RuntimeError(f"the export does not agree with torch: {measured}")
    return measured


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
        gate=GateSpec(
            file="gate.npz",
            threshold=threshold,
            text=f"distance of the pooled features from the training slices ({COMPONENTS} axes and the residual);"
            f" {GATE_MARGIN} times what {REFUSED_SHARE:.1%} of the calibration split lies beyond",
        ),
        segmentation=package.segmentation,
        may_raise_priority=package.may_raise_priority,
    )

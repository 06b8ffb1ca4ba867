"""A package out of a published checkpoint: its scores, and not one figure, because none was measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.manifest import (
    Calibration,
    CodeSpec,
    DataSource,
    InputSpec,
    LabelSpec,
    Licence,
    Manifest,
    OperatingPoint,
    Reads,
    UncertaintySpec,
)
from training.importing.checkpoint import read_checkpoint
from training.importing.keys import RANGES, Kind, Wanted, network_of, wanted_labels
from training.importing.restricted import CheckpointError
from training.networks.monte_carlo import McConfig, McTriageNet
from training.packaging.export import export, halve_weights, save
from training.packaging.golden import golden, phantoms
from training.packaging.graphs import MODEL, Parity, ParityError, agreement
from training.packaging.look import Model, tensor
from training.packaging.package import pin

LUNG = CodeSpec(value="39607008", scheme="SCT", meaning="Lung")
CODES = {
    "pneumonia": CodeSpec(value="233604007", scheme="SCT", meaning="Pneumonia"),
    "pneumothorax": CodeSpec(value="36118008", scheme="SCT", meaning="Pneumothorax"),
    "effusion": CodeSpec(value="60046008", scheme="SCT", meaning="Pleural effusion"),
    "atelectasis": CodeSpec(value="46621007", scheme="SCT", meaning="Atelectasis"),
    "edema": CodeSpec(value="19242006", scheme="SCT", meaning="Pulmonary edema"),
    "cardiomegaly": CodeSpec(value="8186001", scheme="SCT", meaning="Cardiomegaly"),
}
NOT_MEASURED = "nothing was measured: a cut of 0.5, or the publisher's own where the file states one"


@dataclass(frozen=True)
class Order:
    """What the person who imports says of a checkpoint; nobody else can."""

    kind: Kind
    name: str
    version: str
    created: str  # YYYY-MM-DD
    labels: tuple[str, ...]
    seen_data: tuple[str, ...]  # every set that the weights have seen, or "unknown"
    licence: str
    non_commercial: bool
    ages_years: tuple[float, float] | None
    size: int = 224


def import_package(path: Path, order: Order, out: Path) -> tuple[Path, dict[str, Any]]:
    """Write OUT/NAME/VERSION. Returns the folder and what was measured. Raises CheckpointError."""
    checkpoint = read_checkpoint(path)
    wanted = wanted_labels(order.labels, checkpoint)
    net = McTriageNet(network_of(checkpoint, wanted), McConfig(passes=1)).eval()
    folder = out / order.name / order.version
    folder.mkdir(parents=True, exist_ok=True)
    spec = InputSpec(
        height=order.size,
        width=order.size,
        fit="squash",
        window="header",
        percentiles=None,
        value_range=RANGES[order.kind],
    )
    full = export(net, order.size)
    save(halve_weights(full), folder / MODEL)
    model = Model(folder / MODEL, spec)
    measured = _measured(net, Model(full.SerializeToString(), spec), model, spec)
    (folder / "golden.npz").write_bytes(golden(model, spec))
    manifest = _manifest(order, spec, _labels(wanted, checkpoint.attributes))
    (folder / "LICENSE").write_text(_licence(order))
    (folder / "MODEL_CARD.md").write_text(_card(order, manifest, path.name, checkpoint.strangers, measured))
    pin(manifest, folder)
    return folder, measured


def _measured(net: McTriageNet, exact: Model, half: Model, spec: InputSpec) -> Parity:
    """Torch against the runtime, on made-up pictures. Raises CheckpointError when they differ."""
    images = np.stack([tensor(picture, spec) for picture in phantoms(spec.height, spec.width, n=8, seed=11)])
    try:
        return agreement(net, half, exact, images)
    except ParityError as error:
        raise CheckpointError(str(error)) from None


def _labels(wanted: Sequence[Wanted], attributes: Mapping[str, Any]) -> tuple[LabelSpec, ...]:
    return tuple(
        LabelSpec(
            label=one.label,
            code=CODES.get(
                one.label,
                CodeSpec(value=f"imp-{one.label}".replace(" ", "-")[:16], scheme="99OPENTRIAGE", meaning=one.label),
            ),
            site=LUNG if one.label in ("pneumonia", "pneumothorax", "atelectasis", "edema") else None,
            operating_point=OperatingPoint(threshold=0.5, sensitivity=0.0, specificity=0.0, chosen_on=NOT_MEASURED),
            calibration=_own_cut(attributes.get("op_threshs"), one.row),
        )
        for one in wanted
    )


def _own_cut(cuts: Any, row: int) -> Calibration:
    """TorchXRayVision states a cut per target: its scores are drawn out so that the cut lies at 0.5, as it does."""
    cut = cuts[row] if isinstance(cuts, list) and row < len(cuts) else None
    if not isinstance(cut, float) or not 0.0 < cut < 1.0 or math.isnan(cut):
        return Calibration(method="none")
    return Calibration(method="isotonic", knots=((0.0, 0.0), (cut, 0.5), (1.0, 1.0)))


def _manifest(order: Order, spec: InputSpec, labels: tuple[LabelSpec, ...]) -> Manifest:
    seen = ", ".join(order.seen_data)
    return Manifest(
        name=order.name,
        version=order.version,
        created=order.created,
        intended_use=f"Research only. Scores of published weights ({order.kind}), imported and not validated here: no"
        " operating point was measured, so a finding of this package raises no priority.",
        not_for="Not a diagnosis, and nothing to triage by before `opentriage validate` has measured it where it will"
        f" stand. The weights have seen: {seen}. On those sets no figure of theirs counts.",
        licence=Licence(
            weights=order.licence,
            non_commercial=order.non_commercial,
            data=tuple(
                DataSource(name=name, licence="see its publisher", attribution="the weights have seen these images")
                for name in order.seen_data
            ),
        ),
        files={"model.onnx": "0" * 64},
        input=spec,
        labels=labels,
        uncertainty=UncertaintySpec(
            method="none",
            passes=1,
            dropout=0.0,
            seed=0,
            text="one pass: the published weights were trained without dropout, and masks would only add noise",
        ),
        reads=Reads(modalities=("CR", "DX"), body_parts=("CHEST",), views=("PA", "AP"), ages_years=order.ages_years),
        may_raise_priority=False,
    )


def _licence(order: Order) -> str:
    return (
        f"The weights in model.onnx were published by others and imported; stated licence: {order.licence}"
        f"{' (non-commercial)' if order.non_commercial else ''}.\n\nThey have seen these images, whose terms also"
        f" apply: {', '.join(order.seen_data)}.\n"
    )


def _card(order: Order, manifest: Manifest, file: str, strangers: Sequence[str], measured: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f"| {spec.label} | {spec.code.value} {spec.code.scheme} | {spec.calibration.method} |"
        for spec in manifest.labels
    )
    exact, half = measured["fp32_against_torch"], measured["fp16_against_torch"]
    asked = f" It asked for {len(strangers)} classes or functions; none was loaded." if strangers else ""
    return f"""# {order.name} {order.version} (imported)

{manifest.intended_use}

**Not for:** {manifest.not_for}

## What it is

DenseNet-121, {order.kind}, out of `{file}`. The file's pickle, if it has one, was read without running it.{asked}
One input channel (a first convolution over three colours is summed: grey is the same in all), input
{order.size} x {order.size}, black {manifest.input.value_range[0]:g}, white {manifest.input.value_range[1]:g}.

| label | code | scores |
|---|---|---|
{rows}

## Data

The weights have seen: {", ".join(order.seen_data)}. **Images of a set that the weights have seen count for no figure**;
weights that have seen NIH or RSNA images stand in no table of OpenTriage's documentation.

## Measured

The ONNX graph against torch, on {exact["images"]} made-up pictures: scores differ by at most {exact["scores"]:.1e} in
float32 and {half["scores"]:.1e} with the weights stored as float16. Nothing else: no sensitivity, no specificity, no
calibration, no distance from what it was trained on. There is no gate: it says something of every picture.

## Licence

Weights: {order.licence}{", non-commercial" if order.non_commercial else ""}.
"""

"""From raw passes to findings: calibrate each pass, then mean, sd, entropies; maps with their place."""

import numpy as np
from numpy.typing import NDArray

from config.settings import DecideSettings
from inference.decide import high_operating_point, in_doubt, operating_point
from inference.doubt import TINY, entropy, mutual_information
from inference.manifest import Calibration, InputSpec, LabelSpec, Manifest
from ledger.records import ActivationMap, Code, Finding

INTERNAL_LABEL = "normal"  # never leaves this package: a model knows nothing of what it was not taught
OTHER_LABEL = "other_abnormality"
OTHER_CODE = Code("other-abnormality", "99OPENTRIAGE", "Other abnormality")
Passes = NDArray[np.float64]


def calibrate(scores: NDArray[np.float32] | Passes, calibration: Calibration) -> Passes:
    """scores: raw, in [0, 1], of any shape. Returns probabilities of the same shape (manifest.Calibration)."""
    if calibration.method == "isotonic":
        known, probability = zip(*calibration.knots, strict=True)
        return np.asarray(np.interp(scores.astype(np.float64), known, probability))
    raw = np.clip(scores.astype(np.float64), TINY, 1.0 - TINY)
    if calibration.method == "none":
        return raw
    logits = np.log(raw / (1.0 - raw)) / calibration.temperature + calibration.bias
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def findings_of(
    scores: NDArray[np.float32],
    cam: NDArray[np.float32] | None,
    manifest: Manifest,
    settings: DecideSettings,
    source_shape: tuple[int, int],
) -> tuple[Finding, ...]:
    """Findings of one image, most probable first.

    scores: (T, L) raw. cam: (L, h, w), None where the model has none. source_shape: (rows, columns) of the image.
    """
    findings = []
    box = grid_box(manifest.input, source_shape)
    for i, spec in enumerate(manifest.labels):
        if spec.label == INTERNAL_LABEL:
            if settings.other_abnormality:
                findings.append(_other(scores[:, i], spec, settings))
        elif spec.label != OTHER_LABEL or settings.other_abnormality:
            activation = None if cam is None else ActivationMap(tuple(map(tuple, cam[i].astype(float).tolist())), box)
            findings.append(_finding(scores[:, i], spec, settings, activation))
    return tuple(sorted(findings, key=lambda finding: -finding.probability))


def grid_box(spec: InputSpec, source_shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """Where the model's input lies in source pixels: (top, left, bottom, right).

    Squashed input covers the image exactly; letterboxed input reaches beyond it, by the padding.
    """
    rows, columns = source_shape
    if spec.fit == "squash":
        return (0.0, 0.0, float(rows), float(columns))
    scale = min(spec.height / rows, spec.width / columns)
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    top, left = (spec.height - height) // 2, (spec.width - width) // 2
    per_row, per_column = rows / height, columns / width
    return (-top * per_row, -left * per_column, (spec.height - top) * per_row, (spec.width - left) * per_column)


def _finding(
    raw: NDArray[np.float32], spec: LabelSpec, settings: DecideSettings, activation: ActivationMap | None
) -> Finding:
    passes = calibrate(raw, spec.calibration)
    probability, sd = float(passes.mean()), float(passes.std())
    point = operating_point(spec, settings)
    return Finding(
        label=spec.label,
        code=spec.code.record(),
        score=float(raw.astype(np.float64).mean()),
        probability=probability,
        probability_sd=sd,
        mutual_information=float(mutual_information(passes)),
        entropy=float(entropy(passes.mean())),
        present=probability >= point,
        in_doubt=in_doubt(probability, sd, point, settings),
        operating_point=point,
        high_operating_point=high_operating_point(spec, settings),
        site=spec.site.record() if spec.site else None,
        activation=activation,
        pointing_accuracy=spec.pointing_accuracy.accuracy if spec.pointing_accuracy else None,
    )


def _other(raw: NDArray[np.float32], spec: LabelSpec, settings: DecideSettings) -> Finding:
    """What the internal class does not account for, as a finding of its own (settings.decide.other_abnormality)."""
    passes = 1.0 - calibrate(raw, spec.calibration)
    probability, sd = float(passes.mean()), float(passes.std())
    point = settings.thresholds.get(OTHER_LABEL, settings.other_abnormality_probability)
    return Finding(
        label=OTHER_LABEL,
        code=OTHER_CODE,
        score=float(1.0 - raw.astype(np.float64).mean()),
        probability=probability,
        probability_sd=sd,
        mutual_information=float(mutual_information(passes)),
        entropy=float(entropy(passes.mean())),
        present=probability >= point,
        in_doubt=in_doubt(probability, sd, point, settings),
        operating_point=point,
        high_operating_point=settings.high_probability,
    )

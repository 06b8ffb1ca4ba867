"""Figures of a package on images it has not seen, through the node's own code path: validation.json.

Sensitivity and specificity are counted from `present`; an image that was refused counts as an error in both. Every
share has a Wilson interval, every AUC an interval from a bootstrap over patients, and the 8x8-thumbnail baseline stands
beside the model, because the set's acquisition gives much away.
"""

import platform
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydicom import dcmread

from inference.distribution import load_distribution
from training.packaging.baseline import thumbnail_scores
from training.packaging.calibrate import TARGET_SENSITIVITY
from training.packaging.look import Model
from training.packaging.package import Splits
from training.packaging.probes import AGE, Probe, adults, header_probes, probes
from validation.judge import Judge, Judged
from validation.statistics import auc_by_group, brier, expected_calibration_error, proportion

Figures = dict[str, Any]


def validate(folder: Path, exact: Path | None, splits: Splits, data: Path, threads: int = 0) -> Figures:
    """folder: the package. exact: its float32 twin, to measure what storing float16 changes; None: not measured."""
    judge = Judge(folder, threads)
    try:
        files = splits.files(splits.test)
        told = [AGE] * len(files)
        spec = judge.manifest.labels[0]
        judged = judge.files(files, told, spec.label, "test split")
        figures: Figures = {
            "package": f"{judge.manifest.name}/{judge.manifest.version}",
            "label": spec.label,
            "made_with": {
                "code_path": "inference.analyser over files, CPU",
                "onnxruntime": onnxruntime.__version__,
                "machine": platform.machine(),
            },
            "splits": {name: _counts(getattr(splits, name)) for name in ("train", "calibration", "test")},
            "operating_point": spec.operating_point.model_dump(),
            "calibration": spec.calibration.model_dump(),
            "test": _test_figures(judged, splits),
            "refused": _refusals(judge, spec.label, data, files),
            "adults": _adult_figures(judge, spec.label, data),
        }
        if exact is not None:
            figures["float16_weights"] = _halving(judge, folder, exact, files, threads)
        return figures
    finally:
        judge.close()


def _counts(part: Any) -> Figures:
    ill = int(part.labels[:, 0].sum())
    return {"images": len(part), "with": ill, "without": len(part) - ill, "patients": len(set(part.groups))}


def from_present(judged: Judged, truth: NDArray[np.float64]) -> Figures:
    """Sensitivity, specificity and the confusion matrix; refused images are errors and shown apart."""
    ill, well, looked = truth > 0.5, truth <= 0.5, ~judged.refused
    return {
        "sensitivity": proportion(int((judged.present & ill).sum()), int(ill.sum())),
        "specificity": proportion(int((~judged.present & looked & well).sum()), int(well.sum())),
        "confusion": {
            "present_with": int((judged.present & ill).sum()),
            "absent_with": int((~judged.present & looked & ill).sum()),
            "refused_with": int((judged.refused & ill).sum()),
            "present_without": int((judged.present & well).sum()),
            "absent_without": int((~judged.present & looked & well).sum()),
            "refused_without": int((judged.refused & well).sum()),
        },
        "refused": proportion(int(judged.refused.sum()), len(truth)),
    }


def _test_figures(judged: Judged, splits: Splits) -> Figures:
    test, truth = splits.test, splits.test.labels[:, 0].astype(np.float64)
    looked = ~judged.refused
    seen, groups = truth[looked], [group for group, kept in zip(test.groups, looked, strict=True) if kept]
    probability, score, sd = judged.probability[looked], judged.score[looked], judged.sd[looked]
    return {
        **from_present(judged, truth),
        "auc_of_those_looked_at": auc_by_group(seen, probability, groups),
        "baseline_8x8_thumbnail": _baseline(splits, looked, groups),
        "before_calibration": _calibration_figures(seen, score),
        "after_calibration": _calibration_figures(seen, probability),
        "sd": {
            "median": _median(sd),
            "p95": round(float(np.percentile(sd, 95)), 5),
            "greatest": round(float(sd.max()), 5),
            "median_where_right": _median(sd[judged.present[looked] == (seen > 0.5)]),
            "median_where_wrong": _median(sd[judged.present[looked] != (seen > 0.5)]),
        },
    }


def _median(values: NDArray[np.float64]) -> float | None:
    return round(float(np.median(values)), 5) if len(values) else None


def _calibration_figures(truth: NDArray[np.float64], probability: NDArray[np.float64]) -> Figures:
    return {
        "brier": round(brier(truth, probability), 4),
        "ece_15_bins": round(expected_calibration_error(truth, probability), 4),
    }


def _baseline(splits: Splits, looked: NDArray[np.bool_], groups: list[str]) -> Figures:
    """The thumbnail's AUC on the same images, and its sensitivity and specificity where it finds the
    model's target share of the calibration split."""
    fit = splits.train.labels[:, 0].astype(np.float64)
    held_out = splits.calibration.labels[:, 0].astype(np.float64)
    truth = splits.test.labels[looked, 0].astype(np.float64)
    calibration = thumbnail_scores(splits.train.pixels, fit, splits.calibration.pixels)
    scores = thumbnail_scores(splits.train.pixels, fit, splits.test.pixels[looked])
    point = float(np.quantile(calibration[held_out > 0.5], 1.0 - TARGET_SENSITIVITY))
    ill = truth > 0.5
    return {
        "auc": auc_by_group(truth, scores, groups),
        "sensitivity": proportion(int((scores[ill] >= point).sum()), int(ill.sum())),
        "specificity": proportion(int((scores[~ill] < point).sum()), int((~ill).sum())),
    }


def _refusals(judge: Judge, label: str, data: Path, chests: list[Path]) -> list[Figures]:
    """How much of each other set the node did not analyse, by reason."""
    rows = []
    for probe in probes(data, chests):
        if probe.pictures is not None:
            judged = judge.arrays(probe.pictures, AGE, label, probe.name)
        else:
            judged = judge.files(probe.files, [AGE] * len(probe.files), label, probe.name)
        rows.append(_refusal(probe, judged, "age told as 3 years"))
    for probe in header_probes(data):
        judged = judge.files(probe.files, [None] * len(probe.files), label, probe.name)
        rows.append(_refusal(probe, judged, "its own header"))
    dog = header_probes(data)[0]
    with tempfile.TemporaryDirectory() as folder:
        copy = _aged(dog.files[0], Path(folder) / "dog.dcm")
        rows.append(_refusal(dog, judge.files([copy], [None], label, "dog"), "PatientAge set to 003Y"))
    return rows


def _aged(source: Path, to: Path) -> Path:
    ds = dcmread(source)
    ds.PatientAge = "003Y"
    ds.save_as(to)
    return to


def _refusal(probe: Probe, judged: Judged, told: str) -> Figures:
    return {
        "set": probe.name,
        "told": told,
        "expected": probe.expected,
        "not_analysed": proportion(int(judged.refused.sum()), len(judged.reasons)),
        "reasons": dict(Counter(reason for reason in judged.reasons if reason)),
    }


def _adult_figures(judge: Judge, label: str, data: Path) -> Figures:
    """A warning: adults are outside the package's ages. Each is told to be 3 years old, so that the model looks."""
    rows = adults(data)
    folder = data / "chest_adult" / "images"
    out: Figures = {
        "note": "outside the validated ages: the node refuses them; here each was told to be 3 years old."
        " Text-mined Pneumonia against No Finding."
    }
    for view in ("AP", "PA"):
        chosen = [row for row in rows if row["view"] == view and _of_use(row)]
        judged = judge.files([folder / row["image"] for row in chosen], [AGE] * len(chosen), label, f"adults {view}")
        truth = np.array([float("Pneumonia" in row["findings"]) for row in chosen])
        looked = ~judged.refused
        patients = [row["patient_id"] for row, kept in zip(chosen, looked, strict=True) if kept]
        ill = truth > 0.5
        out[view] = {
            "auc_of_those_looked_at": auc_by_group(truth[looked], judged.probability[looked], patients),
            "refused_by_gate": proportion(int(judged.refused.sum()), len(chosen)),
            "present_with": proportion(int((judged.present & ill).sum()), int(ill.sum())),
            "present_without": proportion(int((judged.present & ~ill).sum()), int((~ill).sum())),
        }
    return out


def _of_use(row: dict[str, str]) -> bool:
    return "Pneumonia" in row["findings"] or row["findings"] == "No Finding"


def _halving(judge: Judge, folder: Path, exact: Path, files: list[Path], threads: int) -> Figures:
    """The shipped graph against its float32 twin, over the test split."""
    spec = judge.manifest.input
    half, full = (Model(path, spec, threads).look(files, path.stem) for path in (folder / "model.onnx", exact))
    label = judge.manifest.labels[0]
    temperature, bias, threshold = (
        label.calibration.temperature,
        label.calibration.bias,
        label.operating_point.threshold,
    )

    def present(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        raw = np.clip(scores[:, :, 0].astype(np.float64), 1e-7, 1 - 1e-7)
        passes = 1 / (1 + np.exp(-(np.log(raw / (1 - raw)) / temperature + bias)))
        return np.asarray(passes.mean(axis=1) >= threshold)

    gate = judge.manifest.gate
    changed_gate = 0
    if gate is not None:
        distribution = load_distribution((folder / gate.file).read_bytes())
        beyond = [distribution.distance(part.features) > gate.threshold for part in (half, full)]
        changed_gate = int((beyond[0] != beyond[1]).sum())
    return {
        "images": len(files),
        "greatest_score_difference": round(float(np.abs(half.scores - full.scores).max()), 6),
        "findings_changed": int((present(half.scores) != present(full.scores)).sum()),
        "refusals_changed": changed_gate,
        "bytes": (folder / "model.onnx").stat().st_size,
        "bytes_float32": exact.stat().st_size,
    }

"""The figures of one label: counted from `present`, ranked by the probability, each with its uncertainty.

An image that was not looked at, for whatever reason, is an error in sensitivity, specificity and accuracy; the same
figures over only those looked at stand beside them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from validation.bootstrap import DRAWS
from validation.border import Kinds
from validation.doubt import compare
from validation.judge import Judged
from validation.roc import auc_by_group, average_precision, sensitivity_at
from validation.statistics import brier, calibration_interval, expected_calibration_error, f1, proportion, reliability

Figures = dict[str, Any]
Floats = NDArray[np.float64]
SPECIFICITY = 0.9


@dataclass(frozen=True)
class Evidence:
    """N images whose truth is known for one label. truth: (N,) in {0, 1}; traits: by name, the group of each image."""

    label: str
    truth: Floats
    judged: Judged
    patients: tuple[str, ...]
    traits: Mapping[str, tuple[str, ...]]

    def where(self, chosen: NDArray[np.bool_]) -> "Evidence":
        index = np.flatnonzero(chosen)
        return Evidence(
            self.label,
            self.truth[chosen],
            self.judged.where(chosen),
            tuple(self.patients[i] for i in index),
            {name: tuple(values[i] for i in index) for name, values in self.traits.items()},
        )

    @property
    def looked_at(self) -> "Evidence":
        return self.where(~self.judged.refused)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """(N,): the finding is not the truth; of images looked at."""
        return np.asarray(self.judged.present != (self.truth > 0.5), bool)


def from_present(judged: Judged, truth: Floats) -> Figures:
    """Sensitivity, specificity and the confusion matrix; refused images are errors and shown apart."""
    ill, well, looked = truth > 0.5, truth <= 0.5, ~judged.refused
    cells = {
        "present_with": int((judged.present & ill).sum()),
        "absent_with": int((~judged.present & looked & ill).sum()),
        "refused_with": int((judged.refused & ill).sum()),
        "present_without": int((judged.present & well).sum()),
        "absent_without": int((~judged.present & looked & well).sum()),
        "refused_without": int((judged.refused & well).sum()),
    }
    return {
        "sensitivity": proportion(cells["present_with"], int(ill.sum())),
        "specificity": proportion(cells["absent_without"], int(well.sum())),
        "confusion": cells,
        "refused": proportion(int(judged.refused.sum()), len(truth)),
    }


def label_figures(evidence: Evidence, draws: int = DRAWS) -> Figures:
    """Everything that is said of one label, but for the groups."""
    counted, looked = from_present(evidence.judged, evidence.truth), evidence.looked_at
    cells, kinds = counted["confusion"], Kinds.of(evidence.truth, evidence.patients)
    right = cells["present_with"] + cells["absent_without"]
    figures: Figures = {
        "images": len(evidence.truth),
        "with": int((evidence.truth > 0.5).sum()),
        "without": int((evidence.truth <= 0.5).sum()),
        "patients": len(set(evidence.patients)),
        "patients_with": kinds.ill,
        "patients_without": kinds.well,
        "operating_points": sorted({round(float(point), 4) for point in looked.judged.operating_point}),
        **counted,
        "accuracy": proportion(right, len(evidence.truth)),
        "f1": _f1(cells, cells["refused_with"]),
        "of_those_looked_at": _of_those_looked_at(cells),
    }
    if len(looked.truth):
        figures |= _ranked(looked, draws) | {"doubt": _doubt(looked, draws)}
    return figures


def calibration_figures(truth: Floats, probability: Floats) -> Figures:
    return {
        "brier": round(brier(truth, probability), 4),
        "ece_15_bins": round(expected_calibration_error(truth, probability), 4),
    }


def _of_those_looked_at(cells: Mapping[str, int]) -> Figures:
    hits, misses = cells["present_with"], cells["absent_with"]
    alarms, rest = cells["present_without"], cells["absent_without"]
    return {
        "sensitivity": proportion(hits, hits + misses),
        "specificity": proportion(rest, rest + alarms),
        "accuracy": proportion(hits + rest, hits + misses + alarms + rest),
        "positive_predictive_value": proportion(hits, hits + alarms),
        "negative_predictive_value": proportion(rest, rest + misses),
        "f1": _f1(cells, 0),
    }


def _f1(cells: Mapping[str, int], refused_with: int) -> float | None:
    value = f1(cells["present_with"], cells["absent_with"] + refused_with, cells["present_without"])
    return None if value is None else round(value, 4)


def _ranked(looked: Evidence, draws: int) -> Figures:
    truth, probability, patients = looked.truth, looked.judged.probability, looked.patients
    precision = average_precision(truth, probability)
    return {
        "auc_of_those_looked_at": auc_by_group(truth, probability, patients, draws),
        "sensitivity_at_90_specificity": sensitivity_at(truth, probability, patients, SPECIFICITY, draws),
        "average_precision": None if np.isnan(precision) else round(precision, 4),
        "before_calibration": calibration_figures(truth, looked.judged.score),
        "after_calibration": {
            **calibration_figures(truth, probability),
            "ece_bootstrap95_by_patient": calibration_interval(truth, probability, patients, draws),
        },
        "reliability": reliability(truth, probability),
        "sd": spread(looked),
    }


def spread(looked: Evidence) -> Figures:
    """How far the passes lie apart, where the finding was right and where it was wrong."""
    sd = looked.judged.sd
    return {
        "median": _median(sd),
        "p95": round(float(np.percentile(sd, 95)), 5),
        "greatest": round(float(sd.max()), 5),
        "median_where_right": _median(sd[~looked.wrong]),
        "median_where_wrong": _median(sd[looked.wrong]),
    }


def _median(values: Floats) -> float | None:
    return round(float(np.median(values)), 5) if len(values) else None


def _doubt(looked: Evidence, draws: int) -> Figures:
    return compare(looked.wrong, looked.judged.doubts(), looked.patients, draws)

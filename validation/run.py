"""One validation from a table of labelled images to the figures of validation.json."""

import csv
import json
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from inference.analyser import Source
from inference.manifest import Manifest
from ledger.records import ImageResult, ResultStatus
from ledger.store import Store
from validation.advice import advise
from validation.bootstrap import DRAWS
from validation.checks import checked
from validation.figures import Evidence, label_figures
from validation.floors import Floor
from validation.groups import subgroups
from validation.judge import Judge, lined_up, reasons
from validation.masks import dice_figures
from validation.statistics import proportion
from validation.table import NOT_STATED, Table

SCHEMA_VERSION = 1
OWN_AGES = "age group of the package"
HIDDEN_LABELS = ("normal",)  # a class of its own inside some packages: never a finding
VIEWS = (("PA", r"\bPA\b"), ("AP", r"\bAP\b"), ("LATERAL", r"\b(LAT\w*|L|LL|RL)\b"), ("FRONTAL", r"\bFRONTAL\b"))


@dataclass(frozen=True)
class Validation:
    """figures: what validation.json holds. evidence: by label, what the plots are drawn from."""

    figures: dict[str, Any]
    evidence: Mapping[str, Evidence]
    results: Sequence[ImageResult]


def labels_of(manifest: Manifest) -> list[str]:
    """The findings that a table may tell the truth of."""
    return [spec.label for spec in manifest.labels if spec.label not in HIDDEN_LABELS]


def validate(
    judge: Judge,
    table: Table,
    floors: Mapping[str, Floor],
    as_kind: str | None = None,
    store: Store | None = None,
    draws: int = DRAWS,
    tick: Callable[[int], None] = lambda _: None,
) -> Validation:
    """as_kind: what pictures show; None: what the package reads. store: where the judge puts masks."""
    began = time.perf_counter()
    results = judge.look(sources(table, judge.manifest, as_kind), tick)
    seconds = time.perf_counter() - began
    evidence = {label: _evidence(label, table, judge.manifest, results) for label in table.truth}
    labels = {}
    for label, one in evidence.items():
        part = label_figures(one, draws)
        if table.masks is not None and store is not None:
            part["dice"] = dice_figures(results, table.masks, table.patients, label, store, draws)
        part["unlabelled"] = len(table) - len(one.truth)
        labels[label] = part | {"floors": checked(part, floors), "groups": subgroups(one)}
    figures: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "made": _made(judge, draws),
        "package": _package(judge),
        "table": _table(table, judge.manifest),
        "images": _images(results, seconds),
        "labels": labels,
        "floors": {name: floor.value for name, floor in floors.items()},
    }
    figures["recommendations"] = advise(figures, floors)
    return Validation(figures, evidence, results)


def sources(table: Table, manifest: Manifest, as_kind: str | None = None) -> list[Source]:
    """What the node is given: DICOM files speak for themselves, pictures are told what the table knows of them."""
    kind = as_kind or _kind(manifest)
    views = table.traits.get("view", (NOT_STATED,) * len(table))
    return [
        Source(path, f"{kind}/{told}" if (told := _view(view)) and kind.count("/") == 1 else kind, age)
        for path, age, view in zip(table.images, table.ages, views, strict=True)
    ]


def write_json(figures: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_images(validation: Validation, table: Table, path: Path) -> None:
    """One line for each image and label: what was true and what the node said. No patient stands in it."""
    heading = ("image", "label", "truth", "status", "reason", "present", "probability", "sd", "mutual_information")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*heading, "distance"))
        for label, truth in table.truth.items():
            judged = lined_up(validation.results, label)
            for i, (name, result) in enumerate(zip(table.names, validation.results, strict=True)):
                looked = not judged.reasons[i]
                numbers = (judged.probability[i], judged.sd[i], judged.mutual_information[i], judged.distance[i])
                told = "" if np.isnan(truth[i]) else int(truth[i])
                said = int(judged.present[i]) if looked else ""
                cells = ["" if np.isnan(number) else f"{number:.6g}" for number in numbers]
                writer.writerow((name, label, told, result.status.value, judged.reasons[i], said, *cells))


def _evidence(label: str, table: Table, manifest: Manifest, results: Sequence[ImageResult]) -> Evidence:
    truth = table.truth[label]
    traits = dict(table.traits)
    if manifest.age_groups and "age" in traits:
        traits[OWN_AGES] = tuple(_own_age_group(age, manifest) for age in table.ages)
    whole = Evidence(label, truth, lined_up(results, label), table.patients, traits)
    return whole.where(np.isfinite(truth))


def _own_age_group(age: float | None, manifest: Manifest) -> str:
    if age is None:
        return NOT_STATED
    return next((group.name for group in manifest.age_groups if group.holds(age)), "outside its ages")


def _kind(manifest: Manifest) -> str:
    reads = manifest.reads
    modality = "DX" if "DX" in reads.modalities else reads.modalities[0]
    return f"{modality}/{reads.body_parts[0]}"


def _view(text: str) -> str | None:
    words = text.upper().replace("_", " ")
    return next((view for view, pattern in VIEWS if re.search(pattern, words)), None)


def _made(judge: Judge, draws: int) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "opentriage": version("opentriage"),
        "onnxruntime": onnxruntime.__version__,
        "code_path": "inference.analyser over files",
        "provider": judge.provider,
        "degraded": judge.degraded,
        "machine": platform.machine(),
        "settings_hash": judge.settings.results_hash,
        "bootstrap_draws": draws,
    }


def _package(judge: Judge) -> dict[str, Any]:
    manifest = judge.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "digest": judge.package.digest,
        "task": manifest.task,
        "intended_use": manifest.intended_use,
        "not_for": manifest.not_for,
        "may_raise_priority": manifest.may_raise_priority,
        "reads": manifest.reads.model_dump(),
        "uncertainty": manifest.uncertainty.text,
        "abstention": manifest.abstention.model_dump() if manifest.abstention else None,
        "gate": manifest.gate.model_dump() if manifest.gate else None,
        "licence": manifest.licence.weights,
    }


def _table(table: Table, manifest: Manifest) -> dict[str, Any]:
    return {
        "file": table.path.name,
        "sha256": table.sha256,
        "images": len(table),
        "patients": len(set(table.patients)) if table.has_patients else None,
        "has_patients": table.has_patients,
        "rows_without_patient": table.without_patient,
        "traits": list(table.traits),
        "columns_not_used": list(table.unused),
        "labels_without_truth": [label for label in labels_of(manifest) if label not in table.truth],
    }


def _images(results: Sequence[ImageResult], seconds: float) -> dict[str, Any]:
    n = len(results)
    by_status = {status.value: sum(r.status is status for r in results) for status in ResultStatus}
    return {
        "n": n,
        "by_status": by_status,
        "looked_at": proportion(by_status[ResultStatus.ANALYSED.value], n),
        "read": proportion(n - by_status[ResultStatus.FAILED.value], n),
        "reasons": reasons(results),
        "seconds": round(seconds, 1),
    }

"""Figures of a package on images it has not seen, through the node's own code path: validation.json.

Each group of ages stands by itself, and in it each data set and view. Sensitivity and specificity are counted from
`present`; an image that was refused counts as an error in both. Beside every group stands a ridge regression on 8x8
thumbnails, because these sets' acquisition gives much away.
"""

import platform
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydicom import dcmread

from inference.abstain import CODE as ABSTAINED
from inference.distribution import load_distribution
from inference.findings import calibrate
from inference.manifest import LabelSpec, Manifest, read_manifest
from training.data.images import LabelledImages
from training.packaging.baseline import thumbnail_scores
from training.packaging.group_card import not_better
from training.packaging.look import Model
from training.packaging.members import too_large
from training.packaging.package import Splits, in_group, pin, with_rules
from training.packaging.probes import AGE, Probe, header_probes, probes
from training.recipe import AgeGroupPlan, Recipe
from validation.figures import Evidence, label_figures
from validation.groups import subgroups
from validation.judge import Judge, Judged
from validation.roc import auc_by_group
from validation.statistics import proportion

Figures = dict[str, Any]
EVERYBODY = "everybody"
UNSAID = "none: the package was exported without one"
TRAITS = ("domain", "view", "sex")


def validate(
    recipe: Recipe, folder: Path, exact: Sequence[Path], splits: Splits, data: Path, threads: int = 0
) -> Figures:
    """folder: the package. exact: its members' float32 twins, to measure what storing float16 changes; none: it is not.

    The manifest's intended use then ends with what the figures say against it.
    """
    judge = Judge(folder, threads)
    try:
        test = splits.test
        label = judge.manifest.labels[0].label
        judged = judge.files(splits.files(test), ages_told(test), label, "test split")
        children = [path for path, age in zip(splits.files(test), ages_told(test), strict=True) if age == AGE]
        figures: Figures = {
            "package": f"{judge.manifest.name}/{judge.manifest.version}",
            "label": label,
            "made_with": {
                "code_path": "inference.analyser over files, CPU",
                "onnxruntime": onnxruntime.__version__,
                "machine": platform.machine(),
            },
            "splits": {name: _counts(getattr(splits, name)) for name in ("train", "calibration", "test")},
            "groups": [_group(plan, spec, splits, judged, label) for plan, spec in _groups(recipe, judge)],
            "refused": _refusals(judge, label, data, children) if children else [],
        }
        figures["no_abstention"] = _no_abstention(recipe, judge.manifest, folder, splits, threads)
        if len(exact) == len(judge.manifest.members):
            figures["float16_weights"] = _halving(judge, folder, exact, splits.files(test), threads)
        if recipe.model.metadata:
            figures["told_in_training_alone"] = list(recipe.model.metadata)
        if large := too_large(folder):
            figures["too_large"] = large
        say_against(recipe, folder, figures)
        return figures
    finally:
        judge.close()


def say_against(recipe: Recipe, folder: Path, figures: Figures) -> None:
    """Where a group is served no better than by a thumbnail, the intended use says so."""
    said = [recipe.shipped().intended_use, *filter(None, map(not_better, figures["groups"]))]
    manifest = read_manifest(folder)
    pin(manifest.model_copy(update={"intended_use": " ".join(said)}), folder)


def _no_abstention(recipe: Recipe, manifest: Manifest, folder: Path, splits: Splits, threads: int) -> dict[str, str]:
    """Why an age group, or the package ("") itself, has no rule of abstention; of those that have none."""
    shipped = {**{group.name: group.abstention for group in manifest.age_groups}, "": manifest.abstention}
    without = [name for name, rule in shipped.items() if rule is None]
    if recipe.shipped().undoubted is None:
        return dict.fromkeys(without, "none: the recipe asks for none")
    if not without:
        return {}
    outputs = Model(_members(folder, manifest), manifest.input, threads).look(
        splits.files(splits.calibration), "calibration"
    )
    gate = load_distribution((folder / manifest.gate.file).read_bytes()) if manifest.gate else None
    _, chosen = with_rules(recipe, manifest, outputs, splits.calibration, gate)
    return {name: chosen[name].text if chosen[name].rule is None else UNSAID for name in without}


def ages_told(images: LabelledImages) -> list[float | None]:
    """Each patient's age in years; where the set does not say, that of a small child, whom it is made of."""
    ages = images.column("age_years").astype(np.float64)
    return [AGE if np.isnan(age) else float(age) for age in ages]


def _groups(recipe: Recipe, judge: Judge) -> list[tuple[AgeGroupPlan | None, LabelSpec]]:
    manifest = judge.manifest
    if not manifest.age_groups:
        return [(None, manifest.labels[0])]
    specs = {group.name: group.labels[0] for group in manifest.age_groups}
    return [(plan, specs[plan.name]) for plan in recipe.shipped().age_groups]


def _counts(part: LabelledImages) -> list[Figures]:
    rows = []
    for domain, images in part.by_domain().items():
        ill = int(np.nansum(images.labels[:, 0]))
        patients = len(set(images.groups))
        rows.append(
            {"set": domain, "images": len(images), "with": ill, "without": len(images) - ill, "patients": patients}
        )
    return rows


def _group(plan: AgeGroupPlan | None, spec: LabelSpec, splits: Splits, judged: Judged, label: str) -> Figures:
    """One group of ages: its figures over all its test images, and by set, view and sex."""
    chosen = np.ones(len(splits.test), bool) if plan is None else in_group(splits.test, plan)
    test = splits.test.where(chosen)
    evidence = _evidence(test, judged.where(chosen), label)
    withheld = evidence.judged.reasons.count(ABSTAINED)
    domains = plan.domains if plan else tuple(splits.test.by_domain())
    return {
        "name": plan.name if plan else EVERYBODY,
        "ages_years": plan.ages_years if plan else None,
        "may_raise_priority": plan.may_raise_priority if plan else None,
        "operating_point": spec.operating_point.model_dump(),
        "calibration": spec.calibration.model_dump(),
        "test": label_figures(evidence),
        "abstained": proportion(withheld, len(evidence.truth)),
        "subgroups": subgroups(evidence),
        "baseline_8x8_thumbnail": _baseline(splits, domains, test, evidence, spec),
    }


def _evidence(test: LabelledImages, judged: Judged, label: str) -> Evidence:
    truth = test.labels[:, 0].astype(np.float64)
    traits = {name: tuple(str(value) or "not stated" for value in test.column(name)) for name in TRAITS}
    return Evidence(label, truth, judged, test.groups, traits)


def _by_domain(test: LabelledImages) -> dict[str, NDArray[np.bool_]]:
    domains = test.column("domain").astype(str)
    return {name: domains == name for name in dict.fromkeys(domains.tolist())}


def _baseline(
    splits: Splits, domains: Sequence[str], test: LabelledImages, evidence: Evidence, spec: LabelSpec
) -> Figures:
    """The thumbnail's AUC on the images that the model looked at, and what it finds where it finds as large a share
    of the calibration split as the model was asked for."""
    train, held_out = (_of_domains(part, domains) for part in (splits.train, splits.calibration))
    looked = test.where(~evidence.judged.refused)
    truth = looked.labels[:, 0].astype(np.float64)
    fit, ill = train.labels[:, 0].astype(np.float64), truth > 0.5
    calibration = thumbnail_scores(train.pixels, fit, held_out.pixels)
    scores = thumbnail_scores(train.pixels, fit, looked.pixels)
    wanted = spec.operating_point.sensitivity
    point = float(np.quantile(calibration[held_out.labels[:, 0] > 0.5], 1.0 - wanted))
    return {
        "auc": auc_by_group(truth, scores, looked.groups),
        "sensitivity": proportion(int((scores[ill] >= point).sum()), int(ill.sum())),
        "specificity": proportion(int((scores[~ill] < point).sum()), int((~ill).sum())),
        "auc_by_domain": {
            name: auc_by_group(truth[part], scores[part], list(compress(looked.groups, part)))
            for name, part in _by_domain(looked).items()
        },
    }


def _of_domains(images: LabelledImages, domains: Sequence[str]) -> LabelledImages:
    return images.where(np.isin(images.column("domain").astype(str), list(domains)))


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
        for age in ("003Y", "045Y"):
            copy = _aged(dog.files[0], Path(folder) / f"{age}.dcm", age)
            rows.append(_refusal(dog, judge.files([copy], [None], label, "dog"), f"PatientAge set to {age}"))
    return rows


def _aged(source: Path, to: Path, age: str) -> Path:
    ds = dcmread(source)
    ds.PatientAge = age
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


def _members(folder: Path, manifest: Manifest) -> list[Path]:
    return [folder / member for member in manifest.members]


def _halving(judge: Judge, folder: Path, exact: Sequence[Path], files: list[Path], threads: int) -> Figures:
    """The shipped graphs against their float32 twins, over the test split, at the package's own operating point."""
    manifest = judge.manifest
    half, full = (
        Model(paths, manifest.input, threads).look(files, what)
        for paths, what in ((_members(folder, manifest), "as shipped"), (exact, "float32"))
    )
    spec = manifest.labels[0]

    def present(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        means = calibrate(scores[:, :, 0].reshape(-1), spec.calibration).reshape(scores.shape[:2]).mean(axis=1)
        return np.asarray(means >= spec.operating_point.threshold)

    changed_gate = 0
    if manifest.gate is not None:
        distribution = load_distribution((folder / manifest.gate.file).read_bytes())
        beyond = [distribution.distance(part.features) > manifest.gate.threshold for part in (half, full)]
        changed_gate = int((beyond[0] != beyond[1]).sum())
    return {
        "images": len(files),
        "greatest_score_difference": round(float(np.abs(half.scores - full.scores).max()), 6),
        "findings_changed": int((present(half.scores) != present(full.scores)).sum()),
        "refusals_changed": changed_gate,
        "bytes": sum(path.stat().st_size for path in _members(folder, manifest)),
        "bytes_float32": sum(path.stat().st_size for path in exact),
    }

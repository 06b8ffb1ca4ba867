"""From trained weights to a package folder: graph, calibration, gate, golden vectors, licence, manifest with hashes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from inference.distribution import FeatureDistribution, dump_distribution
from inference.findings import calibrate
from inference.manifest import (
    MANIFEST,
    AgeGroup,
    InputSpec,
    LabelSpec,
    Licence,
    Manifest,
    OperatingPoint,
    UncertaintySpec,
    read_manifest,
)
from training.data.images import LabelledImages
from training.data.splits import read_splits
from training.fitting.network import to_range
from training.networks.monte_carlo import METHODS, McTriageNet
from training.packaging.abstain import Calibrated, Chosen, choose_rules
from training.packaging.calibrate import TARGET_SENSITIVITY, choose_calibration, choose_point
from training.packaging.gate_fit import choose_threshold, fit_distribution, gate_spec
from training.packaging.golden import golden
from training.packaging.graphs import Parity, standardised
from training.packaging.legal import licence_text
from training.packaging.look import Outputs, tensor
from training.packaging.members import check_runs, file_of, load_net, passes_in_words, write_members
from training.recipe import AgeGroupPlan, Recipe

CHANGES = "images resized, split by patient group"
PARITY_IMAGES = 240  # of the test split, evenly spread
GATE_IMAGES = 2000  # of the training split: axes and means need no more


@dataclass(frozen=True)
class Splits:
    """The recipe's splits over all its data sets; `by_domain` of each part tells the sets apart."""

    train: LabelledImages
    calibration: LabelledImages
    test: LabelledImages

    def files(self, part: LabelledImages) -> list[Path]:
        return [Path(file) for file in part.column("file").tolist()]

    def domain(self, name: str) -> "Splits":
        """The same of one data set alone."""
        return Splits(*(part.only("domain", name) for part in (self.train, self.calibration, self.test)))


def splits_of(recipe: Recipe, data: Path) -> Splits:
    """Only images of which a label is known: of the others nothing can be measured."""
    parts = {name: part.labelled() for name, part in read_splits(recipe, data).items()}
    return Splits(parts["train"], parts["calibration"], parts["test"])


def spread(images: LabelledImages, at_most: int) -> LabelledImages:
    """Evenly spread over the split, so that every data set keeps its share."""
    return images.take(np.unique(np.linspace(0, len(images) - 1, at_most).astype(np.int64)))


@torch.inference_mode()
def train_features(net: McTriageNet, train: LabelledImages, recipe: Recipe) -> NDArray[np.float32]:
    """Standardises the graph's features on the training split and returns them, (N, C).

    In bfloat16, as in training: means and axes over thousands of images do not feel its rounding. The threshold, which
    would, comes from the shipped graph itself.
    """
    raw = []
    for start in tqdm(range(0, len(train), 32), desc="training features", unit="batch", mininterval=5):
        pixels = torch.from_numpy(train.pixels[start : start + 32]).float().unsqueeze(1) / 255.0
        with torch.autocast("cpu", torch.bfloat16):
            stem, maps = net.net.stem_and_maps(to_range(pixels, recipe))
        stem, maps = stem.float(), maps.float()
        raw.append(net.raw_features(stem, maps.mean(dim=(2, 3))))
    return standardised(net, raw)


def input_spec(recipe: Recipe) -> InputSpec:
    return InputSpec(
        height=recipe.size,
        width=recipe.size,
        fit="squash",
        window="header",
        percentiles=recipe.percentiles,
        histogram=recipe.histogram,
        value_range=recipe.value_range,
        test_time=recipe.shipped().test_time,
    )


def label_specs(
    recipe: Recipe,
    outputs: Outputs,
    truth: NDArray[np.float32],
    groups: Sequence[str],
    target_sensitivity: float = TARGET_SENSITIVITY,
) -> tuple[LabelSpec, ...]:
    """Calibration and operating point of each label, from the calibration split.

    truth: (N, L), NaN: not known. groups: the patient of each of the N.
    """
    specs = []
    for i, code in enumerate(recipe.shipped().codes):
        known = ~np.isnan(truth[:, i])
        scores, ill = outputs.scores[known, :, i].astype(np.float64), truth[known, i].astype(np.float64)
        calibration = choose_calibration(scores, ill, list(compress(groups, known)))
        point = choose_point(calibrate(scores, calibration).mean(axis=1), ill, target_sensitivity)
        specs.append(
            LabelSpec(
                label=code.label,
                code=code.code,
                site=code.site,
                operating_point=OperatingPoint(**vars(point)),
                calibration=calibration,
            )
        )
    return tuple(specs)


def age_groups(recipe: Recipe, outputs: Outputs, calibration: LabelledImages) -> tuple[AgeGroup, ...]:
    """Each group by its own domains, and of those only the patients of its ages (an unknown age is the domain's)."""
    groups = []
    for plan in recipe.shipped().age_groups:
        chosen = in_group(calibration, plan)
        part = Outputs(outputs.scores[chosen], outputs.features[chosen])
        truth, patients = calibration.labels[chosen], list(compress(calibration.groups, chosen))
        labels = label_specs(recipe, part, truth, patients, plan.target_sensitivity)
        groups.append(
            AgeGroup(
                name=plan.name,
                ages_years=plan.ages_years,
                labels=labels,
                may_raise_priority=plan.may_raise_priority,
            )
        )
    return tuple(groups)


def with_rules(
    recipe: Recipe,
    manifest: Manifest,
    outputs: Outputs,
    calibration: LabelledImages,
    distribution: FeatureDistribution | None,
) -> tuple[Manifest, dict[str, Chosen]]:
    """The manifest with its rules of abstention, and what they rest on; as it is where the recipe wants none."""
    package = recipe.shipped()
    if package.undoubted is None:
        return manifest, {}
    distance = distribution.distance(outputs.features) if distribution else None
    seen = Calibrated(outputs.scores, calibration.labels, calibration.groups, distance)
    return choose_rules(manifest, seen, [in_group(calibration, plan) for plan in package.age_groups], package.undoubted)


def in_group(images: LabelledImages, plan: AgeGroupPlan) -> NDArray[np.bool_]:
    """(N,): who belongs to the group."""
    ages = images.column("age_years").astype(np.float64)
    fits = np.isnan(ages) | ((ages >= plan.ages_years[0]) & (ages < plan.ages_years[1]))
    return np.asarray(np.isin(images.column("domain").astype(str), plan.domains) & fits)


def write_core(recipe: Recipe, runs: Sequence[Path], splits: Splits, folder: Path, threads: int = 0) -> Parity:
    """Everything but card and validation. runs: one, or the members of an ensemble, whose outputs together are what is
    calibrated. Returns the parity that was measured; raises when it is too poor."""
    check_runs(recipe, runs)
    folder.mkdir(parents=True, exist_ok=True)
    net, spec = load_net(recipe, runs[0]), input_spec(recipe)
    features = train_features(net, spread(splits.train, GATE_IMAGES), recipe)
    some = spread(splits.test, PARITY_IMAGES).pixels.astype(np.float32)
    images = np.stack([tensor(p / np.float32(255.0), spec) for p in some])
    model, measured = write_members(net, recipe, runs, spec, folder, images, threads)
    outputs = model.look(splits.files(splits.calibration), "calibration")
    distribution = fit_distribution(features, outputs.features)
    (folder / "gate.npz").write_bytes(dump_distribution(distribution))
    (folder / "golden.npz").write_bytes(golden(model, spec))
    (folder / "LICENSE").write_text(licence_text(recipe.shipped().weights_licence, recipe.shipped().sources, CHANGES))
    truth, patients = splits.calibration.labels, splits.calibration.groups
    labels = label_specs(recipe, outputs, truth, patients)
    manifest = _manifest(
        recipe,
        spec,
        labels,
        age_groups(recipe, outputs, splits.calibration),
        choose_threshold(distribution.distance(outputs.features)),
        tuple(file_of(i) for i in range(len(runs))),
    )
    pin(with_rules(recipe, manifest, outputs, splits.calibration, distribution)[0], folder)
    return measured


def _manifest(
    recipe: Recipe,
    spec: InputSpec,
    labels: tuple[LabelSpec, ...],
    groups: tuple[AgeGroup, ...],
    threshold: float,
    members: tuple[str, ...],
) -> Manifest:
    package, model = recipe.shipped(), recipe.model
    return Manifest(
        name=recipe.name,
        version=package.version,
        created=package.created,
        intended_use=package.intended_use,
        not_for=package.not_for,
        licence=Licence(weights=package.weights_licence, non_commercial=package.non_commercial, data=package.sources),
        files=dict.fromkeys([*members, "gate.npz"], "0" * 64),
        members=members,
        input=spec,
        labels=labels,
        uncertainty=UncertaintySpec(
            method=METHODS[model.dropout_place],
            passes=model.mc_passes,
            dropout=model.dropout,
            seed=model.mc_seed,
            text=passes_in_words(recipe, len(members)),
        ),
        reads=package.reads,
        gate=gate_spec(threshold),
        age_groups=groups,
        may_raise_priority=package.may_raise_priority,
    )


def pin(manifest: Manifest, folder: Path) -> Manifest:
    """Write manifest.json with the hash of every other file of the folder."""
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST
    }
    pinned = manifest.model_copy(update={"files": files})
    (folder / MANIFEST).write_text(pinned.to_json())
    return read_manifest(folder)

"""What a quicker precision costs in what is said: probabilities and AUC against float32, over held-out images.

Run: PYTHONPATH=. python -m benchmarks.precision DATA [--of adults] [--images 400]. DATA: the folder that holds
chest_pneumonia and chest_adult, each with labels.csv; splits and labels by training/recipes/chest-pneumonia.toml, of
the adults those of 18 years and more. int8 takes its ranges from training images.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.inference import graph_of
from benchmarks.int8 import quantised
from config.settings import LookSettings
from inference.engines import Engine, Resources, fast, opened, openvino_engine
from inference.findings import calibrate
from inference.fit_input import resize
from inference.manifest import Calibration
from inference.package import Package, load_packages
from inference.tensor import to_tensor
from training.data.images import split_of
from training.data.readers import READERS
from training.recipe import read_recipe
from validation.roc import auc

CALIBRATION = 128
RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "chest-pneumonia.toml"
AGES = {"children": 3.0, "adults": 40.0}  # whose calibration and operating point of the package count
ADULT = 18.0  # years


@dataclass(frozen=True)
class Picture:
    file: Path
    ill: bool
    part: str  # of the split: train, calibration or test


def pictures(data: Path, of: str) -> list[Picture]:
    """of: children or adults; images of which the label is not known, and of the adults the young, are left out."""
    recipe, reader = read_recipe(RECIPE), {"children": "chest_pneumonia", "adults": "chest_adult"}[of]
    plan = next(plan for plan in recipe.data if plan.reader == reader)  # of both views of the adults all else is alike
    return [
        Picture(row.file, row.labels[0] > 0.5, split_of(row.group, plan.split, plan.salt or recipe.name))
        for row in READERS[reader](data / plan.folder, recipe.labels, plan)
        if not math.isnan(row.labels[0]) and (of == "children" or row.age_years >= ADULT)
    ]


def tensors(some: list[Picture], package: Package) -> NDArray[np.float32]:
    spec, made = package.manifest.input, []
    for one in some:
        with Image.open(one.file) as picture:
            grey = np.asarray(picture.convert("L"), np.float32) / np.float32(255.0)
        made.append(to_tensor(resize(grey, spec.height, spec.width, spec.fit), spec))
    return np.stack(made)


def probabilities(engine: Engine, images: NDArray[np.float32], calibration: Calibration) -> NDArray[np.float64]:
    scores = np.concatenate([engine.run(images[start : start + 8])[0] for start in range(0, len(images), 8)])
    return np.array([calibrate(one[:, 0], calibration).mean() for one in scores])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--of", choices=sorted(AGES), default="children")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    [package, *_] = load_packages(LookSettings(models=("chest-pneumonia",)))
    everybody, rng, resources = pictures(options.data, options.of), np.random.default_rng(3), Resources(options.threads)
    trained = [one for one in everybody if one.part == "train"]
    tested = [one for one in everybody if one.part == "test"]
    some = [trained[i] for i in rng.choice(len(trained), min(CALIBRATION, len(trained)), replace=False)]
    held = [tested[i] for i in rng.choice(len(tested), min(options.images, len(tested)), replace=False)]
    truth = np.array([float(one.ill) for one in held])
    images, graph = tensors(held, package), graph_of(package, package.model)
    small = graph_of(package, quantised(package.model, tensors(some, package)))
    there: dict[str, Engine] = {"onnxruntime float32": opened(graph, "cpu", "float32", resources)}
    if openvino_engine.installed():
        there["openvino float32"] = opened(graph, "openvino", "float32", resources)
        there[f"openvino {fast('openvino')}"] = opened(graph, "openvino", fast("openvino"), resources)
    there["onnxruntime int8"] = opened(small, "cpu", "float32", resources)
    spec = package.manifest.at_age(AGES[options.of]).labels[0]
    name = f"{package.manifest.name} {package.manifest.version}"
    print(f"{name}, {len(held)} held-out images of {options.of}, {int(truth.sum())} with pneumonia\n")
    print("| | AUC | greatest difference of a probability | differ by more than 0.01 | other side of the point |")
    print("|---|--:|--:|--:|--:|")
    point = spec.operating_point.threshold
    reference: NDArray[np.float64] | None = None
    for name, engine in there.items():
        found = probabilities(engine, images, spec.calibration)
        reference = found if reference is None else reference
        apart, crossed = np.abs(found - reference), (found >= point) != (reference >= point)
        area = auc(truth, found)
        print(f"| {name} | {area:.4f} | {apart.max():.4f} | {(apart > 0.01).sum()} | {crossed.sum()} |", flush=True)


if __name__ == "__main__":
    main()

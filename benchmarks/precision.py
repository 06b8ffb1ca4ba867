"""What a quicker precision costs in what is said: probabilities and AUC against float32, over held-out images.

Run: PYTHONPATH=. python -m benchmarks.precision DATA [--images 400]. DATA: the folder that holds chest_pneumonia, with
labels.csv (image, label, patient_group); splits by the recipe's rule. int8 takes its ranges from training images.
"""

import argparse
import csv
import hashlib
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
from inference.package import Package, load_packages
from inference.tensor import to_tensor
from validation.roc import auc

CALIBRATION = 128


def position(group: str) -> float:
    """In [0, 1): below 0.75 the patient was trained on, from 0.85 on tested (training/recipes/chest-pneumonia.toml)."""
    return int.from_bytes(hashlib.sha256(f"chest-pneumonia:{group}".encode()).digest()[:8], "big") / 2**64


def tensors(rows: list[dict[str, str]], folder: Path, package: Package) -> NDArray[np.float32]:
    spec, made = package.manifest.input, []
    for row in rows:
        with Image.open(folder / "images" / row["image"]) as picture:
            grey = np.asarray(picture.convert("L"), np.float32) / np.float32(255.0)
        made.append(to_tensor(resize(grey, spec.height, spec.width, spec.fit), spec))
    return np.stack(made)


def probabilities(engine: Engine, images: NDArray[np.float32], package: Package) -> NDArray[np.float64]:
    scores = np.concatenate([engine.run(images[start : start + 8])[0] for start in range(0, len(images), 8)])
    calibration = package.manifest.labels[0].calibration
    return np.array([calibrate(one[:, 0], calibration).mean() for one in scores])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    [package, *_] = load_packages(LookSettings(models=("chest-pneumonia",)))
    folder, rng, resources = options.data / "chest_pneumonia", np.random.default_rng(3), Resources(options.threads)
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    trained = [row for row in rows if position(row["patient_group"]) < 0.75]
    tested = [row for row in rows if position(row["patient_group"]) >= 0.85]
    some = [trained[i] for i in rng.choice(len(trained), CALIBRATION, replace=False)]
    held = [tested[i] for i in rng.choice(len(tested), min(options.images, len(tested)), replace=False)]
    truth = np.array([float(row["label"] == "pneumonia") for row in held])
    images, graph = tensors(held, folder, package), graph_of(package, package.model)
    small = graph_of(package, quantised(package.model, tensors(some, folder, package)))
    there: dict[str, Engine] = {"onnxruntime float32": opened(graph, "cpu", "float32", resources)}
    if openvino_engine.installed():
        there["openvino float32"] = opened(graph, "openvino", "float32", resources)
        there[f"openvino {fast('openvino')}"] = opened(graph, "openvino", fast("openvino"), resources)
    there["onnxruntime int8"] = opened(small, "cpu", "float32", resources)
    print(f"{package.key}, {len(held)} held-out images\n")
    print("| | AUC | greatest difference of a probability | differ by more than 0.01 | other side of the point |")
    print("|---|--:|--:|--:|--:|")
    point = package.manifest.labels[0].operating_point.threshold
    reference: NDArray[np.float64] | None = None
    for name, engine in there.items():
        found = probabilities(engine, images, package)
        reference = found if reference is None else reference
        apart, crossed = np.abs(found - reference), (found >= point) != (reference >= point)
        area = auc(truth, found)
        print(f"| {name} | {area:.4f} | {apart.max():.4f} | {(apart > 0.01).sum()} | {crossed.sum()} |", flush=True)


if __name__ == "__main__":
    main()

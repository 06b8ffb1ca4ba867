"""What the shipped model costs: T passes against one, and the parts of looking at one radiograph.

Run: make bench-inference. Ratios are taken pair by pair inside one run, because the machine's speed drifts.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from config import Settings
from inference.analyser import Analyser, Source
from inference.package import load_packages
from ledger.store import Store

Bench = Callable[[], object]


def with_passes(model: bytes, passes: int) -> bytes:
    """The same graph with only the first `passes` masks of its bank."""
    graph = onnx.load_from_string(model)
    for tensor in graph.graph.initializer:
        if tensor.name.startswith("masks"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:passes], tensor.name))
    for output in graph.graph.output:
        if output.name == "scores":
            output.type.tensor_type.shape.dim[1].dim_value = passes
    return graph.SerializeToString()


def session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])


def milliseconds(run: Bench) -> float:
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * 1000.0


def said(name: str, values: list[float], unit: str = "ms") -> None:
    ordered = sorted(values)
    median = statistics.median(ordered)
    print(f"{name:<58} {median:9.3f} {unit:<3} min {ordered[0]:.3f} max {ordered[-1]:.3f} n {len(ordered)}")


def pairs(one: Bench, other: Bench, rounds: int) -> tuple[list[float], list[float]]:
    """Timed in turn, A B A B, after two unmeasured rounds."""
    for _ in range(2):
        one(), other()
    timed = [(milliseconds(one), milliseconds(other)) for _ in range(rounds)]
    return [a for a, _ in timed], [b for _, b in timed]


def heads(model: bytes, image: np.ndarray, rounds: int, threads: int) -> None:
    many, one = session(with_passes(model, 50), threads), session(with_passes(model, 1), threads)
    for batch in (1, 8):
        images = np.repeat(image[np.newaxis], batch, axis=0)
        a, b = pairs(
            lambda i=images: many.run(None, {"image": i}), lambda i=images: one.run(None, {"image": i}), rounds
        )
        said(f"T=50, batch {batch}, per image", [value / batch for value in a])
        said(f"T=1,  batch {batch}, per image", [value / batch for value in b])
        said(f"T=50 / T=1, batch {batch}", [x / y for x, y in zip(a, b, strict=True)], "x")


def whole_look(paths: list[Path], rounds: int) -> None:
    """Header, decoding in the child, preprocessing, model, findings, and the picture for flagged images."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.prepare()
        analyser = Analyser(Settings(), load_packages(Settings().look), store)
        try:
            for path in paths:
                analyser.analyse([Source(path)])
                values = [milliseconds(lambda p=path: analyser.analyse([Source(p)])) for _ in range(rounds)]
                said(f"analyse {path.name}", values)
        finally:
            analyser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    [package, *_] = load_packages(Settings().look)
    spec = package.manifest.input
    image = np.random.default_rng(1).uniform(*spec.value_range, (1, spec.height, spec.width)).astype(np.float32)
    print(f"{package.key}, onnxruntime {onnxruntime.__version__}, CPU, {options.threads} threads")
    heads(package.model, image, options.rounds, options.threads)
    samples = Path(__file__).resolve().parent.parent / "node" / "samples"
    whole_look(sorted(samples.glob("*.dcm")), options.rounds)


if __name__ == "__main__":
    main()

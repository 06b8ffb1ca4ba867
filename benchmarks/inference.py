"""What looking costs: T passes against one and against the usual loop, every provider here, and the parts beside it.

Run: make bench-inference; ARGS="--markdown" prints tables. Everything is timed in turn inside one run, because the
machine's speed drifts. The usual loop needs torch: PYTHONPATH=. .venv-train/bin/python -m benchmarks.inference.
"""

import argparse
import platform
import tempfile
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks import parts
from benchmarks.int8 import quantised
from benchmarks.timing import Bench, Report, interleaved
from config.settings import LookSettings
from inference.engines import Graph, Resources, candidates, fast, opened, openvino_engine
from inference.errors import PackageError, ProviderError
from inference.package import Package, load_packages

BATCHES = (1, 8, 32)
PASSES = 50


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


def graph_of(package: Package, model: bytes) -> Graph:
    spec, names = package.manifest.input, package.manifest.outputs
    shape = (spec.channels, spec.height, spec.width)
    return Graph(package.folder / "model.onnx", model, spec.name, shape, (names.scores, names.features, names.cam))


def session(model: bytes, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])


def passes(package: Package, images: NDArray[np.float32], rounds: int, threads: int, report: Report) -> None:
    many = session(with_passes(package.model, PASSES), threads)
    one = session(with_passes(package.model, 1), threads)
    report.heading(f"T={PASSES} against T=1, onnxruntime")
    for batch in (1, 8):
        some = images[:batch]
        timed = interleaved(
            {
                "many": (lambda some=some: many.run(None, {"image": some}), batch),
                "one": (lambda some=some: one.run(None, {"image": some}), batch),
            },  # type: ignore[dict-item]
            rounds,
        )
        report.row(f"T={PASSES}, batch {batch}, an image", timed["many"])
        report.row(f"T=1, batch {batch}, an image", timed["one"])
        report.ratio(f"T={PASSES} / T=1, batch {batch}", timed["many"], timed["one"])


def usual_loop(package: Package, images: NDArray[np.float32], threads: int, report: Report) -> None:
    """T passes of a whole torch network with its dropout switched on, against ours; twice, for it takes seconds."""
    report.heading(f"The usual loop of T={PASSES} torch passes, batch 1")
    if find_spec("torch") is None:
        report.note("skipped: torch is not installed here")
        return
    import torch

    from training.networks.densenet import AttentionDenseNet

    torch.set_num_threads(threads)
    net = AttentionDenseNet(len(package.manifest.labels)).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.train()
    image, ours = torch.from_numpy(images[:1]), session(package.model, threads)

    def loop() -> None:
        with torch.inference_mode():
            for _ in range(PASSES):
                net(image)

    timed = interleaved({"loop": (loop, 1), "ours": (lambda: ours.run(None, {"image": images[:1]}), 1)}, 2)
    report.row("torch, float32, an image", timed["loop"])
    report.row("the package, onnxruntime float32, an image", timed["ours"])
    report.ratio("loop / ours", timed["loop"], timed["ours"])


def engines(package: Package, threads: int, report: Report) -> dict[str, Any]:
    """Every engine that opens here, as the node would run it; int8 through onnxruntime, ranges from noise."""
    resources = Resources(threads, max(BATCHES))
    wanted: list[tuple[Any, Any]] = [("cpu", "float32"), ("openvino", "float32")]
    if openvino_engine.installed() and fast("openvino") != "float32":
        wanted.append(("openvino", fast("openvino")))
    wanted += [("cuda", "float32"), ("tensorrt", "float16")]
    there: dict[str, Any] = {}
    for provider, precision in wanted:
        try:
            candidates(provider)
            there[f"{provider} {precision}"] = opened(graph_of(package, package.model), provider, precision, resources)
        except (ProviderError, PackageError) as error:
            report.note(f"{provider} {precision}: not here ({str(error)[:80]})")
    spec = package.manifest.input
    noise = np.random.default_rng(3).uniform(*spec.value_range, (16, 1, spec.height, spec.width)).astype(np.float32)
    small = quantised(package.model, noise)
    there["cpu int8"] = opened(graph_of(package, small), "cpu", "float32", resources)
    return there


def providers(package: Package, images: NDArray[np.float32], rounds: int, threads: int, report: Report) -> None:
    report.heading("An image through each provider, as the node runs it")
    there = engines(package, threads, report)
    for batch in BATCHES:
        some = images[:batch]
        benches: dict[str, tuple[Bench, int]] = {
            f"{name}, batch {batch}": (lambda engine=engine, some=some: engine.run(some), batch)  # type: ignore[misc]
            for name, engine in there.items()
        }
        timed = interleaved(benches, max(3, rounds if batch < 32 else rounds // 3))
        report.rows(timed)
        first = timed[f"cpu float32, batch {batch}"]
        for name, one in timed.items():
            if one is not first:
                report.ratio(f"cpu float32 / {name}", first, one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    [package, *_] = load_packages(LookSettings(models=("chest-pneumonia",)))
    name = f"{package.manifest.name} {package.manifest.version}"
    spec, report = package.manifest.input, Report(options.markdown, f"{name}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    images = np.random.default_rng(1).uniform(*spec.value_range, (32, 1, spec.height, spec.width)).astype(np.float32)
    print(f"{name}, onnxruntime {onnxruntime.__version__}, {platform.machine()}, {options.threads} threads")
    passes(package, images, options.rounds, options.threads, report)
    usual_loop(package, images, options.threads, report)
    providers(package, images, options.rounds, options.threads, report)
    with tempfile.TemporaryDirectory() as folder:
        made = parts.files(Path(folder))
        parts.decoding(made, max(3, options.rounds // 3), report)
        parts.preprocessing(made["uncompressed"], package, options.rounds, report)
        parts.reports(options.rounds, report)
        parts.whole_look(made, package, max(3, options.rounds // 3), report)


if __name__ == "__main__":
    main()

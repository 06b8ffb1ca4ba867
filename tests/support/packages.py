"""Tiny synthetic model packages with the inputs and outputs of a real one; nothing medical about them.

The "model" averages brightness over a 7 x 7 grid: the brighter the picture, the higher the score of every label, and
the activation map is the grid itself.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from inference.distribution import FeatureDistribution, dump_distribution
from inference.manifest import Manifest, parse_manifest

SIDE, GRID, PASSES = 56, 7, 8
PNEUMONIA = {"value": "233604007", "scheme": "SCT", "meaning": "Pneumonia"}


FAULTS = {
    "sigmoid": [],
    "nan": [
        helper.make_node("Sub", ["squashed", "squashed"], ["zero"]),
        helper.make_node("Div", ["zero", "zero"], ["scores"]),
    ],
    "nan_for_greys": [
        helper.make_node("ReduceMax", ["image", "all_axes"], ["most"], keepdims=1),
        helper.make_node("ReduceMin", ["image", "all_axes"], ["least"], keepdims=1),
        helper.make_node("Sub", ["most", "least"], ["spread"]),
        helper.make_node("Div", ["spread", "spread"], ["ratio"]),
        helper.make_node("Squeeze", ["ratio", "one"], ["ratios"]),
        helper.make_node("Mul", ["squashed", "ratios"], ["scores"]),
    ],
    "nan_when_bright": [  # the root of a negative number where the picture is bright, but not white
        helper.make_node("ReduceMean", ["image", "all_axes"], ["brightness"], keepdims=1),
        helper.make_node("Sub", ["brightness", "bright"], ["above"]),
        helper.make_node("Sub", ["brightness", "white"], ["below"]),
        helper.make_node("Mul", ["above", "below"], ["room"]),
        helper.make_node("Sqrt", ["room"], ["root"]),
        helper.make_node("Div", ["root", "root"], ["ratio"]),
        helper.make_node("Squeeze", ["ratio", "one"], ["ratios"]),
        helper.make_node("Mul", ["squashed", "ratios"], ["scores"]),
    ],
    "logits": [helper.make_node("Identity", ["logits"], ["scores"])],
}


def tiny_model(
    labels: int = 1,
    gain: float = 8.0,
    offset: float = 0.0,
    spread: float = 0.05,
    passes: int = PASSES,
    side: int = SIDE,
    scores: str = "sigmoid",
    domain: str = "",
) -> onnx.ModelProto:
    """image (N,1,side,side) -> scores (N,passes,labels), cam (N,labels,7,7), features (N,2).

    score = sigmoid(gain * mask * mean of the image + offset); `spread`: how far the masks lie apart, 0 makes the
    passes identical; scores: "sigmoid"; "nan" for a model that returns no numbers, "nan_for_greys" for one that
    divides by the picture's spread, "nan_when_bright" for one that fails only later, "logits" for one that forgot
    its sigmoid.
    """
    step = side // GRID
    masks = np.linspace(1.0 - spread, 1.0 + spread, passes, dtype=np.float32).reshape(1, passes, 1)
    constants = {
        "averages": np.stack([np.full((1, step, step), 1.0 / step**2), np.full((1, step, step), -1.0 / step**2)]),
        "masks": masks,
        "head": np.stack([np.full(labels, gain), np.zeros(labels)]),
        "offset": np.full(labels, offset),
        "head_maps": np.stack([np.full(labels, gain), np.zeros(labels)], axis=1).reshape(labels, 2, 1, 1),
        "one": np.array([1], np.int64),
        "bright": np.array([0.2]),
        "white": np.array([0.999]),
        "all_axes": np.array([1, 2, 3], np.int64),
        "spatial": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["image", "averages"], ["maps"], kernel_shape=[step, step], strides=[step, step]),
        helper.make_node("ReduceMean", ["maps", "spatial"], ["features"], keepdims=0),
        helper.make_node("Unsqueeze", ["features", "one"], ["row"]),
        helper.make_node("Mul", ["row", "masks"], ["masked"]),
        helper.make_node("MatMul", ["masked", "head"], ["product"]),
        helper.make_node("Add", ["product", "offset"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores" if scores == "sigmoid" else "squashed"]),
        helper.make_node("Conv", ["maps", "head_maps"], ["cam"], kernel_shape=[1, 1]),
    ]
    nodes += FAULTS[scores]
    if domain:
        nodes[-1].domain = domain
    initialisers = [
        numpy_helper.from_array(array if array.dtype == np.int64 else array.astype(np.float32), name)
        for name, array in constants.items()
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, side, side])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", passes, labels]),
            helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["N", labels, GRID, GRID]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 2]),
        ],
        initialisers,
    )
    opsets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def label(name: str = "pneumonia", threshold: float = 0.5, high: float | None = None) -> dict[str, Any]:
    code = PNEUMONIA if name == "pneumonia" else {"value": name[:16], "scheme": "99TEST", "meaning": name}
    return {
        "label": name,
        "code": code,
        "site": {"value": "39607008", "scheme": "SCT", "meaning": "Lung"},
        "operating_point": {"threshold": threshold, "sensitivity": 0.9, "specificity": 0.9, "chosen_on": "nothing"},
        "high_operating_point": high,
        "calibration": {"method": "none", "temperature": 1.0, "bias": 0.0},
    }


def write_package(
    root: Path,
    name: str = "tiny-chest",
    version: str = "1.0.0",
    *,
    labels: Sequence[dict[str, Any]] | None = None,
    model: onnx.ModelProto | bytes | None = None,
    gate_threshold: float | None = None,
    passes: int = PASSES,
    input_spec: dict[str, Any] | None = None,
    reads: dict[str, Any] | None = None,
    **overrides: Any,
) -> Path:
    """Write <root>/<name>/<version> and return it. gate_threshold: with a gate around mid-grey, else without one.

    `overrides` replace top-level keys of the manifest; `input_spec` and `reads` keys of those two.
    """
    folder = root / name / version
    folder.mkdir(parents=True)
    specs = list(labels) if labels is not None else [label()]
    proto = model if model is not None else tiny_model(len(specs), passes=passes)
    content = proto if isinstance(proto, bytes) else proto.SerializeToString()
    files = {"model.onnx": content, "golden.npz": _golden(content, passes, len(specs))}
    if gate_threshold is not None:
        files["gate.npz"] = dump_distribution(mid_grey())
    for file, data in files.items():
        (folder / file).write_bytes(data)
    manifest: dict[str, Any] = {
        "schema_version": 1,
        "name": name,
        "version": version,
        "created": "2026-11-20",
        "intended_use": "Tests of the node.",
        "not_for": "Patients.",
        "licence": {"weights": "Apache-2.0", "non_commercial": False, "data": []},
        "files": {file: hashlib.sha256(data).hexdigest() for file, data in files.items()},
        "input": {
            "name": "image",
            "height": SIDE,
            "width": SIDE,
            "channels": 1,
            "fit": "squash",
            "window": "header",
            "percentiles": None,
            "value_range": [-1.0, 1.0],
            **(input_spec or {}),
        },
        "labels": specs,
        "uncertainty": {
            "method": "mc-dropout-head",
            "passes": passes,
            "dropout": 0.5,
            "seed": 1,
            "text": f"standard deviation over {passes} masked heads",
        },
        "reads": {
            "modalities": ["CR", "DX"],
            "body_parts": ["CHEST"],
            "views": ["PA", "AP"],
            "ages_years": [1.0, 6.0],
            "min_side_pixels": 128,
            **(reads or {}),
        },
        "gate": {"file": "gate.npz", "threshold": gate_threshold, "text": "tests"} if gate_threshold else None,
        "may_raise_priority": True,
        **overrides,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write_ensemble(
    root: Path, models: Sequence[onnx.ModelProto], *, golden: Path | None = None, **options: Any
) -> Path:
    """A package whose members are member-0.onnx, member-1.onnx, ... golden: examples to pin instead of its own."""
    folder = write_package(root, model=models[0], **options)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    members = [f"member-{i}.onnx" for i in range(len(models))]
    (folder / "model.onnx").unlink()
    for name, model in zip(members, models, strict=True):
        (folder / name).write_bytes(model.SerializeToString())
    manifest["files"] = dict.fromkeys([*members, *(name for name in manifest["files"] if name != "model.onnx")], "")
    path.write_text(json.dumps({**manifest, "members": members}))
    repin(folder)
    (folder / "golden.npz").write_bytes(golden.read_bytes() if golden else _golden_of_all(folder))
    repin(folder)
    return folder


def _golden_of_all(folder: Path) -> bytes:
    from inference.engines import Resources
    from inference.errors import PackageError
    from inference.package import load_package
    from inference.session import ModelSession

    try:
        run = ModelSession(load_package(folder), "cpu", Resources(1)).run
        images = np.random.default_rng(7).uniform(-1, 1, (2, 1, SIDE, SIDE)).astype(np.float32)
        scores = run(images).scores
    except PackageError:  # a member that does not fit: the test is about that
        return (folder / "golden.npz").read_bytes()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=images, scores=scores)
    return buffer.getvalue()


def mid_grey() -> FeatureDistribution:
    """The features of pictures around mid-grey: the mean brightness is about 0 in the value range -1 to 1."""
    axis = np.array([[1.0, -1.0]], np.float32) / np.sqrt(2.0).astype(np.float32)
    return FeatureDistribution(np.zeros(2, np.float32), axis, np.array([0.1], np.float32), 0.1)


def repin(folder: Path, **changes: Any) -> Manifest:
    """Rewrite a package's manifest so that it pins the files as they are now, with `changes` to top-level keys."""
    path = folder / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["files"]}
    path.write_text(json.dumps(manifest))
    return parse_manifest(path.read_bytes())


def _golden(content: bytes, passes: int, labels: int) -> bytes:
    """Two pictures of noise and what the model says of them; zeros when the model cannot run."""
    images = np.random.default_rng(7).uniform(-1, 1, (2, 1, SIDE, SIDE)).astype(np.float32)
    scores = _run(content, images)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=images, scores=np.zeros((2, passes, labels)) if scores is None else scores)
    return buffer.getvalue()


def _run(content: bytes, images: NDArray[np.float32]) -> NDArray[np.float32] | None:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(["scores"], {"image": images})[0])
    except Exception:  # noqa: BLE001 -- onnxruntime raises a type of its own for each fault
        return None

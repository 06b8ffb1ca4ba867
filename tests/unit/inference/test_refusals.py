"""Packages that are what no package may be, made for real and refused at load."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from inference.engines import Resources
from inference.errors import PackageError
from inference.package import load_package
from inference.session import ModelSession
from inference.verify import verify
from tests.support.packages import PASSES, SIDE, repin, tiny_model, write_package
from tests.support.slice_packages import tiny_slice_model, write_slice_package


def opened(folder: Path) -> ModelSession:
    session = ModelSession(load_package(folder), "cpu", Resources(1))
    session.self_test()
    return session


def external() -> onnx.ModelProto:
    model = tiny_model()
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    tensor.ClearField("raw_data")
    return model


def blind() -> onnx.ModelProto:
    """Passes that differ, and are the same for every picture: a head that sees nothing."""
    model = tiny_model()
    for tensor in model.graph.initializer:
        if tensor.name == "masks":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((1, PASSES, 1), np.float32), "masks"))
        if tensor.name == "offset":
            ramp = np.linspace(-6.0, -5.5, PASSES, dtype=np.float32).reshape(1, PASSES, 1)
            tensor.CopyFrom(numpy_helper.from_array(ramp, "offset"))
    return model


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (tiny_model(spread=0.0), "passes are identical"),
        (tiny_model(scores="nan"), "not finite for a picture of noise"),
        (tiny_model(scores="nan_for_greys"), "not finite for a picture of one grey"),
        (tiny_model(scores="logits"), "scores are not between 0 and 1"),
        (tiny_model(gain=0.0, spread=0.5, offset=1.0), "identical"),
        (blind(), "says the same of noise, black, grey and white"),
        (external(), "external data"),
    ],
    ids=["identical passes", "NaN for noise", "NaN for greys", "logits", "no gain", "blind", "external data"],
)
def test_a_model_that_does_not_behave_is_refused_at_load_and_by_verify(
    tmp_path: Path, model: onnx.ModelProto, says: str
) -> None:
    folder = write_package(tmp_path, model=model)
    with pytest.raises(PackageError, match=rf"model\.onnx.*{says}"):
        opened(folder)
    assert any(says in problem for problem in verify(folder))


def without(model: onnx.ModelProto, output: str) -> onnx.ModelProto:
    kept = [item for item in model.graph.output if item.name != output]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return model


@pytest.mark.parametrize("output", ["scores", "features", "cam"])
def test_a_classifier_without_one_of_its_outputs_is_refused(tmp_path: Path, output: str) -> None:
    with pytest.raises(PackageError, match=f"no output {output}"):
        opened(write_package(tmp_path, model=without(tiny_model(), output)))


def test_a_slice_model_without_masks_is_refused(tmp_path: Path) -> None:
    folder = write_slice_package(tmp_path)
    opened(folder)
    (folder / "model.onnx").write_bytes(without(tiny_slice_model(), "masks").SerializeToString())
    repin(folder)
    with pytest.raises(PackageError, match="no output masks"):
        opened(folder)


@pytest.mark.parametrize("missing", ["boxes", "box_scores"])
def test_a_detector_without_boxes_is_refused(tmp_path: Path, missing: str) -> None:
    detection: dict[str, Any] = {"task": "detection", "detection": {"box_threshold": 0.5}}
    folder = write_package(tmp_path, **detection)
    with pytest.raises(PackageError, match=missing):
        opened(folder)


def test_a_slice_model_whose_masks_are_logits_is_refused(tmp_path: Path) -> None:
    model = tiny_slice_model()
    for node in model.graph.node:
        if list(node.output) == ["masks"]:
            node.op_type = "Identity"
    folder = write_slice_package(tmp_path)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    repin(folder)
    with pytest.raises(PackageError, match="masks are not between 0 and 1"):
        opened(folder)


def test_examples_of_another_package_do_not_pass_as_its_own(tmp_path: Path) -> None:
    folder = write_package(tmp_path)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=np.zeros((1, 1, SIDE, SIDE), np.float32), scores=np.full((1, 8, 1), 0.9))
    (folder / "golden.npz").write_bytes(buffer.getvalue())
    repin(folder)
    assert any("differs" in problem for problem in verify(folder))

"""20: models that are not what they should be: refused when they are loaded, or failed for all to see; never negative.

The image is one that the sound package flags. Whatever a fault makes of it, it must not come out as looked at and
without a finding.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inference import package as packages
from inference import session as sessions
from inference.errors import PackageError
from inference.outputs import Outputs
from ledger.records import ResultStatus, TriagePriority
from tests.support.chests import bright, save
from tests.support.packages import repin, tiny_model, write_package
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.looking import analyser, look

Fault = Callable[[Path], None]  # what is done to a sound package's folder before the node loads it
BYTES_TRIED, IN_A_CONTROL = 40, 4


@dataclass(frozen=True)
class Made:
    name: str
    model: onnx.ModelProto | None = None
    spoil: Fault | None = None


def with_constant(value: float) -> onnx.ModelProto:
    """The same passes for every picture: a head that sees nothing."""
    model = tiny_model()
    for tensor in model.graph.initializer:
        if tensor.name == "masks":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((1, 8, 1), np.float32), "masks"))
        if tensor.name == "offset":
            ramp = np.linspace(value, value + 0.5, 8, dtype=np.float32).reshape(1, 8, 1)
            tensor.CopyFrom(numpy_helper.from_array(ramp, "offset"))
    return model


def with_infinity() -> onnx.ModelProto:
    model = tiny_model(scores="nan")
    model.graph.node[-1].CopyFrom(helper.make_node("Div", ["squashed", "zero"], ["scores"]))
    return model


def with_external_data(folder: Path) -> None:
    model = onnx.load_from_string((folder / "model.onnx").read_bytes())
    tensor = model.graph.initializer[0]
    (folder / "weights.bin").write_bytes(tensor.raw_data)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="weights.bin")
    _replace(folder, model)


def with_far_data(folder: Path) -> None:
    model = onnx.load_from_string((folder / "model.onnx").read_bytes())
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="../../../../../../etc/passwd")
    _replace(folder, model)


def with_sparse_data(folder: Path) -> None:
    model = onnx.load_from_string((folder / "model.onnx").read_bytes())
    model.graph.sparse_initializer.add()
    _replace(folder, model)


def _replace(folder: Path, model: onnx.ModelProto) -> None:
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    repin(folder)


def other_digest(folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["model.onnx"] = hashlib.sha256(b"another").hexdigest()
    path.write_text(json.dumps(manifest))


def other_model(folder: Path) -> None:
    """A sound model in place of the pinned one: it never finds anything."""
    (folder / "model.onnx").write_bytes(tiny_model(offset=-40.0).SerializeToString())


def linked_model(folder: Path) -> None:
    content = folder / "model.onnx"
    content.rename(folder.parent / "elsewhere.onnx")
    content.symlink_to(folder.parent / "elsewhere.onnx")


FAULTS = (
    Made("NaN for everything", tiny_model(scores="nan")),
    Made("NaN for pictures of one grey", tiny_model(scores="nan_for_greys")),
    Made("NaN for this picture alone", tiny_model(scores="nan_when_bright")),
    Made("infinity", with_infinity()),
    Made("logits for probabilities", tiny_model(scores="logits")),
    Made("identical passes", tiny_model(spread=0.0)),
    Made("constant, low", with_constant(-6.0)),
    Made("constant, high", with_constant(6.0)),
    Made("operators of another domain", tiny_model(domain="com.evil")),
    Made("external data", spoil=with_external_data),
    Made("external data outside of the package", spoil=with_far_data),
    Made("sparse initialisers", spoil=with_sparse_data),
    Made("another digest in the manifest", spoil=other_digest),
    Made("another model than the pinned one", spoil=other_model),
    Made("a link in place of the model", spoil=linked_model),
)


def a_byte(name: str, at: int, bit: int) -> Fault:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[at % len(content)] ^= 1 << bit
        (folder / name).write_bytes(content)

    return change


def broken(context: Context) -> Arm:
    return _broken(context, BYTES_TRIED)


def _broken(context: Context, tried: int) -> Arm:
    arm = Arm()
    arm.counts.update({"rounds": 0, "refused at load": 0, "failed visibly": 0, "negative": 0})
    image = save(bright(), context.folder)
    sound = _told(context, Made("sound"), image)
    arm.require(sound == "positive", f"the sound package says {sound}")
    for made in FAULTS:
        _count(arm, made.name, _told(context, made, image))
    for i in range(context.rounds(tried, 2000)):
        name = context.rng.choice(("model.onnx", "model.onnx", "golden.npz"))
        made = Made(f"one bit of {name}", spoil=a_byte(name, context.rng.randrange(1 << 20), i % 8))
        _count(arm, made.name, _told(context, made, image))
    return arm


def _count(arm: Arm, name: str, told: str) -> None:
    arm.counts["rounds"] += 1
    arm.counts[told] += 1
    arm.require(told in ("refused at load", "failed visibly"), f"{name}: {told}")


def _told(context: Context, made: Made, image: Path) -> str:
    """What a node says of the image over this package: positive, negative, failed visibly, or refused at load."""
    folder = context.scratch()
    where = write_package(folder / "models", model=made.model)
    if made.spoil:
        made.spoil(where)
    try:
        with analyser(folder) as node:
            (result,) = look(node, [image])
    except PackageError:
        return "refused at load"
    if result.status in (ResultStatus.FAILED, ResultStatus.NOT_ASSESSED):
        return "failed visibly" if result.priority is TriagePriority.NOT_ASSESSED and result.reason else "silent"
    return "positive" if any(finding.present for finding in result.findings) else "negative"


@contextlib.contextmanager
def _hashes_are_not_looked_at() -> Iterator[None]:
    real = packages.hashlib.sha256

    class Agreeable:
        def __init__(self, content: bytes) -> None:
            self._real = real(content)

        def hexdigest(self) -> "Anything":
            return Anything(self._real.hexdigest())

    class Anything(str):
        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = str.__hash__

    with patch.object(packages, "hashlib", type("Hashes", (), {"sha256": Agreeable})):
        yield


def no_hashes(context: Context) -> Arm:
    with _hashes_are_not_looked_at():
        return _broken(context, IN_A_CONTROL)


def numbers_are_believed(context: Context) -> Arm:
    def everything(outputs: Outputs) -> Any:
        return np.ones(len(outputs), np.bool_)

    with patch.object(Outputs, "finite", everything), patch.object(sessions, "self_test", lambda *told: None):
        return _broken(context, IN_A_CONTROL)


register(
    20, "broken models: outputs, digests, bytes, external data", broken, suite="hospital",
    no_hashes=Control(r"^another model than the pinned one: negative", no_hashes),
    numbers_are_believed=Control(r"^(NaN|infinity|logits)", numbers_are_believed),
)  # fmt: skip

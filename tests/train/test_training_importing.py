"""Published weights become a package without anything in their file being run."""

import contextlib
import io
import os
import pickle
import struct
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torchvision.models import densenet121
from typer.testing import CliRunner

from inference.manifest import read_manifest
from inference.verify import verify
from training.cli import app
from training.importing.checkpoint import read_checkpoint
from training.importing.keys import Wanted, network_of, trunk_of, wanted_labels
from training.importing.restricted import CheckpointError, Stored

pytestmark = pytest.mark.filterwarnings("ignore")
SIZE = 64


class Hostile:
    """Unpickled, it would make a file; what makes it must be importable, as posix.system is."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(6)
    return densenet121(weights=None, num_classes=3).eval()


def old_names(state):
    """As torchvision's file has them: norm.1, conv.2."""
    out = OrderedDict()
    for key, value in state.items():
        if "denselayer" in key:
            for name in ("norm1", "conv1", "norm2", "conv2"):
                key = key.replace(f".{name}.", f".{name[:-1]}.{name[-1]}.")
        out[key] = value
    return out


def xrv_module(rows=4):
    """A whole module of a class that is gone when the file is read, as TorchXRayVision's are."""
    torch.manual_seed(7)
    net = densenet121(weights=None, num_classes=rows)
    net.features.conv0 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    module = types.ModuleType("torchxrayvision.models")
    made = type("DenseNet", (torch.nn.Module,), {"__module__": "torchxrayvision.models"})
    module.DenseNet = made
    whole = made()
    whole.features, whole.classifier = net.features, net.classifier
    whole.pathologies = ["Atelectasis", "", "Pneumonia", "Lung Lesion"]
    whole.op_threshs = torch.tensor([0.1, float("nan"), 0.02, 0.3])
    return whole, module


def save_xrv(path, legacy=False):
    whole, module = xrv_module()
    names = {"torchxrayvision": types.ModuleType("torchxrayvision"), "torchxrayvision.models": module}
    with pytest.MonkeyPatch.context() as patch:
        for name, made in names.items():
            patch.setitem(sys.modules, name, made)
        torch.save(whole, path, _use_new_zipfile_serialization=not legacy)
    assert "torchxrayvision" not in sys.modules
    return whole


@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_comes_back_bit_for_bit(published, tmp_path, legacy):
    path = tmp_path / "w.pth"
    state = published.state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    found = read_checkpoint(path)
    assert found.tensors.keys() == state.keys()
    assert all(torch.equal(found.tensors[key], value) for key, value in state.items())
    assert found.strangers == ()


def test_views_of_a_storage_keep_their_place(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    torch.save(
        {"t": whole.t(), "part": whole[1:3, 2:5], "half": whole.half(), "empty": torch.empty(0, 3)}, tmp_path / "w.pt"
    )
    found = read_checkpoint(tmp_path / "w.pt").tensors
    assert torch.equal(found["t"], whole.t())
    assert torch.equal(found["part"], whole[1:3, 2:5])
    assert torch.equal(found["half"], whole.half())
    assert found["empty"].shape == (0, 3)


def test_safetensors_are_read(tmp_path):
    values = np.arange(6, dtype="<f4")
    header = b'{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"__metadata__":{"x":"y"}}'
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + values.tobytes())
    assert read_checkpoint(path).tensors["a"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    path.write_bytes(struct.pack("<Q", len(header)) + header + values.tobytes()[:-4])
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)
    path.write_bytes(struct.pack("<Q", 2**60))
    with pytest.raises(CheckpointError, match="no safetensors"):
        read_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_runs_nothing(tmp_path, legacy):
    marker, path = tmp_path / "owned", tmp_path / "evil.pt"
    torch.save({"w": torch.ones(2), "x": Hostile(marker)}, path, _use_new_zipfile_serialization=not legacy)
    found = read_checkpoint(path)
    assert not marker.exists()
    assert found.strangers == ("posix.system",)
    assert found.tensors["w"].tolist() == [1.0, 1.0]
    torch.load(path, weights_only=False)
    assert marker.exists(), "the file is as malicious as this test says"


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch owned'\ntR.",  # REDUCE
        b"(S'touch owned'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch owned'\no.",  # OBJ
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x0bopen('own','w')\x85R.",  # STACK_GLOBAL
        b"cbuiltins\ngetattr\n(cos\nS'system'\ntR(S'touch owned'\ntR.",  # by way of getattr
        b"ctorch._utils\n_rebuild_tensor_v2\n(Nt}S'x'\nNsb.",
        b"ctorch._utils\n_rebuild_tensor_v2\nN}S'__call__'\ncos\nsystem\ns\x86b.",  # BUILD sets slots
    ],
)
def test_no_opcode_reaches_a_real_function(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    before = set(os.listdir())
    with zipfile.ZipFile("x.pt", "w") as archive:
        archive.writestr("a/data.pkl", program)
    with contextlib.suppress(CheckpointError):
        assert read_checkpoint(tmp_path / "x.pt").tensors == {}
    assert set(os.listdir()) == before | {"x.pt"}


def archive_of(tmp_path, content, storage=b"\0" * 8, compress=zipfile.ZIP_STORED):
    """data.pkl that asks for one storage of two floats by the persistent id in `content`."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return thing.pid if isinstance(thing, Pid) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(content)
    with zipfile.ZipFile(tmp_path / "x.pt", "w", compress) as archive:
        archive.writestr("a/data.pkl", buffer.getvalue(), zipfile.ZIP_STORED)
        archive.writestr("a/data/0", storage)
    return tmp_path / "x.pt"


class Pid:
    def __init__(self, numel=2, key="0"):
        self.pid = ("storage", torch.FloatStorage, key, "cpu", numel)


class Tensor:
    def __init__(self, pid, offset=0, size=(2,), stride=(1,)):
        self.made = (pid, offset, size, stride, False, OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.made


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (Tensor(Pid(), offset=1), "beyond its storage"),
        (Tensor(Pid(), size=(2**40,), stride=(0,)), "beyond its storage"),
        (Tensor(Pid(), offset=-1), "no shape"),
        (Tensor(Pid(), size=(1, 2), stride=(1,)), "storage of its own"),
        (Tensor(Pid(numel=3)), "shorter or longer|larger"),
        (Tensor(Pid(key="../../etc/passwd")), "damaged archive"),
    ],
)
def test_a_tensor_that_lies_about_its_place_is_refused(tmp_path, made, sentence):
    assert read_checkpoint(archive_of(tmp_path, {"w": Tensor(Pid())})).tensors["w"].tolist() == [0.0, 0.0]
    with pytest.raises(CheckpointError, match=sentence):
        read_checkpoint(archive_of(tmp_path, {"w": made}))


def test_what_is_no_checkpoint_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "w.pt"
    for content, sentence in (
        (b"hello", "cannot be read"),
        (pickle.dumps({"a": 1}), "no file of torch.save"),
        (b"\0" * 257 + b"ustar" + b"\0" * 300, "tar archive"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=sentence):
            read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(CheckpointError, match="no archive of torch"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="No such file"):
        read_checkpoint(tmp_path / "none.pt")
    archive_of(tmp_path, {"w": Tensor(Pid())}, storage=b"\0" * 8, compress=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        read_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_whole_module_is_read_although_its_class_is_gone(tmp_path, legacy):
    whole = save_xrv(tmp_path / "xrv.pt", legacy)
    found = read_checkpoint(tmp_path / "xrv.pt")
    assert found.tensors.keys() == whole.state_dict().keys()
    assert all(torch.equal(found.tensors[key], value) for key, value in whole.state_dict().items())
    assert found.attributes["pathologies"] == whole.pathologies
    assert found.attributes["op_threshs"][2] == pytest.approx(0.02)
    assert "torchxrayvision.models.DenseNet" in found.strangers


@pytest.mark.parametrize("wrap", [dict, old_names, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}])
def test_torchvision_weights_say_the_same_in_our_network(published, tmp_path, wrap):
    torch.save(wrap(published.state_dict()), tmp_path / "w.pt")
    checkpoint = read_checkpoint(tmp_path / "w.pt")
    net = network_of(checkpoint, (Wanted("a", 2), Wanted("b", 0)))
    grey = torch.rand(2, 1, SIZE, SIZE)
    with torch.inference_mode():
        wanted = published(grey.expand(-1, 3, -1, -1))[:, [2, 0]]
        torch.testing.assert_close(net(grey), wanted, atol=1e-4, rtol=1e-4)


def test_weights_of_another_network_are_refused(published):
    state = published.state_dict()
    some = {key: value for key, value in state.items() if "denseblock3" not in key}
    with pytest.raises(CheckpointError, match=r"no DenseNet-121: .* tensors are missing"):
        trunk_of(some)
    with pytest.raises(CheckpointError, match="has the shape"):
        trunk_of(state | {"features.norm5.weight": torch.ones(7)})
    with pytest.raises(CheckpointError, match="holds a number that is none"):
        trunk_of(state | {"features.norm5.weight": torch.full((1024,), float("nan"))})


def test_labels_are_found_by_name_by_row_or_in_order(published, tmp_path):
    save_xrv(tmp_path / "xrv.pt")
    named = read_checkpoint(tmp_path / "xrv.pt")
    assert wanted_labels(["pneumonia", "Lung Lesion"], named) == (Wanted("pneumonia", 2), Wanted("lung lesion", 3))
    with pytest.raises(
        CheckpointError, match=r"which of the head's 4 rows is Fracture.*it names atelectasis, pneumonia"
    ):
        wanted_labels(["Fracture"], named)
    torch.save(published.state_dict(), tmp_path / "w.pt")
    nameless = read_checkpoint(tmp_path / "w.pt")
    assert wanted_labels(["a", "b", "c"], nameless)[2] == Wanted("c", 2)
    assert wanted_labels(["Some_Thing=1"], nameless) == (Wanted("some thing", 1),)
    with pytest.raises(CheckpointError, match="3 rows, counted from 0"):
        wanted_labels(["a=3"], nameless)
    with pytest.raises(CheckpointError, match="which of the head's 3 rows"):
        wanted_labels(["a"], nameless)


@pytest.mark.timeout(600)
def test_a_whole_module_becomes_a_package_that_the_node_loads_and_that_raises_nothing(tmp_path):
    whole = save_xrv(tmp_path / "xrv.pt")
    call = [
        "import",
        str(tmp_path / "xrv.pt"),
        "--kind",
        "torchxrayvision-densenet121",
        "--name",
        "xrv",
        "--size",
        "64",
    ]
    call += ["--out", str(tmp_path / "out"), "--label", "Pneumonia", "--label", "Atelectasis"]
    refused = CliRunner().invoke(app, call)
    assert refused.exit_code == 1
    assert "--seen-data" in refused.output
    done = CliRunner().invoke(app, [*call, "--seen-data", "NIH", "--seen-data", "RSNA", "--licence", "Apache-2.0"])
    assert done.exit_code == 0, done.output
    folder = tmp_path / "out" / "xrv" / "1.0.0"
    assert verify(folder) == []
    manifest = read_manifest(folder)
    assert manifest.may_raise_priority is False
    assert [source.name for source in manifest.licence.data] == ["NIH", "RSNA"]
    assert manifest.input.value_range == (-1024.0, 1024.0)
    assert manifest.labels[0].calibration.knots[1] == (pytest.approx(0.02), 0.5)
    assert manifest.labels[0].operating_point.chosen_on.startswith("nothing was measured")
    assert "count for no figure" in (folder / "MODEL_CARD.md").read_text()
    with np.load(folder / "golden.npz") as golden:
        image, scores = torch.from_numpy(golden["images"]), golden["scores"]
    with torch.inference_mode():
        pooled = torch.relu(whole.eval().features(image)).mean(dim=(2, 3))
        wanted = torch.sigmoid(whole.classifier(pooled))[:, [2, 0]]
    np.testing.assert_allclose(scores[:, 0], wanted.numpy(), atol=5e-3)


def test_a_trunk_alone_starts_a_fit(published, tmp_path):
    torch.save(published.state_dict(), tmp_path / "w.pt")
    call = [
        "import",
        str(tmp_path / "w.pt"),
        "--kind",
        "torchvision-densenet121",
        "--trunk-only",
        "--out",
        str(tmp_path),
    ]
    assert CliRunner().invoke(app, call).exit_code == 0
    trunk = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert trunk["features.conv0.weight"].shape == (64, 1, 7, 7)
    bad = CliRunner().invoke(app, [*call[:3], "alexnet", "--out", str(tmp_path)])
    assert bad.exit_code == 1
    assert "--kind is torchvision-densenet121 or" in bad.output


def test_the_node_hands_an_import_to_training_and_loads_no_torch_itself(tmp_path):
    program = (
        "import sys; from typer.testing import CliRunner; from node.commands.models import app;"
        f"r = CliRunner().invoke(app, ['import', {str(tmp_path / 'none.pt')!r}, '--kind', 'torchvision-densenet121',"
        f" '--name', 'n', '--label', 'a', '--seen-data', 'unknown', '--out', {str(tmp_path)!r}]);"
        "assert 'torch' not in sys.modules; sys.exit(r.exit_code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=170)
    assert done.returncode == 1
    assert "none.pt: No such file" in done.stderr


def test_a_stored_tensor_cannot_be_changed_by_a_pickle():
    with pytest.raises(AttributeError):
        Stored(None, 0, (), ()).offset = 5

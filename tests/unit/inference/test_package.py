"""A package is used only when every byte is the one that its manifest pins and the model behaves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from config.settings import LookSettings
from inference.engines import Resources
from inference.errors import PackageError
from inference.manifest import Manifest, parse_manifest
from inference.onnx_check import onnx_problems
from inference.package import default_models_dir, load_package, load_packages
from inference.session import ModelSession
from inference.verify import verify
from tests.support.packages import label, repin, tiny_model, write_package


def look(root: Path, *models: str) -> LookSettings:
    return LookSettings(models_dir=root, models=models)


def opened(folder: Path) -> ModelSession:
    session = ModelSession(load_package(folder), "cpu", Resources(threads=1))
    session.self_test()
    return session


def test_a_good_package_loads_and_verifies(tmp_path: Path) -> None:
    folder = write_package(tmp_path, gate_threshold=9.0)
    (package,) = load_packages(look(tmp_path))
    assert (package.key, len(package.digest)) == ("tiny-chest/1.0.0", 64)
    assert package.identity.passes == package.manifest.uncertainty.passes
    assert verify(folder) == []


def test_the_newest_version_of_each_name_is_taken(tmp_path: Path) -> None:
    for version in ("1.9.0", "1.10.0", "1.10.0-rc.1"):
        write_package(tmp_path, version=version)
    write_package(tmp_path, name="another")
    assert [package.key for package in load_packages(look(tmp_path))] == ["another/1.0.0", "tiny-chest/1.10.0"]
    assert [package.key for package in load_packages(look(tmp_path, "tiny-chest/1.9.0"))] == ["tiny-chest/1.9.0"]


def test_a_name_without_a_package_is_said(tmp_path: Path) -> None:
    write_package(tmp_path)
    with pytest.raises(PackageError, match="brain"):
        load_packages(look(tmp_path, "brain"))


def test_no_folder_means_no_packages_and_the_default_lies_beside_the_code(tmp_path: Path) -> None:
    assert load_packages(look(tmp_path / "none")) == ()
    assert default_models_dir().name == "models"
    assert (default_models_dir().parent / "inference").is_dir()


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "gate.npz"])
def test_one_changed_byte_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_package(tmp_path, gate_threshold=9.0)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(PackageError, match=name):
        load_packages(look(tmp_path))
    assert any(name in problem for problem in verify(folder))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    folder = write_package(tmp_path)
    (folder / "golden.npz").unlink()
    with pytest.raises(PackageError, match=r"golden\.npz"):
        load_packages(look(tmp_path))


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/b.onnx", ".hidden", ""])
def test_a_path_that_leaves_the_package_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_package(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PackageError, match="files"):
        load_packages(look(tmp_path))


def test_a_link_is_refused_even_to_the_right_bytes(tmp_path: Path) -> None:
    folder = write_package(tmp_path)
    (folder / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(PackageError, match="link"):
        load_packages(look(tmp_path))


def test_a_linked_folder_is_refused(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "real")
    (tmp_path / "models" / "tiny-chest").mkdir(parents=True)
    (tmp_path / "models" / "tiny-chest" / "1.0.0").symlink_to(folder)
    with pytest.raises(PackageError, match="link"):
        load_package(tmp_path / "models" / "tiny-chest" / "1.0.0")


def test_a_folder_that_does_not_bear_its_name_is_refused(tmp_path: Path) -> None:
    folder = write_package(tmp_path)
    folder.rename(folder.parent / "2.0.0")
    with pytest.raises(PackageError, match=r"tiny-chest/1\.0\.0"):
        load_packages(look(tmp_path))


def test_external_data_is_refused() -> None:
    model = tiny_model()
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    assert any("external data" in problem for problem in onnx_problems(model.SerializeToString()))


def test_external_data_inside_a_subgraph_is_refused() -> None:
    inner = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [0.0])
    inner.external_data.add(key="location", value="x")
    graph = helper.make_graph([helper.make_node("Constant", [], ["c"], value=inner)], "inner", [], [])
    model = tiny_model()
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph))
    assert any("external data" in problem for problem in onnx_problems(model.SerializeToString()))


def test_sparse_initialisers_are_refused() -> None:
    model = tiny_model()
    model.graph.sparse_initializer.add()
    assert any("sparse" in problem for problem in onnx_problems(model.SerializeToString()))


def test_operators_of_a_custom_domain_are_refused(tmp_path: Path) -> None:
    write_package(tmp_path, model=tiny_model(domain="com.evil"))
    with pytest.raises(PackageError, match=r"com\.evil"):
        load_packages(look(tmp_path))


@pytest.mark.parametrize("content", [b"\x80\x04pickle", b"\xff" * 50, b"\x3a\xff\xff\xff\x7f", b"not a model at all"])
def test_what_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = write_package(tmp_path, model=content)
    with pytest.raises(PackageError, match=r"model\.onnx"):
        opened(folder)


def test_a_model_whose_passes_are_identical_is_refused(tmp_path: Path) -> None:
    folder = write_package(tmp_path, model=tiny_model(spread=0.0))
    with pytest.raises(PackageError, match="identical"):
        opened(folder)
    assert any("identical" in problem for problem in verify(folder))


def test_a_model_that_returns_no_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="finite"):
        opened(write_package(tmp_path, model=tiny_model(scores="nan")))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (tiny_model(passes=5), "shapes"),
        (tiny_model(labels=2), "shapes"),
        (tiny_model(side=112), "refuses|shapes|[Ii]nput"),
    ],
)
def test_a_model_that_does_not_fit_its_manifest_is_refused(tmp_path: Path, model: onnx.ModelProto, says: str) -> None:
    with pytest.raises(Exception, match=says):
        opened(write_package(tmp_path, model=model))


def test_a_gate_for_other_features_is_refused(tmp_path: Path) -> None:
    folder = write_package(tmp_path, gate_threshold=9.0)
    np.savez(
        folder / "gate.npz",
        mean=np.zeros(3, np.float32),
        components=np.eye(1, 3, dtype=np.float32),
        scale=np.ones(1, np.float32),
        residual_scale=np.float32(1),
    )
    repin(folder)
    with pytest.raises(PackageError, match="gate"):
        opened(folder)


def test_a_pickle_as_gate_is_refused(tmp_path: Path) -> None:
    folder = write_package(tmp_path, gate_threshold=9.0)
    keys = {key: np.array([{}], object) for key in ("mean", "components", "scale", "residual_scale")}
    np.savez(folder / "gate.npz", **keys)  # type: ignore[arg-type]
    repin(folder)
    with pytest.raises(PackageError, match=r"gate\.npz"):
        load_packages(look(tmp_path))


def test_a_model_that_no_longer_says_what_it_said_fails_verification(tmp_path: Path) -> None:
    folder = write_package(tmp_path)
    (folder / "model.onnx").write_bytes(tiny_model(offset=0.5).SerializeToString())
    repin(folder)
    assert any("differs" in problem for problem in verify(folder))


def test_an_unlisted_file_fails_verification(tmp_path: Path) -> None:
    folder = write_package(tmp_path)
    (folder / "run.py").write_text("")
    assert any(r"run.py" in problem for problem in verify(folder))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "../x"}, "name"),
        ({"surprise": 1}, "surprise"),
        ({"labels": []}, "labels"),
        ({"labels": [label(), label()]}, "same name"),
        ({"labels": [label("Pneumonia")]}, "label"),
        ({"input": {}}, r"input\.height"),
        ({"may_raise_priority": None}, "may_raise_priority"),
    ],
)
def test_a_manifest_with_a_fault_names_the_key(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    folder = write_package(tmp_path)
    manifest = {**json.loads((folder / "manifest.json").read_text()), **change}
    with pytest.raises(ValueError, match=says):
        parse_manifest(json.dumps(manifest).encode())


def test_the_manifest_is_written_as_it_is_read(tmp_path: Path) -> None:
    manifest = parse_manifest((write_package(tmp_path) / "manifest.json").read_bytes())
    assert parse_manifest(manifest.to_json().encode()) == manifest
    assert isinstance(manifest, Manifest)

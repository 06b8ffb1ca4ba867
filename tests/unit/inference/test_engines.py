"""What computes a graph is what was asked for, and an image's numbers are its own."""

import dataclasses
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inference.session as session_module
from config.settings import LookSettings
from inference.engines import Graph, Resources, candidates, onnx_engine, opened, openvino_engine
from inference.engines.engine import joined, pieces
from inference.engines.onnx_engine import OnnxCpuEngine, OnnxGpuEngine, tensorrt_options
from inference.engines.openvino_engine import OpenVinoEngine
from inference.errors import PackageError, ProviderError
from inference.package import Package, load_package, load_packages
from inference.session import ModelSession, golden_examples, open_sessions
from tests.support.packages import SIDE, repin, tiny_model, write_package
from tests.support.realdata import ROOT

RESOURCES = Resources(threads=2, batch=4)
OPENVINO = openvino_engine.installed()
need_openvino = pytest.mark.skipif(not OPENVINO, reason="openvino is not installed: `make test` installs it")
PROVIDERS = ["cpu", pytest.param("openvino", marks=need_openvino)]


def noise(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (n, 1, SIDE, SIDE)).astype(np.float32)


def package(root: Path, **options: Any) -> Package:
    return load_package(write_package(root, **options))


def only(monkeypatch: pytest.MonkeyPatch, *built: str, openvino: bool = False) -> None:
    """As if this installation had exactly these."""
    monkeypatch.setattr(onnx_engine.ort, "get_available_providers", lambda: [*built, "CPUExecutionProvider"])
    monkeypatch.setattr(openvino_engine, "installed", lambda: openvino)


def test_auto_takes_the_best_that_is_installed_and_tensorrt_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    assert candidates("auto") == ("cpu",)
    only(monkeypatch, openvino=True)
    assert candidates("auto") == ("openvino", "cpu")
    only(monkeypatch, "TensorrtExecutionProvider", "CUDAExecutionProvider", openvino=True)
    assert candidates("auto") == ("cuda", "openvino", "cpu")
    assert candidates("tensorrt") == ("tensorrt",)


@pytest.mark.parametrize("wanted", ["cuda", "tensorrt", "openvino"])
def test_what_is_demanded_and_missing_is_an_error(monkeypatch: pytest.MonkeyPatch, wanted: Any) -> None:
    only(monkeypatch)
    with pytest.raises(ProviderError, match=wanted):
        candidates(wanted)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_come_up_is_never_replaced_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU build on a machine whose driver is gone: the provider is listed, the session does not get it."""
    packages = (package(tmp_path),)
    only(monkeypatch, "CUDAExecutionProvider")
    demanded = open_sessions(packages, "cuda", RESOURCES)
    assert (demanded.sessions, demanded.computing.provider, demanded.computing.degraded) == ({}, "cuda", False)
    assert "look.provider is cuda, but ONNX Runtime would compute it on the CPU" in demanded.refused[0].reason
    opened = open_sessions(packages, "auto", RESOURCES)
    assert (opened.computing.provider, opened.computing.wished, opened.computing.degraded) == ("cpu", "cuda", True)
    assert [session.words for session in opened.sessions.values()] == ["cpu float32"]
    assert opened.refused == ()


def test_the_first_choice_is_not_degraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    computing = open_sessions((package(tmp_path),), "auto", RESOURCES).computing
    assert (computing.provider, computing.degraded) == ("cpu", False)


def test_a_package_that_no_provider_runs_does_not_slow_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the package's fault, not the fast provider's. Here the lesser one is the one that runs nothing."""
    monkeypatch.setattr(session_module, "candidates", lambda wanted: ("cpu", "cuda"))
    good = package(tmp_path)
    broken = package(tmp_path, name="nan", model=tiny_model(scores="nan"))
    opened = open_sessions((broken, good), "auto", RESOURCES)
    assert (opened.computing.provider, opened.computing.degraded) == ("cpu", False)
    assert list(opened.sessions) == [good.digest]
    assert [one.name for one in opened.refused] == ["nan 1.0.0"]


def test_a_demanded_gpu_forbids_the_cpu_to_compute_any_node_and_auto_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, list[str]]] = []

    def note(model: bytes, options: Any, providers: list[Any]) -> Any:
        names = [one if isinstance(one, str) else one[0] for one in providers]
        try:
            made.append((options.get_session_config_entry("session.disable_cpu_ep_fallback"), names))
        except RuntimeError:  # the key is not set
            made.append(("", names))
        raise RuntimeError("no GPU")

    monkeypatch.setattr(onnx_engine.ort, "InferenceSession", note)
    graph = graph_of(package(tmp_path))
    for provider in ("cuda", "tensorrt"):
        for resources in (Resources(all_on_gpu=True), Resources()):
            with pytest.raises(PackageError, match="no GPU"):
                OnnxGpuEngine(graph, resources, provider, "float32")  # type: ignore[arg-type]
    gpu = ["CUDAExecutionProvider"]
    both = ["TensorrtExecutionProvider", *gpu]
    cpu = ["CPUExecutionProvider"]
    assert made == [("1", gpu), ("", gpu + cpu), ("1", both), ("", both + cpu)]


def test_onnx_runtime_knows_the_key_that_forbids_the_cpu(tmp_path: Path) -> None:
    """Real sessions: with the key and nothing but a CPU none is made; a misspelt key would be ignored in silence."""
    graph = graph_of(package(tmp_path))
    with pytest.raises(ProviderError, match="compute it on the CPU"):
        onnx_engine.open_session(graph, Resources(all_on_gpu=True), "cuda", [])
    assert OnnxCpuEngine(graph, Resources(all_on_gpu=True)).outputs  # the CPU was asked for: nothing is forbidden


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_company_of_other_images_changes_no_bit(tmp_path: Path, provider: Any) -> None:
    session = ModelSession(package(tmp_path), provider, RESOURCES)
    images = noise(9)
    together = session.run(images)
    for i in range(len(images)):
        alone = session.run(images[i : i + 1])
        for one, many in zip(alone.arrays(), together.arrays(), strict=True):
            assert np.array_equal(one[0], many[i])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_image_gets_its_own_numbers_back(tmp_path: Path, provider: Any) -> None:
    """Requests that run side by side are read before they are used again."""
    session = ModelSession(package(tmp_path), provider, RESOURCES, "float32")
    means = np.linspace(-0.9, 0.9, 11, dtype=np.float32)
    images = np.broadcast_to(means[:, None, None, None], (11, 1, SIDE, SIDE)).copy()
    assert np.allclose(session.run(images).features[:, 0], means, atol=1e-5)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_graph_with_another_signature_is_refused(tmp_path: Path, provider: Any) -> None:
    folder = write_package(tmp_path)
    repin(folder, outputs={"scores": "scores", "cam": "cam", "features": "elsewhere"})
    with pytest.raises(PackageError, match="elsewhere"):
        ModelSession(load_package(folder), provider, RESOURCES)


@need_openvino
def test_openvino_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    one = package(tmp_path)
    images = noise(3)
    here = ModelSession(one, "openvino", RESOURCES, "float32").run(images)
    there = ModelSession(one, "cpu", RESOURCES).run(images)
    for a, b in zip(here.arrays(), there.arrays(), strict=True):
        assert np.allclose(a, b, atol=1e-5)


@need_openvino
def test_where_a_lone_image_would_get_other_bits_all_go_through_the_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenVinoEngine, "_same_bits", lambda self: False)
    engine = opened(graph_of(package(tmp_path)), "openvino", "float32", RESOURCES)
    assert isinstance(engine, OpenVinoEngine)
    assert engine._alone is engine._streams


@need_openvino
def test_openvino_loads_no_telemetry_client() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from inference.engines import openvino_engine; openvino_engine._module().Core();"
        "assert not [m for m in sys.modules if m.startswith('openvino_telemetry') and sys.modules[m] is not None]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@need_openvino
@pytest.mark.parametrize(("off", "precision"), [(0.005, "bfloat16"), (0.02, "float32")])
def test_reduced_precision_is_used_only_where_the_golden_examples_bear_it(
    tmp_path: Path, off: float, precision: str
) -> None:
    if not openvino_engine.has_bfloat16():
        pytest.skip("this processor has no bfloat16, and nothing gives it any")
    folder = write_package(tmp_path)
    with np.load(folder / "golden.npz") as golden:
        np.savez(folder / "golden.npz", images=golden["images"], scores=golden["scores"] + np.float32(off))
    repin(folder)
    one = load_package(folder)
    assert ModelSession(one, "openvino", RESOURCES).words == f"openvino {precision}"
    assert ModelSession(one, "openvino", RESOURCES, "float32").words == "openvino float32"


@need_openvino
def test_masks_and_boxes_stay_in_float32(tmp_path: Path) -> None:
    session = ModelSession(package(tmp_path), "openvino", RESOURCES, "float32")
    assert session._bears_it()
    marked = session.package.manifest.model_copy(update={"task": "segmentation"})
    session.package = dataclasses.replace(session.package, manifest=marked)
    assert not session._bears_it()


@need_openvino
def test_without_golden_examples_sums_stay_in_float32(tmp_path: Path) -> None:
    folder = write_package(tmp_path)
    (folder / "golden.npz").write_bytes(b"no zip")
    repin(folder)
    session = ModelSession(load_package(folder), "openvino", RESOURCES)
    assert (golden_examples(session.package), session.precision) == (None, "float32")


def test_a_gpu_gets_full_batches_through_one_bound_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime is a stand-in that computes on the CPU: what is tested is who is bound, filled up and cut off."""
    one = package(tmp_path)
    fake = FakeGpu(ModelSession(one, "cpu", RESOURCES))
    monkeypatch.setattr(onnx_engine, "open_session", lambda *rest: fake)
    monkeypatch.setattr(onnx_engine, "ort", fake)
    engine = OnnxGpuEngine(graph_of(one), RESOURCES, "cuda", "float32")
    images = noise(6)
    scores, *_ = engine.run(images)
    assert np.array_equal(scores, fake.cpu.run(images).scores)
    assert fake.batches == [4, 4]
    assert fake.allocated == 1
    assert fake.bound == [("image", "tensor"), *[(name, "cuda") for name in graph_of(one).wanted]]


def test_tensorrt_builds_one_shape_in_half_precision_and_keeps_it(tmp_path: Path) -> None:
    graph = graph_of(package(tmp_path))
    options = tensorrt_options(graph, Resources(batch=4, cache=tmp_path), "float16")
    assert {options[f"trt_profile_{which}_shapes"] for which in ("min", "opt", "max")} == {f"image:4x1x{SIDE}x{SIDE}"}
    assert (options["trt_fp16_enable"], options["trt_engine_cache_path"]) == ("1", str(tmp_path))
    assert tensorrt_options(graph, Resources(batch=4), "float32")["trt_fp16_enable"] == "0"


@pytest.mark.parametrize("n", [1, 4, 5, 8])
def test_batches_are_full_and_come_apart_again(n: int) -> None:
    images = np.arange(n, dtype=np.float32).reshape(n, 1, 1, 1)
    parts = pieces(images, 4)
    assert {len(part) for part in parts} == {4}
    assert np.array_equal(joined([(part,) for part in parts], n)[0], images)


@need_openvino
def test_the_shipped_packages_run_in_the_fast_precision() -> None:
    if not openvino_engine.has_bfloat16():
        pytest.skip("this processor has no bfloat16, and nothing gives it any")
    shipped = load_packages(LookSettings(models=("chest-pneumonia",)))
    session = ModelSession(shipped[0], "openvino", RESOURCES)
    assert session.precision == "bfloat16"


def graph_of(one: Package) -> Graph:
    return Graph(one.folder / "model.onnx", one.model, "image", (1, SIDE, SIDE), ("scores", "features", "cam"))


class FakeGpu:
    """A session, a module `onnxruntime` and a binding in one, over a session on the CPU."""

    def __init__(self, cpu: ModelSession) -> None:
        self.cpu = cpu
        self.batches: list[int] = []
        self.bound: list[tuple[str, str]] = []
        self.allocated = 0
        self.tensor: Any = None
        self.OrtValue = self

    def get_inputs(self) -> list[Any]:
        return []

    def get_outputs(self) -> Iterator[Any]:
        return iter(())

    def ortvalue_from_numpy(self, array: np.ndarray, device: str, number: int) -> "FakeGpu":
        self.allocated += 1
        self.tensor = array.copy()
        return self

    def update_inplace(self, array: np.ndarray) -> None:
        assert array.shape == self.tensor.shape
        self.tensor[:] = array

    def io_binding(self) -> "FakeGpu":
        return self

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self.bound.append((name, "tensor"))

    def bind_output(self, name: str, device: str) -> None:
        self.bound.append((name, device))

    def run_with_iobinding(self, binding: Any) -> None:
        self.batches.append(len(self.tensor))

    def copy_outputs_to_cpu(self) -> list[np.ndarray]:
        found = self.cpu.run(self.tensor)
        return [found.scores, found.features, found.cam]


HEARS = """
import os, signal, sys
from pathlib import Path
from inference.engines.engine import Resources
from inference.package import load_package
from inference.session import Member

package = load_package(Path(sys.argv[1]))
sessions = [Member(package, 0, "openvino", "float32", Resources(threads=1, batch=2)) for _ in range(2)]
del sessions[0]
del sessions[0]
heard = []
signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
os.kill(os.getpid(), signal.SIGUSR1)
print(heard)
"""


@need_openvino
def test_a_process_hears_signals_after_its_models_ended_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    package = write_package(tmp_path)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", HEARS, str(package)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, f"[{signal.SIGUSR1:d}]"), done.stderr

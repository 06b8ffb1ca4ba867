"""ONNX Runtime on the CPU, on CUDA and through TensorRT. The provider is asserted: nothing falls back in silence."""

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inference.engines.engine import Arrays, Graph, Precision, Provider, Resources, joined, pieces
from inference.errors import PackageError, ProviderError

ort: Any = onnxruntime
PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# Deterministic kernels and no search among algorithms: the same image must always get the same numbers.
NO_CPU = "session.disable_cpu_ep_fallback"  # "1": a session with a node on the CPU is not made
CUDA_OPTIONS = {"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0"}


class OnnxCpuEngine:
    """One image at a time: kernels may differ by batch size, and a batch gains next to nothing here."""

    precision: Precision = "float32"
    together = 1

    def __init__(self, graph: Graph, resources: Resources) -> None:
        self._graph = graph
        self._session = open_session(graph, resources, "cpu", [])
        self.inputs = element_types(self._session)
        self.outputs = {item.name for item in self._session.get_outputs()}

    def run(self, images: NDArray[np.float32]) -> Arrays:
        wanted, name = list(self._graph.wanted), self._graph.input_name
        return joined([tuple(self._session.run(wanted, {name: part})) for part in pieces(images, 1)], len(images))


class OnnxGpuEngine:
    """CUDA in float32, or TensorRT in float16 or float32. Always a full batch; input and outputs stay bound."""

    def __init__(self, graph: Graph, resources: Resources, provider: Provider, precision: Precision) -> None:
        self.precision = precision
        self._graph, self._batch = graph, resources.batch
        self.together = resources.batch
        wanted: list[tuple[str, dict[str, str]]] = [("CUDAExecutionProvider", CUDA_OPTIONS)]
        if provider == "tensorrt":
            wanted.insert(0, ("TensorrtExecutionProvider", tensorrt_options(graph, resources, precision)))
        self._session = open_session(graph, resources, provider, wanted)
        self.inputs = element_types(self._session)
        self.outputs = {item.name for item in self._session.get_outputs()}
        self._input: Any = None
        self._binding: Any = None

    def run(self, images: NDArray[np.float32]) -> Arrays:
        return joined([self._run_bound(part) for part in pieces(images, self._batch)], len(images))

    def _run_bound(self, images: NDArray[np.float32]) -> Arrays:
        """The tensor on the device is made once and overwritten; outputs come back in one copy each."""
        batch = np.ascontiguousarray(images, np.float32)
        if self._binding is None:
            self._bind(batch)
        else:
            self._input.update_inplace(batch)
        self._session.run_with_iobinding(self._binding)
        return tuple(self._binding.copy_outputs_to_cpu())

    def _bind(self, batch: NDArray[np.float32]) -> None:
        self._input = ort.OrtValue.ortvalue_from_numpy(batch, "cuda", 0)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self._graph.input_name, self._input)
        for name in self._graph.wanted:
            self._binding.bind_output(name, "cuda")


def open_session(graph: Graph, resources: Resources, provider: Provider, wanted: list[Any]) -> Any:
    """Raises PackageError when the graph is refused, ProviderError when another provider would run it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = resources.threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    strict = resources.all_on_gpu and provider != "cpu"
    if strict:  # asserted for each node; naming the CPU beside it would be a contradiction to ONNX Runtime
        options.add_session_config_entry(NO_CPU, "1")
    try:
        session = ort.InferenceSession(graph.model, options, wanted if strict else [*wanted, "CPUExecutionProvider"])
    except Exception as error:
        if strict and "fallback to CPU" in str(error):
            raise ProviderError(
                f"{graph.file}: look.provider is {provider}, but ONNX Runtime would compute it on the CPU, wholly or in"
                f' part (is the driver there? look.provider = "auto" allows it): {error}'
            ) from error
        raise PackageError(f"{graph.file}: ONNX Runtime refuses it: {error}") from error
    session.disable_fallback()
    got = session.get_providers()[0]
    if got != PROVIDERS[provider]:
        raise ProviderError(f"{graph.file} runs on {got}, not on {provider}")
    return session


def tensorrt_options(graph: Graph, resources: Resources, precision: Precision) -> dict[str, str]:
    """One shape only, so that one engine is built; it is kept in the cache folder, because building takes minutes."""
    shape = f"{graph.input_name}:{'x'.join(map(str, (resources.batch, *graph.input_shape)))}"
    options = {f"trt_profile_{which}_shapes": shape for which in ("min", "opt", "max")}
    options["trt_fp16_enable"] = str(int(precision == "float16"))
    if resources.cache is not None:
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(resources.cache)}
        options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(resources.cache)}
    return options


def element_types(session: Any) -> dict[str, str]:
    return {item.name: "float32" if item.type == "tensor(float)" else item.type for item in session.get_inputs()}

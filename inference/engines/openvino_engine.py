"""OpenVINO on the CPU: bfloat16 where the processor has it, float32 elsewhere.

One image a request, always: a lone image takes every thread, several run side by side as one stream each. That is as
fast as a batch and every image goes through the same kernels. That both arrangements give the same bits is measured
when the engine is opened; where they do not, all images go through the streams.
"""

import importlib
import importlib.util
import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.engines import signal_stack
from inference.engines.engine import Arrays, Graph, Precision, Resources, joined
from inference.errors import PackageError, ProviderError

HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16"}
SEED = 20261121


def installed() -> bool:
    return importlib.util.find_spec("openvino") is not None


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16."""
    with signal_stack.kept():
        return "BF16" in _module().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoEngine:
    def __init__(self, graph: Graph, resources: Resources, precision: Precision) -> None:
        self.precision = precision
        self._graph = graph
        self._threads = resources.threads or len(os.sched_getaffinity(0))
        core = _module().Core()
        try:
            model = core.read_model(graph.model, b"")
            self.inputs = {_name(port): _type(port) for port in model.inputs}
            self.outputs = {name for port in model.outputs for name in port.get_names()}
            model.reshape({port: [1, *graph.input_shape] for port in model.inputs})
            with signal_stack.kept():
                self._streams = self._compile(core, model, min(self._threads, resources.batch))
                self._alone = self._compile(core, model, 1)
        except Exception as error:
            raise PackageError(f"{graph.file}: OpenVINO refuses it: {error}") from error
        self._assert_precision(self._alone[0])
        if self.outputs.issuperset(graph.wanted) and not self._same_bits():
            self._alone = self._streams

    @property
    def together(self) -> int:
        return len(self._streams)

    def run(self, images: NDArray[np.float32]) -> Arrays:
        return self._through(self._alone if len(images) == 1 else self._streams, images)

    def _compile(self, core: Any, model: Any, streams: int) -> list[Any]:
        """One request for each stream."""
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": HINTS[self.precision],
                "INFERENCE_NUM_THREADS": self._threads,
                "NUM_STREAMS": streams,
                "ENABLE_CPU_PINNING": False,  # other processes of the node live on the same cores
            },
        )
        return [compiled.create_infer_request() for _ in range(streams)]

    def _through(self, requests: list[Any], images: NDArray[np.float32]) -> Arrays:
        """Image i through request i modulo their number; a request is read before it is started again."""
        parts: list[Arrays] = []
        for i in range(len(images)):
            request = requests[i % len(requests)]
            if i >= len(requests):
                parts.append(self._result(request))
            request.start_async({self._graph.input_name: np.ascontiguousarray(images[i : i + 1])})
        for i in range(len(parts), len(images)):
            parts.append(self._result(requests[i % len(requests)]))
        return joined(parts, len(images))

    def _result(self, request: Any) -> Arrays:
        request.wait()
        return tuple(np.array(request.get_tensor(name).data) for name in self._graph.wanted)

    def _assert_precision(self, request: Any) -> None:
        """OpenVINO takes the hint as a wish. Raises ProviderError when it was not granted."""
        got = request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if got != HINTS[self.precision]:
            raise ProviderError(f"{self._graph.file}: OpenVINO computes in {got}, not in {HINTS[self.precision]}")

    def _same_bits(self) -> bool:
        noise = np.random.default_rng(SEED).uniform(-1.0, 1.0, (1, *self._graph.input_shape)).astype(np.float32)
        pairs = zip(self._through(self._alone, noise), self._through(self._streams, noise), strict=True)
        return all(np.array_equal(one, other, equal_nan=True) for one, other in pairs)


def _module() -> Any:
    """The package openvino, without the telemetry client that its tools would load. Raises ProviderError."""
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise ProviderError("look.provider is openvino, but the package openvino is not installed") from error


def _name(port: Any) -> str:
    return str(port.get_any_name())


def _type(port: Any) -> str:
    return "float32" if port.get_element_type().get_type_name() == "f32" else str(port.get_element_type())

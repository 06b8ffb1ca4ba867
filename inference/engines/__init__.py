"""What can compute a graph: ONNX Runtime (CPU, CUDA, TensorRT) and OpenVINO, behind one interface (ADR 0011)."""

from typing import Literal

from inference.engines import openvino_engine
from inference.engines.engine import Arrays, Engine, Graph, Precision, Provider, Resources
from inference.engines.onnx_engine import PROVIDERS, OnnxCpuEngine, OnnxGpuEngine, ort
from inference.engines.openvino_engine import OpenVinoEngine
from inference.errors import ProviderError

Wanted = Literal["auto", "cpu", "openvino", "cuda", "tensorrt"]
_GPU = "uninstall onnxruntime, then pip install --require-hashes -r requirements/gpu.txt"
HOW_TO_GET = {
    "cuda": _GPU,
    "tensorrt": f"{_GPU} and NVIDIA's TensorRT libraries",
    "openvino": "pip install --require-hashes -r requirements/openvino.txt",
    "cpu": "pip install --require-hashes -r requirements/cpu.txt",
}

__all__ = ["Arrays", "Engine", "Graph", "Precision", "Provider", "Resources", "Wanted", "candidates", "fast", "opened"]


def candidates(wanted: Wanted) -> tuple[Provider, ...]:
    """What to try, best first. "auto": CUDA, then OpenVINO, where they are installed, then the CPU.

    TensorRT only on request: its first start takes minutes. Raises ProviderError when what is demanded is missing.
    """
    there = _available()
    if wanted == "auto":
        return tuple(provider for provider in ("cuda", "openvino", "cpu") if provider in there)
    if wanted not in there:
        raise ProviderError(
            f"look.provider is {wanted}, but here there is only {', '.join(sorted(there))}: {HOW_TO_GET[wanted]},"
            ' or set look.provider to "auto"'
        )
    return (wanted,)


def fast(provider: Provider) -> Precision:
    """The precision in which a provider is quick; whether a package bears it is asked before it is used."""
    if provider == "tensorrt":
        return "float16"
    return "bfloat16" if provider == "openvino" and openvino_engine.has_bfloat16() else "float32"


def opened(graph: Graph, provider: Provider, precision: Precision, resources: Resources) -> Engine:
    """Raises PackageError or ProviderError."""
    if provider == "cpu":
        return OnnxCpuEngine(graph, resources)
    if provider == "openvino":
        return OpenVinoEngine(graph, resources, precision)
    return OnnxGpuEngine(graph, resources, provider, precision)


def _available() -> set[Provider]:
    built = ort.get_available_providers()
    there: set[Provider] = {"cpu", *(provider for provider, name in PROVIDERS.items() if name in built)}
    if openvino_engine.installed():
        there.add("openvino")
    return there

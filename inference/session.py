"""One package's ONNX Runtime session: the provider is asserted, the outputs are checked before they are believed."""

from typing import Any, Literal

import numpy as np
import onnxruntime
import structlog
from numpy.typing import NDArray

from inference.errors import PackageError, ProviderError
from inference.outputs import Outputs
from inference.package import Package
from inference.tasks import reader

log = structlog.get_logger()
ort: Any = onnxruntime
Provider = Literal["cpu", "cuda"]
PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Deterministic kernels and no search among algorithms: the same image must always get the same numbers.
CUDA_OPTIONS = {"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0"}
SEED = 20261120


class ModelSession:
    """Runs one package. Raises ProviderError when `provider` is not what really runs."""

    def __init__(self, package: Package, provider: Provider, threads: int, batch: int = 8) -> None:
        self.package = package
        self._batch = batch if provider == "cuda" else 1
        names = package.manifest.outputs
        self._roles = reader(package.manifest).roles
        self._wanted = [names.scores, names.features, *(getattr(names, role) for role in self._roles)]
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        wanted: list[Any] = [("CUDAExecutionProvider", CUDA_OPTIONS)] if provider == "cuda" else []
        try:
            self._session = ort.InferenceSession(package.model, options, [*wanted, "CPUExecutionProvider"])
        except Exception as error:
            raise PackageError(f"{package.folder / 'model.onnx'}: ONNX Runtime refuses it: {error}") from error
        self._session.disable_fallback()
        if self._session.get_providers()[0] != PROVIDERS[provider]:
            raise ProviderError(f"{package.key} runs on {self._session.get_providers()[0]}, not on {provider}")
        self._check_signature()

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """images: (N, 1, H, W) float32 in the manifest's value range, N >= 1.

        The company an image is in must not change its numbers, and kernels do differ by batch size: the CPU takes
        one image at a time (which costs it next to nothing), CUDA always a full batch, filled up with the last image.
        """
        parts = [self._run_fixed(images[start : start + self._batch]) for start in range(0, len(images), self._batch)]
        scores, features, *places = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Outputs(scores, features, dict(zip(self._roles, places, strict=True)))

    def _run_fixed(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """At most one batch, padded to exactly one."""
        n = len(images)
        full = np.concatenate([images, np.repeat(images[-1:], self._batch - n, axis=0)]) if n < self._batch else images
        arrays = self._session.run(self._wanted, {self.package.manifest.input.name: full})
        self._check_shapes(len(full), *arrays)
        return tuple(array[:n] for array in arrays)

    def self_test(self) -> None:
        """Look at noise before any patient: numbers only, in range, and passes that differ. Raises PackageError."""
        spec = self.package.manifest.input
        low, high = spec.value_range
        noise = np.random.default_rng(SEED).uniform(low, high, (2, 1, spec.height, spec.width)).astype(np.float32)
        outputs = self.run(noise)
        name = self.package.folder / "model.onnx"
        if not outputs.finite().all():
            raise PackageError(f"{name}: it returned numbers that are not finite for a picture of noise")
        if outputs.scores.min() < 0.0 or outputs.scores.max() > 1.0:
            raise PackageError(f"{name}: its scores are not between 0 and 1")
        passes = self.package.manifest.uncertainty.passes
        if passes > 1 and (np.ptp(outputs.scores, axis=1) == 0.0).all():
            raise PackageError(f"{name}: all {passes} passes are identical, so its uncertainty would always be 0")
        if self.package.distribution and self.package.distribution.mean.shape != outputs.features.shape[1:]:
            raise PackageError(f"{name}: its features do not fit the gate's file")

    def _check_signature(self) -> None:
        name = self.package.folder / "model.onnx"
        manifest = self.package.manifest
        inputs = {item.name: item.type for item in self._session.get_inputs()}
        if inputs != {manifest.input.name: "tensor(float)"}:
            raise PackageError(f"{name}: its input must be {manifest.input.name!r} of float32 and nothing else")
        outputs = {item.name for item in self._session.get_outputs()}
        missing = set(self._wanted) - outputs
        if missing:
            raise PackageError(f"{name}: it has no output {', '.join(sorted(missing))}")

    def _check_shapes(self, n: int, scores: Any, features: Any, *places: Any) -> None:
        manifest = self.package.manifest
        right = (
            scores.shape == (n, manifest.uncertainty.passes, len(manifest.labels))
            and features.ndim == 2
            and len(features) == n
            and reader(manifest).fits(manifest, n, dict(zip(self._roles, places, strict=True)))
        )
        if not right or any(array.dtype != np.float32 for array in (scores, features, *places)):
            raise PackageError(f"{self.package.folder / 'model.onnx'}: its outputs have not the shapes of the manifest")


def choose_provider(wanted: Literal["auto", "cpu", "cuda"]) -> Provider:
    """What to try: CUDA wherever this build of ONNX Runtime has it and the settings allow it.

    Raises ProviderError when CUDA is demanded and this build has none.
    """
    available = ort.get_available_providers()
    if wanted != "cpu" and PROVIDERS["cuda"] in available:
        return "cuda"
    if wanted == "cuda":
        raise ProviderError(f"look.provider is cuda, but this ONNX Runtime has only {', '.join(available)}")
    return "cpu"


def open_sessions(
    packages: tuple[Package, ...], wanted: Literal["auto", "cpu", "cuda"], threads: int, batch: int = 8
) -> tuple[dict[str, ModelSession], Provider, bool]:
    """A tested session for each package by its digest, the provider that runs them all, and whether it is degraded.

    "auto" that hoped for CUDA and got the CPU is degraded and says so; it is never silent.
    """
    provider, degraded = choose_provider(wanted), False
    try:
        sessions = {package.digest: ModelSession(package, provider, threads, batch) for package in packages}
    except (ProviderError, PackageError) as error:
        if wanted != "auto" or provider == "cpu":
            raise
        log.warning("provider_degraded", wanted="cuda", got="cpu", reason=str(error)[:300])
        provider, degraded = "cpu", True
        sessions = {package.digest: ModelSession(package, provider, threads, batch) for package in packages}
    for session in sessions.values():
        session.self_test()
    return sessions, provider, degraded

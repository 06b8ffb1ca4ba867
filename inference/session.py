"""One package's session: the provider is asserted, the outputs are checked before they are believed."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from config.settings import Settings
from inference.engines import Graph, Precision, Provider, Resources, Wanted, candidates, fast, opened
from inference.errors import PackageError, ProviderError
from inference.opened import Computing, Opened
from inference.outputs import Outputs
from inference.package import Installed, Package, Refused
from inference.self_test import self_test
from inference.tasks import reader
from inference.tolerance import REDUCED
from inference.views import run_all

log = structlog.get_logger()


class Member:
    """One ONNX file of a package on an engine. Raises ProviderError when `provider` is not what really runs."""

    def __init__(
        self, package: Package, index: int, provider: Provider, precision: Precision, resources: Resources
    ) -> None:
        self._manifest = package.manifest
        names, spec = package.manifest.outputs, package.manifest.input
        self._roles = reader(package.manifest).roles
        wanted = (names.scores, names.features, *(getattr(names, role) for role in self._roles))
        shape = (spec.channels, spec.height, spec.width)
        file = package.folder / package.manifest.members[index]
        self._graph = Graph(file, package.graphs[index], spec.name, shape, wanted)
        self._engine = opened(self._graph, provider, precision, resources)
        self.precision, self.together = self._engine.precision, self._engine.together
        self._check_signature()

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """images: (N, 1, H, W) float32 in the manifest's value range, N >= 1.

        The company an image is in does not change its numbers.
        """
        scores, features, *places = arrays = self._engine.run(images)
        self._check_shapes(len(images), *arrays)
        return Outputs(scores, features, dict(zip(self._roles, places, strict=True)))

    def _check_signature(self) -> None:
        name = self._graph.file
        if self._engine.inputs != {self._manifest.input.name: "float32"}:
            raise PackageError(f"{name}: its input must be {self._manifest.input.name!r} of float32 and nothing else")
        missing = set(self._graph.wanted) - self._engine.outputs
        if missing:
            raise PackageError(f"{name}: it has no output {', '.join(sorted(missing))}")

    def _check_shapes(self, n: int, scores: Any, features: Any, *places: Any) -> None:
        manifest = self._manifest
        right = (
            scores.shape == (n, manifest.uncertainty.passes, len(manifest.labels))
            and features.ndim == 2
            and len(features) == n
            and reader(manifest).fits(manifest, n, dict(zip(self._roles, places, strict=True)))
        )
        if not right or any(array.dtype != np.float32 for array in (scores, features, *places)):
            raise PackageError(f"{self._graph.file}: its outputs have not the shapes of the manifest")


class ModelSession:
    """Runs one package: every member over every view (inference/views.py).

    Sums are made in the provider's fast precision where the package's golden examples bear it, else in float32.
    """

    def __init__(
        self, package: Package, provider: Provider, resources: Resources, precision: Precision | None = None
    ) -> None:
        self.package, self.provider = package, provider
        self._open(precision or fast(provider), resources)
        if precision is None and self.precision != "float32" and not self._bears_it():
            log.warning("precision_refused", model=package.key, precision=self.precision)
            self._open("float32", resources)

    def _open(self, precision: Precision, resources: Resources) -> None:
        indices = range(len(self.package.manifest.members))
        self._members = [Member(self.package, index, self.provider, precision, resources) for index in indices]

    @property
    def precision(self) -> Precision:
        return self._members[0].precision

    @property
    def words(self) -> str:
        """For a report: "openvino bfloat16"."""
        return f"{self.provider} {self.precision}"

    @property
    def together(self) -> int:
        """So many images are computed side by side."""
        return self._members[0].together

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """images: (N, 1, H, W) float32 in the manifest's value range, N >= 1. T = passes * views * members."""
        return run_all([member.run for member in self._members], images, self.package.manifest.input)

    def _bears_it(self) -> bool:
        """Whether the package's golden examples come out as they should. Without any, nobody knows; nor of masks and
        boxes, which the examples do not hold."""
        if self.package.manifest.task != "classification":
            return False
        examples = golden_examples(self.package)
        if examples is None:
            return False
        images, expected = examples
        got = self.run(images).scores
        return got.shape == expected.shape and bool(np.abs(got - expected).max() <= REDUCED)

    def self_test(self) -> None:
        """Raises PackageError when the package does not behave (inference/self_test.py)."""
        self_test(self.package, [member.run for member in self._members])


def golden_examples(package: Package) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """images (n, 1, H, W) and scores (n, T, L) of the package's golden file; None when there are none to read."""
    if package.golden is None:
        return None
    try:
        with np.load(io.BytesIO(package.golden), allow_pickle=False) as arrays:
            return arrays["images"].astype(np.float32), arrays["scores"].astype(np.float32)
    except (KeyError, OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def open_sessions(
    packages: Sequence[Package], wanted: Wanted, resources: Resources, precision: Precision | None = None
) -> Opened:
    """A tested session for each package that behaves. precision: None for what each package bears.

    "auto" takes the first provider that runs whatever the last one runs; when that is not the one it hoped for it is
    degraded and says so, never in silence. What the last provider does not run either is the package's own fault. A
    provider that was demanded is the only one. Raises ProviderError when that is not installed.
    """
    providers = candidates(wanted)
    resources = replace(resources, all_on_gpu=wanted != "auto")
    for provider in providers:
        tried = [(package, _tried(package, provider, resources, precision)) for package in packages]
        refused = [(package, one) for package, one in tried if isinstance(one, Refused)]
        lesser = [] if provider == providers[-1] else _run_by(providers[-1], refused, resources, precision)
        if lesser:
            log.warning("provider_degraded", wanted=providers[0], failed=provider, reason=lesser[0].reason[:300])
            continue
        sessions = {package.digest: one for package, one in tried if isinstance(one, ModelSession)}
        computing = Computing(provider, providers[0] if provider != providers[0] else "")
        return Opened(sessions, computing, tuple(one for _, one in refused))
    raise AssertionError("the last provider runs what the last provider runs")


def load(packages: Sequence[Package], settings: Settings) -> Opened:
    """As `open_sessions`, by the settings of a site."""
    look = settings.look
    resources = Resources(look.threads, look.batch_max, settings.node.state_dir / "engines")
    return open_sessions(packages, look.provider, resources, None if look.precision == "auto" else look.precision)


def behaving(found: Installed) -> Installed:
    """The same, less the packages that fail their self-test on the CPU, which every installation has."""
    opened = open_sessions(found.packages, "cpu", Resources())
    packages = tuple(package for package in found.packages if package.digest in opened.sessions)
    return replace(found, packages=packages, refused=(*found.refused, *opened.refused))


def _run_by(
    provider: Provider, refused: list[tuple[Package, Refused]], resources: Resources, precision: Precision | None
) -> list[Refused]:
    """Those of the refused that run on `provider`: then it is not their fault."""
    return [
        one for package, one in refused if isinstance(_tried(package, provider, resources, precision), ModelSession)
    ]


def _tried(
    package: Package, provider: Provider, resources: Resources, precision: Precision | None
) -> ModelSession | Refused:
    try:
        session = ModelSession(package, provider, resources, precision)
        session.self_test()
    except (PackageError, ProviderError) as error:
        return Refused(package.folder, str(error), package.manifest, package.digest)
    return session

"""Model packages on disk: found, checked against their pinned hashes, and held in memory before anything runs them.

Every file is read once, without following links; what was hashed is what is used. A package that fails any check is
refused whole and by name, and the others serve (ADR 0012).
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from config.settings import LookSettings
from inference.distribution import FeatureDistribution, load_distribution
from inference.errors import PackageError
from inference.licence import unaccepted
from inference.manifest import MANIFEST, Manifest, parse_manifest
from inference.onnx_check import onnx_problems
from inference.views import total_passes
from ledger.records import ModelIdentity, VolumeRule

MAX_FILE_BYTES = 2_000_000_000
GOLDEN = "golden.npz"


@dataclass(frozen=True)
class Package:
    """One model, version and all, in memory. `digest` is the SHA-256 of the manifest, which pins every other file."""

    folder: Path
    manifest: Manifest
    digest: str
    graphs: tuple[bytes, ...] = field(repr=False)  # the ONNX file of each member
    distribution: FeatureDistribution | None = field(repr=False)
    golden: bytes | None = field(default=None, repr=False)  # examples to replay, an npz

    @property
    def model(self) -> bytes:
        """The first member's ONNX file; most packages have no other."""
        return self.graphs[0]

    @property
    def key(self) -> str:
        return f"{self.manifest.name}/{self.manifest.version}"

    @property
    def identity(self) -> ModelIdentity:
        return identity(self.manifest, self.digest)


@dataclass(frozen=True)
class Refused:
    """A package that is there and cannot be used. manifest, digest: None and empty where it cannot be read; then
    nobody knows what the package would have read."""

    folder: Path
    reason: str  # for whoever runs the node: it names the file
    manifest: Manifest | None = field(default=None, repr=False)
    digest: str = ""

    @property
    def name(self) -> str:
        return f"{self.folder.parent.name} {self.folder.name}"

    @property
    def sentence(self) -> str:
        return f"the model package {self.name} is refused: {self.reason}"


@dataclass(frozen=True)
class Installed:
    """What the settings choose among the packages that are there. passed_over: their licence is not accepted."""

    packages: tuple[Package, ...]
    refused: tuple[Refused, ...] = ()
    passed_over: tuple[Manifest, ...] = ()

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """All that can be read."""
        refused = (one.manifest for one in self.refused if one.manifest)
        return (*(package.manifest for package in self.packages), *refused, *self.passed_over)


def identity(manifest: Manifest, digest: str) -> ModelIdentity:
    """What results say of the package that they are from."""
    passes = total_passes(manifest.uncertainty.passes, manifest.input, len(manifest.members))
    rule = manifest.segmentation
    volume_rule = VolumeRule(rule.min_slices, rule.min_volume_ml) if rule else None
    return ModelIdentity(manifest.name, manifest.version, digest, passes, manifest.uncertainty.text, volume_rule)


def default_models_dir() -> Path:
    """The folder `models` beside the packages: the checkout's, or the installation's."""
    return Path(__file__).resolve().parents[1] / "models"


def installed(look: LookSettings) -> Installed:
    """The packages that the settings name: the newest version of each name, or the one of "name/version". No names:
    all that are there. Raises PackageError for a name without a package."""
    packages: list[Package] = []
    refused: list[Refused] = []
    passed_over: list[Manifest] = []
    for folder in _chosen(look):
        manifest, digest = None, ""
        try:
            manifest, digest = _manifest(folder)
            why = unaccepted(manifest, look)
            if why and not look.models:
                passed_over.append(manifest)
            elif why:
                raise PackageError(f"{folder}: {why}")
            else:
                packages.append(_loaded(folder, manifest, digest))
        except PackageError as error:
            refused.append(Refused(folder, str(error), manifest, digest))
    return Installed(tuple(packages), tuple(refused), tuple(passed_over))


def check_enough(packages: Sequence[Package], refused: Sequence[Refused], look: LookSettings) -> None:
    """Raises PackageError when the refused leave nothing to serve with, or when the settings asked for one of them."""
    if refused and look.models:
        named = (f"look.models names {one.folder.parent.name!r}, but {one.sentence}" for one in refused)
        raise PackageError("; ".join(named))
    if refused and not packages:
        raise PackageError(f"no model package is left: {'; '.join(one.sentence for one in refused)}")


def load_packages(look: LookSettings) -> tuple[Package, ...]:
    """The packages of `installed` that can be used. Raises PackageError as `check_enough` does."""
    found = installed(look)
    check_enough(found.packages, found.refused, look)
    return found.packages


def _chosen(look: LookSettings) -> list[Path]:
    root = default_models_dir() if look.models_dir == Path() else look.models_dir
    found = find_packages(root)
    if not look.models:
        return [versions[-1] for _, versions in sorted(found.items())]
    return [_choose(root, found, wanted) for wanted in dict.fromkeys(look.models)]


def find_packages(root: Path) -> dict[str, list[Path]]:
    """Folders <name>/<version> that hold a manifest, by name, the newest version last."""
    found: dict[str, list[Path]] = {}
    for manifest in root.glob(f"*/*/{MANIFEST}"):
        found.setdefault(manifest.parents[1].name, []).append(manifest.parent)
    return {name: sorted(folders, key=_version_order) for name, folders in found.items()}


def load_package(folder: Path) -> Package:
    """Read and check one package. Raises PackageError."""
    return _loaded(folder, *_manifest(folder))


def _loaded(folder: Path, manifest: Manifest, digest: str) -> Package:
    """The package of a manifest that was read."""
    files = {name: _read_pinned(folder, name, sha256) for name, sha256 in manifest.files.items()}
    for member in manifest.members:
        problems = onnx_problems(files[member])
        if problems:
            raise PackageError(f"{folder / member}: {'; '.join(problems)}")
    distribution = _distribution(folder, manifest, files)
    graphs = tuple(files[member] for member in manifest.members)
    return Package(folder, manifest, digest, graphs, distribution, files.get(GOLDEN))


def _manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest and the SHA-256 of its bytes."""
    if folder.is_symlink() or folder.parent.is_symlink():
        raise PackageError(f"{folder}: a package must not be a link")
    content = _read(folder, MANIFEST)
    try:
        manifest = parse_manifest(content)
    except ValueError as error:
        raise PackageError(f"{folder / MANIFEST}: {error}") from None
    if (folder.parent.name, folder.name) != (manifest.name, manifest.version):
        raise PackageError(f"{folder}: the manifest says {manifest.name}/{manifest.version}")
    return manifest, hashlib.sha256(content).hexdigest()


def _distribution(folder: Path, manifest: Manifest, files: dict[str, bytes]) -> FeatureDistribution | None:
    if manifest.gate is None:
        return None
    try:
        return load_distribution(files[manifest.gate.file])
    except ValueError as error:
        raise PackageError(f"{folder / manifest.gate.file}: {error}") from None


def _choose(root: Path, found: dict[str, list[Path]], wanted: str) -> Path:
    name, _, version = wanted.partition("/")
    versions = [folder for folder in found.get(name, []) if version in ("", folder.name)]
    if not versions:
        raise PackageError(f"look.models names {wanted!r}, but {root} has {', '.join(sorted(found)) or 'no package'}")
    return versions[-1]


def _version_order(folder: Path) -> tuple[tuple[int, ...], bool, str]:
    """1.10.0 after 1.9.0; a pre-release before its release."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", folder.name.split("-")[0]))
    return numbers, "-" not in folder.name, folder.name


def _read_pinned(folder: Path, name: str, sha256: str) -> bytes:
    content = _read(folder, name)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PackageError(f"{folder / name}: its SHA-256 is not the one that the manifest pins")
    return content


def _read(folder: Path, name: str) -> bytes:
    """One regular file directly inside the folder; a link is refused."""
    path = folder / name
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        why = "a package's file must not be a link" if path.is_symlink() else error.strerror
        raise PackageError(f"{path}: {why}") from None
    with os.fdopen(fd, "rb") as file:
        if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
            raise PackageError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        return file.read()

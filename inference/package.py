"""Model packages on disk: found, checked against their pinned hashes, and held in memory before anything runs them.

Every file is read once, without following links; what was hashed is what is used. A package that fails any check is
refused whole, and the error names the file.
"""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from config.settings import LookSettings
from inference.distribution import FeatureDistribution, load_distribution
from inference.errors import PackageError
from inference.licence import unaccepted
from inference.manifest import MANIFEST, Manifest, parse_manifest
from inference.onnx_check import onnx_problems
from inference.views import total_passes
from ledger.records import ModelIdentity, VolumeRule

log = structlog.get_logger()
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
        manifest = self.manifest
        words = manifest.uncertainty.text
        passes = total_passes(manifest.uncertainty.passes, manifest.input, len(manifest.members))
        rule = manifest.segmentation
        return ModelIdentity(
            manifest.name,
            manifest.version,
            self.digest,
            passes,
            words,
            VolumeRule(rule.min_slices, rule.min_volume_ml) if rule else None,
        )


def default_models_dir() -> Path:
    """The folder `models` beside the packages: the checkout's, or the installation's."""
    return Path(__file__).resolve().parents[1] / "models"


def load_packages(look: LookSettings) -> tuple[Package, ...]:
    """The packages that the settings name: the newest version of each name, or the one of "name/version".

    No names: all that are there, except those whose licence the settings do not accept, which are logged. Raises
    PackageError for a package that is refused, for a name without a package, for a name whose licence is not accepted.
    """
    for manifest in passed_over(look):
        log.warning(
            "package_passed_over", model=f"{manifest.name}/{manifest.version}", licence=manifest.licence.weights
        )
    return tuple(load_package(folder) for folder in _chosen(look) if not _unaccepted_unless_named(folder, look))


def passed_over(look: LookSettings) -> tuple[Manifest, ...]:
    """The packages that are there and are not used because of their licence. Raises PackageError."""
    if look.models:
        return ()
    return tuple(_manifest(folder)[0] for folder in _chosen(look) if _unaccepted_unless_named(folder, look))


def named(look: LookSettings) -> tuple[Manifest, ...]:
    """The manifests of the packages that the settings name, used or not. Raises PackageError."""
    return tuple(_manifest(folder)[0] for folder in _chosen(look)) if look.models else ()


def _chosen(look: LookSettings) -> list[Path]:
    root = default_models_dir() if look.models_dir == Path() else look.models_dir
    found = find_packages(root)
    if not look.models:
        return [versions[-1] for _, versions in sorted(found.items())]
    return [_choose(root, found, wanted) for wanted in dict.fromkeys(look.models)]


def _unaccepted_unless_named(folder: Path, look: LookSettings) -> str:
    """Why the package is passed over. Raises PackageError when the settings name it: then nobody passes over it."""
    why = unaccepted(_manifest(folder)[0], look)
    if why and look.models:
        raise PackageError(f"{folder}: {why}")
    return why


def find_packages(root: Path) -> dict[str, list[Path]]:
    """Folders <name>/<version> that hold a manifest, by name, the newest version last."""
    found: dict[str, list[Path]] = {}
    for manifest in root.glob(f"*/*/{MANIFEST}"):
        found.setdefault(manifest.parents[1].name, []).append(manifest.parent)
    return {name: sorted(folders, key=_version_order) for name, folders in found.items()}


def load_package(folder: Path) -> Package:
    """Read and check one package. Raises PackageError."""
    manifest, content = _manifest(folder)
    files = {name: _read_pinned(folder, name, sha256) for name, sha256 in manifest.files.items()}
    for member in manifest.members:
        problems = onnx_problems(files[member])
        if problems:
            raise PackageError(f"{folder / member}: {'; '.join(problems)}")
    distribution = _distribution(folder, manifest, files)
    graphs = tuple(files[member] for member in manifest.members)
    return Package(folder, manifest, hashlib.sha256(content).hexdigest(), graphs, distribution, files.get(GOLDEN))


def _manifest(folder: Path) -> tuple[Manifest, bytes]:
    """The manifest and the bytes it was read from."""
    if folder.is_symlink() or folder.parent.is_symlink():
        raise PackageError(f"{folder}: a package must not be a link")
    content = _read(folder, MANIFEST)
    try:
        manifest = parse_manifest(content)
    except ValueError as error:
        raise PackageError(f"{folder / MANIFEST}: {error}") from None
    if (folder.parent.name, folder.name) != (manifest.name, manifest.version):
        raise PackageError(f"{folder}: the manifest says {manifest.name}/{manifest.version}")
    return manifest, content


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

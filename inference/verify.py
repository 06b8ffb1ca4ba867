"""`models verify`: everything that loading checks, then the golden examples replayed on this machine."""

from pathlib import Path

import numpy as np

from inference.engines import Resources
from inference.errors import CannotLook, PackageError, ProviderError
from inference.manifest import MANIFEST
from inference.package import GOLDEN, Package, load_package
from inference.session import ModelSession, golden_examples
from inference.tolerance import OTHER_MACHINE


def verify(folder: Path) -> list[str]:
    """What is wrong with a package, in sentences; empty when nothing is."""
    try:
        package = load_package(folder)
        session = ModelSession(package, "cpu", Resources())
        session.self_test()
    except (PackageError, ProviderError, CannotLook) as error:
        return [str(error)]
    return [*_strangers(package), *_replay(package, session)]


def _strangers(package: Package) -> list[str]:
    known = {MANIFEST, *package.manifest.files}
    names = sorted(path.name for path in package.folder.iterdir() if path.name not in known)
    return [f"{package.folder / name}: the manifest does not list this file" for name in names]


def _replay(package: Package, session: ModelSession) -> list[str]:
    path = package.folder / GOLDEN
    if GOLDEN not in package.manifest.files:
        return [f"{path}: there are no golden examples to replay"]
    examples = golden_examples(package)
    if examples is None:
        return [f"{path}: it is not an npz of images and scores"]
    images, expected = examples
    got = session.run(images).scores
    if got.shape != expected.shape:
        return [f"{path}: the model returns scores of another shape"]
    worst = float(np.abs(got - expected).max())
    return [] if worst <= OTHER_MACHINE else [f"{path}: a score differs by {worst:.2g}, allowed are {OTHER_MACHINE:g}"]

"""What a package is put through before any patient: pictures that no model was made for must still get numbers, and
not all of them the same."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.errors import PackageError
from inference.outputs import Outputs
from inference.package import Package
from inference.views import Run, run_all

SEED = 20261120
BETWEEN_0_AND_1 = ("masks", "box_scores")


def self_test(package: Package, members: Sequence[Run]) -> None:
    """Each member by itself, then all of them over all views: numbers only, in range, and passes that differ.

    Raises PackageError, which names the member's file.
    """
    spec, passes = package.manifest.input, package.manifest.uncertainty.passes
    pictures = {"a picture of noise": _noise(package), "a picture of one grey": _greys(package)}
    for name, run in zip(package.manifest.members, members, strict=True):
        told = {what: run(images) for what, images in pictures.items()}
        for what, outputs in told.items():
            _check_numbers(package, name, outputs, what)
        if passes > 1:
            _check_passes(package, name, list(told.values()), passes)
        if package.manifest.task == "classification":  # a detector may rightly find nothing in any of them
            _check_difference(package, name, list(told.values()))
    _check_gate(package, members[0](pictures["a picture of noise"]))
    if len(members) > 1 or len(spec.test_time) > 1:
        together = run_all(members, pictures["a picture of noise"], spec)
        _check_passes(package, package.manifest.members[0], [together], together.scores.shape[1])


def _noise(package: Package) -> NDArray[np.float32]:
    spec = package.manifest.input
    low, high = spec.value_range
    return np.random.default_rng(SEED).uniform(low, high, (2, 1, spec.height, spec.width)).astype(np.float32)


def _greys(package: Package) -> NDArray[np.float32]:
    """Black, mid-grey, white: a model that divides by a picture's spread has no number for them."""
    spec = package.manifest.input
    low, high = spec.value_range
    greys = np.array([low, (low + high) / 2.0, high], np.float32)
    return np.broadcast_to(greys.reshape(3, 1, 1, 1), (3, 1, spec.height, spec.width)).copy()


def _check_numbers(package: Package, name: str, outputs: Outputs, what: str) -> None:
    if not outputs.finite().all():
        raise PackageError(f"{package.folder / name}: it returned numbers that are not finite for {what}")
    shares = {"scores": outputs.scores} | {r: a for r, a in outputs.places.items() if r in BETWEEN_0_AND_1}
    for said, array in shares.items():
        if array.size and (array.min() < 0.0 or array.max() > 1.0):
            raise PackageError(f"{package.folder / name}: its {said} are not between 0 and 1 for {what}")


def _check_passes(package: Package, name: str, told: list[Outputs], passes: int) -> None:
    if all((np.ptp(outputs.scores, axis=1) == 0.0).all() for outputs in told):
        raise PackageError(
            f"{package.folder / name}: all {passes} passes are identical, so its uncertainty would always be 0"
        )


def _check_difference(package: Package, name: str, told: list[Outputs]) -> None:
    scores = np.concatenate([outputs.scores for outputs in told])
    if (np.ptp(scores, axis=0) == 0.0).all():
        raise PackageError(f"{package.folder / name}: it says the same of noise, black, grey and white")


def _check_gate(package: Package, outputs: Outputs) -> None:
    if package.distribution and package.distribution.mean.shape != outputs.features.shape[1:]:
        raise PackageError(f"{package.folder / package.manifest.members[0]}: its features do not fit the gate's file")

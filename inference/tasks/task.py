"""The seam between looking and a task: which outputs it needs, and what they say of one image."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from config.settings import DecideSettings
from inference.manifest import Manifest
from inference.outputs import Role
from ledger.records import Finding, SliceMask
from ledger.store import Store

Places = Mapping[Role, NDArray[np.float32]]


@dataclass(frozen=True)
class SeenImage:
    """One image as its model saw it.

    scores: (T, L) raw. places: by role, without the batch axis (inference/outputs.py). source_shape: (rows, columns)
    of the source image. store: where files may be put; None when nothing may be kept.
    """

    manifest: Manifest
    settings: DecideSettings
    scores: NDArray[np.float32] = field(repr=False)
    places: Places = field(repr=False)
    source_shape: tuple[int, int]
    store: Store | None = None


@dataclass(frozen=True)
class Said:
    """findings: most probable first, each of them stated, present or not."""

    findings: tuple[Finding, ...]
    masks: tuple[SliceMask, ...] = ()


class TaskReader(Protocol):
    """Stateless. `roles`: the outputs that a package of this task must have besides scores and features."""

    @property
    def roles(self) -> tuple[Role, ...]: ...

    def fits(self, manifest: Manifest, n: int, places: Places) -> bool:
        """Whether the arrays (first axis: n images) have the shapes that the manifest promises."""
        ...

    def read(self, image: SeenImage) -> Said:
        """Findings of one image, and what marks their place. Never raises for what a model may return."""
        ...

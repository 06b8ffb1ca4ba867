"""What a package's graphs gave for a batch of images, before anything is believed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Role = Literal["cam", "masks", "boxes", "box_scores"]


@dataclass(frozen=True)
class Outputs:
    """Of N images, all float32.

    scores (N, T, L) in (0, 1), uncalibrated; features (N, C). places: where things are, by role, as the task has it:
    cam (N, L, h, w); masks (N, L, H, W) in (0, 1); boxes (N, B, 4) and box_scores (N, B, L) in (0, 1).
    """

    scores: NDArray[np.float32]
    features: NDArray[np.float32]
    places: Mapping[Role, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def cam(self) -> NDArray[np.float32]:
        return self.places["cam"]

    def arrays(self) -> Iterator[NDArray[np.float32]]:
        yield from (self.scores, self.features, *self.places.values())

    def place(self, i: int) -> dict[Role, NDArray[np.float32]]:
        """The places of image i, without the first axis."""
        return {role: array[i] for role, array in self.places.items()}

    def finite(self) -> NDArray[np.bool_]:
        """(N,): which images have numbers only. A NaN must never become "nothing found"."""
        flat = (array.reshape(len(array), -1) for array in self.arrays())
        return np.asarray(np.logical_and.reduce([np.isfinite(array).all(axis=1) for array in flat]))

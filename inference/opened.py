"""What came of loading the packages: a session for each that behaves, wherever it computes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from inference.outputs import Outputs
from inference.package import Refused

if TYPE_CHECKING:  # importing it loads the runtimes, which whoever has them in another process does without
    from inference.engines import Provider


class Session(Protocol):
    """One package, loaded and tested."""

    @property
    def words(self) -> str:
        """For a report: "openvino bfloat16"."""
        ...

    @property
    def together(self) -> int:
        """So many images are computed side by side; of more than that the rest waits for them."""
        ...

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """images: (N, 1, H, W) float32 in the manifest's value range, N >= 1."""
        ...


@dataclass(frozen=True)
class Computing:
    """How the numbers were made, for health and reports. wished: the better provider that failed; empty: none."""

    provider: "Provider"
    wished: str = ""

    @property
    def degraded(self) -> bool:
        return bool(self.wished)


@dataclass(frozen=True)
class Opened:
    """Sessions by their package's digest. refused: packages that do not behave; the others serve."""

    sessions: Mapping[str, Session]
    computing: Computing
    refused: tuple[Refused, ...] = ()

"""The seam between a package and whatever computes its graph: one graph on one device."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Provider = Literal["cpu", "openvino", "cuda", "tensorrt"]
Precision = Literal["float32", "bfloat16", "float16"]
Arrays = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Graph:
    """What an engine is given. file: for messages only. input_shape: (channels, height, width) of one image."""

    file: Path
    model: bytes = field(repr=False)
    input_name: str
    input_shape: tuple[int, int, int]
    wanted: tuple[str, ...]  # outputs, in the order in which `run` returns them


@dataclass(frozen=True)
class Resources:
    """threads: 0 for every core. batch: most images that will wait at once. cache: where built engines are kept.

    all_on_gpu: on a GPU, a graph is refused when the runtime would compute any node of it on the CPU."""

    threads: int = 0
    batch: int = 8
    cache: Path | None = None
    all_on_gpu: bool = False


class Engine(Protocol):
    """Opened with PackageError for a graph that it refuses, ProviderError for a device that it does not get."""

    @property
    def precision(self) -> Precision:
        """In which the sums are made."""
        ...

    @property
    def together(self) -> int:
        """So many images of a batch are computed side by side; the others wait for them."""
        ...

    @property
    def inputs(self) -> dict[str, str]:
        """Name to element type, such as "float32"."""
        ...

    @property
    def outputs(self) -> set[str]: ...

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """images: (N, channels, height, width), N >= 1. The wanted outputs, first axis N.

        The company an image is in changes none of its bits.
        """
        ...


def pieces(images: NDArray[np.float32], size: int) -> list[NDArray[np.float32]]:
    """Batches of exactly `size`, the last one filled up with its last image."""
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    short = size - len(parts[-1])
    if short:
        parts[-1] = np.concatenate([parts[-1], np.repeat(parts[-1][-1:], short, axis=0)])
    return parts


def joined(parts: Sequence[Arrays], n: int) -> Arrays:
    """Output by output, without what `pieces` filled up."""
    return tuple(np.concatenate(part)[:n] for part in zip(*parts, strict=True))

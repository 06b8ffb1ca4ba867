"""Pictures that the gate should or need not let through, to measure what it does.

Nothing is fitted to them. They were in view when the layers that feed the gate were chosen; the card says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.packaging.look import read_grey

Pictures = list[NDArray[np.float32]]
AGE = 3.0  # told of every picture, so that only pixels can speak against it


@dataclass(frozen=True)
class Probe:
    """A named set: pictures in memory or files, with what a person would expect."""

    name: str
    expected: str
    pictures: Pictures | None = None
    files: tuple[Path, ...] = ()


def probes(data: Path, chests: Sequence[Path]) -> list[Probe]:
    """chests: pictures of the test split, for the sets that are made from them."""
    some = [read_grey(path) for path in chests[::6]]
    return [
        Probe("fracture (limb radiographs)", "refused", files=_every(data / "fracture" / "images", 8)),
        Probe("brain_flair (MR slices)", "refused", pictures=_grey(_every(data / "brain_flair" / "images", 20))),
        Probe("noise", "refused", pictures=_noise()),
        Probe("test chests, brightness inverted", "refused", pictures=[1.0 - picture for picture in some]),
        Probe("test chests, turned by 90 degrees", "refused", pictures=[np.rot90(picture).copy() for picture in some]),
        Probe("test chests, upside down", "better refused", pictures=[picture[::-1].copy() for picture in some]),
        Probe("test chests, left and right exchanged", "not tellable", pictures=[p[:, ::-1].copy() for p in some]),
        Probe("test chests, enlarged to 1024 x 1024", "accepted", pictures=[_resized(p, 1024) for p in some]),
        Probe("test chests, blurred (128 pixels)", "accepted", pictures=[_resized(p, 128) for p in some]),
        Probe("test chests, gamma 0.7", "accepted", pictures=[p ** np.float32(0.7) for p in some]),
        Probe("test chests, gamma 1.4", "accepted", pictures=[p ** np.float32(1.4) for p in some]),
    ]


def header_probes(data: Path) -> list[Probe]:
    """DICOM files with the header they came with."""
    wg04 = tuple(path for path in sorted((data / "dicom" / "wg04").rglob("*")) if path.is_file())
    return [
        Probe("dog, as its header calls it a chest", "refused", files=(data / "dicom" / "dx_not_a_human_chest.dcm",)),
        Probe("NEMA WG04", "not analysed", files=wg04),
    ]


def _every(folder: Path, step: int) -> tuple[Path, ...]:
    return tuple(sorted(folder.iterdir())[::step])


def _grey(paths: Sequence[Path]) -> Pictures:
    return [read_grey(path) for path in paths]


def _noise() -> Pictures:
    """White noise, and noise with grains of 3 to 56 pixels."""
    rng = np.random.default_rng(0)
    fine: Pictures = [rng.random((224, 224), np.float32) for _ in range(5)]
    return fine + [_resized(rng.random((side, side), np.float32), 224) for side in (4, 8, 16, 32, 64)]


def _resized(picture: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    small = Image.fromarray(picture, mode="F").resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(small, np.float32)

"""Pictures for the tiny test model: bright ones it calls pneumonia, dark ones it does not."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from tests.support.dx import make_dx, write


def bright(**overrides: Any) -> Dataset:
    """A DX whose study the tiny model makes HIGH."""
    return make_dx(_noise(3300), PatientAge="003Y", **overrides)


def dark(**overrides: Any) -> Dataset:
    """A DX that the tiny model does not flag."""
    return make_dx(_noise(300), PatientAge="003Y", **overrides)


def save(ds: Dataset, folder: Path) -> Path:
    """Write under the SOP Instance UID."""
    folder.mkdir(parents=True, exist_ok=True)
    return write(ds, folder / f"{ds.SOPInstanceUID}.dcm")


def _noise(level: int) -> Any:
    return np.random.default_rng(1).integers(level - 250, level + 250, (256, 256)).astype(np.uint16)

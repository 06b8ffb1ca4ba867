"""Processes of models that die of some pictures (tests/support/deadly_models.py)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from config.settings import LookSettings, Settings
from inference import model_process
from inference.package import Package, load_packages
from tests.support.deadly_models import DIES
from tests.support.dx import make_dx
from tests.support.packages import write_package
from tests.support.realdata import ROOT

ENTRY = "from inference.model_child import main"
PROGRAM = model_process.PROGRAM.replace(
    ENTRY, f"sys.path.insert(0, {str(ROOT)!r}); from tests.support.deadly_models import install; install(); {ENTRY}"
)


@contextlib.contextmanager
def deadly_pictures() -> Iterator[None]:
    """Processes that are started meanwhile die of them."""
    assert ENTRY in model_process.PROGRAM
    with patch.object(model_process, "PROGRAM", PROGRAM):
        yield


def settings_in(folder: Path, **look: Any) -> Settings:
    """With one tiny package on the CPU, where images go through the model one after another."""
    if not (folder / "models").exists():
        write_package(folder / "models")
    asked = {"models_dir": folder / "models", "threads": 1, "provider": "cpu", **look}
    return Settings.model_validate({"node": {"state_dir": folder / "state"}, "look": asked})


def packages(settings: Settings) -> tuple[Package, ...]:
    look: LookSettings = settings.look
    return load_packages(look)


def deadly(kind: float = DIES) -> Any:
    """A radiograph that the tiny model's process dies of."""
    level = (kind + 1.0) / 2.0 * 4095.0
    values = np.random.default_rng(3).integers(int(level) - 20, int(level) + 20, (256, 256)).astype(np.uint16)
    return make_dx(values, PatientAge="003Y")

"""Where the real images are; nothing of them is part of the product."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def data_folder() -> Path:
    """OPENTRIAGE_DATA, else ../shared/data beside the repository; there may be none."""
    return Path(os.environ.get("OPENTRIAGE_DATA") or ROOT.parent / "shared" / "data")


def data_dir() -> Path:
    """The folder of real images; skips the test when there is none."""
    folder = data_folder()
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}: set OPENTRIAGE_DATA")
    return folder


def need_data(relative: str) -> Path:
    """One file or folder of the real images; skips the test when it is not there."""
    path = data_dir() / relative
    if not path.exists():
        pytest.skip(f"no real images at {path}: set OPENTRIAGE_DATA")
    return path

"""Fixtures for every test; what needs more lives beside its tests."""

from pathlib import Path

import pytest

from tests.support import realdata


@pytest.fixture
def data() -> Path:
    """The folder of real images; skips when absent."""
    return realdata.data_dir()

"""Fixtures for every test; what needs more lives beside its tests."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.support import realdata


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A test that configures logging configures it for itself alone."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def own_garbage(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that tolerates another library's leak meets it itself, not a later test that tolerates nothing."""
    yield
    if request.node.get_closest_marker("filterwarnings"):
        gc.collect()


@pytest.fixture
def data() -> Path:
    """The folder of real images; skips when absent."""
    return realdata.data_dir()

"""Fixtures of whole nodes: a tiny model that calls bright pictures pneumonia, and what starts and stops them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.packages import write_package
from tests.support.running import RunningNode

StartNode = Callable[..., RunningNode]


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one tiny package: the brighter a picture, the higher its score."""
    root = tmp_path_factory.mktemp("models")
    write_package(root)
    return root


@pytest.fixture
def start_node(tmp_path: Path, models_dir: Path) -> Iterator[StartNode]:
    """Start nodes that are stopped when the test ends, however it ends."""
    started: list[RunningNode] = []

    def start(*destinations: tuple[str, int], extra: str = "", **study: float) -> RunningNode:
        look = f'[look]\nmodels_dir = "{models_dir}"\nthreads = 1\nlease_s = 5.0\n'
        node = RunningNode(tmp_path / f"node{len(started)}", destinations, look + extra, **study)
        started.append(node)
        node.start()
        return node

    yield start
    for node in started:
        node.stop()

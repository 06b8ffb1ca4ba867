"""Receivers that stop with their test, one run per network engine."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from scp.receiver import ENGINES
from tests.support.receiving import Receiving, StartReceiving, start_receiving


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(tmp_path: Path, engine: str) -> Iterator[StartReceiving]:
    """start(store=..., study=..., **receive settings) -> Receiving; stopped at the end of the test."""
    started: list[Receiving] = []

    def starter(**changes: Any) -> Receiving:
        running = partial(start_receiving, tmp_path, engine=engine)(**changes)
        started.append(running)
        return running

    yield starter
    for running in started:
        running.receiver.stop(0.0)
        running.ledger.close()


@pytest.fixture
def node(start: StartReceiving) -> Receiving:
    return start()

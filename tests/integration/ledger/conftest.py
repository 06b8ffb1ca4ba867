"""The same contract over both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.ledger import Ledger
from ledger.store import Store
from tests.support.ledger_story import Story
from tests.support.ledgers import laid
from tests.support.postgres import Databases, postgres_server


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url, Databases(url) as databases:
        yield databases


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database; one that has the tables already where the test asks for `ledger`."""
    has_tables = "ledger" in request.fixturenames
    if request.param == "sqlite":
        empty = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
        return laid(empty) if has_tables else empty
    databases: Databases = request.getfixturevalue("databases")
    return databases.migrated() if has_tables else databases.empty()


@pytest.fixture
def ledger(url: str, tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(url, Store(tmp_path / "store"))
    yield ledger
    ledger.close()


@pytest.fixture
def story(ledger: Ledger) -> Story:
    return Story(ledger)

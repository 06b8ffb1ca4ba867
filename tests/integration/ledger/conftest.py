"""The same contract over both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from ledger.ledger import Ledger
from ledger.store import Store
from tests.support.ledger_story import Story
from tests.support.ledgers import laid
from tests.support.postgres import postgres_server


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    url: str = request.getfixturevalue("postgres_url")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
def ledger(url: str, tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(laid(url), Store(tmp_path / "store"))
    yield ledger
    ledger.close()


@pytest.fixture
def story(ledger: Ledger) -> Story:
    return Story(ledger)

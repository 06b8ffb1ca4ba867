"""A site of its own for each test that asks a ledger."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from config import Settings, load_settings
from node.wiring import open_ledger
from tests.support.ledger_story import Story
from tests.support.ledgers import laid


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Its settings file."""
    path = tmp_path / "site.toml"
    path.write_text(f'[node]\nstate_dir = "{tmp_path}"\n')
    return path


@pytest.fixture
def settings(site: Path) -> Settings:
    return load_settings(site)


@pytest.fixture
def story(settings: Settings) -> Iterator[Story]:
    laid(settings.database_url)
    ledger = open_ledger(settings)
    yield Story(ledger)
    ledger.close()

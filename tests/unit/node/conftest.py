"""A site of its own for each test that asks a ledger."""

from pathlib import Path

import pytest


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Its settings file."""
    path = tmp_path / "site.toml"
    path.write_text(f'[node]\nstate_dir = "{tmp_path}"\n')
    return path

"""An analyser over a tiny synthetic package, its children warm for the whole module."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.settings import LookSettings, Settings
from inference.analyser import Analyser
from inference.package import load_packages
from ledger.store import Store
from tests.support.packages import write_package

MakeAnalyser = Callable[..., Analyser]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.prepare()
    return store


@pytest.fixture
def make_analyser(tmp_path: Path) -> Iterator[MakeAnalyser]:
    """make_analyser(store=None, look={...}, packages=[{...}], **settings): one package when none is described."""
    made: list[Analyser] = []

    def make(
        store: Store | None = None,
        look: dict[str, Any] | None = None,
        packages: list[dict[str, Any]] | None = None,
        **settings: Any,
    ) -> Analyser:
        root = tmp_path / f"models-{len(made)}"
        for described in packages if packages is not None else [{}]:
            write_package(root, **described)
        look_settings = LookSettings(models_dir=root, threads=1, **(look or {}))
        loaded = load_packages(look_settings)
        made.append(Analyser(Settings(look=look_settings, **settings), loaded, store, children=1))
        return made[-1]

    yield make
    for analyser in made:
        analyser.close()

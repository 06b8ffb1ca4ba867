"""Whether there is a ledger can be asked without making one."""

from pathlib import Path

from sqlalchemy import create_engine, inspect

from ledger.ledger import Ledger
from ledger.presence import is_there, place
from ledger.store import Store


def test_asking_for_a_ledger_makes_none(url: str, tmp_path: Path) -> None:
    assert not is_there(url)
    if url.startswith("sqlite"):
        assert list(tmp_path.iterdir()) == []
    else:
        engine = create_engine(url)
        assert inspect(engine).get_table_names() == []
        engine.dispose()
    Ledger.open(url, Store(tmp_path / "store")).close()
    assert is_there(url)


def test_no_password_stands_in_the_place_of_a_ledger() -> None:
    assert place("postgresql+psycopg://node:secret@db/opentriage") == "postgresql+psycopg://node:***@db/opentriage"
    assert place("sqlite:////var/lib/opentriage/ledger.sqlite") == "/var/lib/opentriage/ledger.sqlite"

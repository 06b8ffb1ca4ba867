"""While PostgreSQL is away: for people a plain page that comes back by itself, for programs problem details."""

from pathlib import Path

import pytest

from config import Settings
from node.watching import health
from node.web.app import make_app
from node.wiring import open_ledger
from tests.support.asgi import Client
from tests.support.postgres import postgres_server

BROWSER = {"Accept": "text/html,application/xhtml+xml"}


def test_a_database_that_is_away_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "own_echo", lambda settings, timeout_s: True)
    (tmp_path / "postgres").mkdir()
    with postgres_server(tmp_path / "postgres") as url:
        settings = Settings.model_validate({"node": {"state_dir": tmp_path / "state", "database_url": url}})
        ledger = open_ledger(settings)
        client = Client(make_app(settings, ledger))
        assert client.get("/?since=7d", headers=BROWSER).status_code == 200
    for path in ("/?since=7d", "/parked", "/senders", "/pace", "/study/1.2.3"):
        page = client.get(path, headers=BROWSER)
        assert (page.status_code, page.headers["content-type"]) == (503, "text/html; charset=utf-8"), path
        assert '<b id="why">The ledger cannot be read.</b>' in page.text
        assert f'http-equiv="refresh" content="5; url={path}"' in page.text  # where there is no script
        assert f'data-away="{path}"' in page.text
    for_programs = client.get("/")
    assert (for_programs.status_code, for_programs.headers["content-type"]) == (503, "application/problem+json")
    hostile = client.get('//evil.example/?"><script>', headers=BROWSER).text
    assert "<script>" not in hostile
    assert client.get("/style.css").status_code == 200
    ledger.close()

"""The web role's server in this process, on a loopback port of its own, with or without an analyser behind it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from config import Settings
from inference.analyser import Analyser
from inference.package import load_packages
from ledger.access import Role
from ledger.ledger import Ledger
from node.looking.server import LookServer
from node.looking.turns import Turns
from node.running.listening import listen
from node.web.app import make_app
from node.web.server import make_server
from node.wiring import open_ledger
from tests.support.ledgers import laid
from tests.support.packages import write_package
from tests.support.waiting import wait_until


@dataclass
class Served:
    """tokens: one of each role."""

    settings: Settings
    ledger: Ledger
    app: Any
    port: int
    tokens: dict[Role, str]
    turns: Turns

    @property
    def url(self) -> str:
        scheme = "https" if self.settings.web.tls.enabled else "http"
        return f"{scheme}://127.0.0.1:{self.port}"

    def bearer(self, role: Role) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[role]}"}

    def client(self, role: Role | None = None, **options: Any) -> httpx.Client:
        headers = self.bearer(role) if role else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)

    def connect(self) -> socket.socket:
        """A bare connection, for what no client sends."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def settings_in(folder: Path, **web: Any) -> Settings:
    """A node of this folder, with one small model package."""
    models = folder / "models"
    if not models.exists():
        write_package(models)
    return Settings.model_validate(
        {
            "node": {"state_dir": folder / "state"},
            "receive": {"free_disk_min_bytes": 0, "port": 0},
            "look": {"models_dir": models, "threads": 1},
            "web": web,
        }
    )


@contextmanager
def serving(settings: Settings, looks: bool = False) -> Iterator[Served]:
    """The server, until the end of the block; looks: with an analyser."""
    laid(settings.database_url)
    ledger = open_ledger(settings)
    listening = listen("127.0.0.1", 0)
    app = make_app(settings, ledger)
    server = make_server(app, settings.web)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 30)
    turns = Turns()
    analyser = Analyser(settings, load_packages(settings.look), children=1) if looks else None
    looking = LookServer(settings, analyser, turns) if analyser else None
    if looking:
        looking.start()
    known = {one.name for one in ledger.tokens()}
    tokens = {role: ledger.create_token(f"{role.value}-{len(known)}", role, 1, "user:test") for role in Role}
    try:
        yield Served(settings, ledger, app, listening.getsockname()[1], tokens, turns)
    finally:
        server.should_exit = True
        thread.join(20)
        app.state.stow.stop()
        if looking and analyser:
            looking.stop()
            analyser.close()
        ledger.close()

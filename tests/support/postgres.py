"""A throwaway PostgreSQL server from Debian's package, on a loopback port of its own."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url, text

from ledger.database import migrate, open_engine
from tests.support.peers import absent, free_port


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        absent("PostgreSQL's server", "postgresql")
    return found[-1].parent


def _as_server_user(command: list[str]) -> list[str]:
    # PostgreSQL refuses to run as root; its Debian package brings the user.
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


def _start(control: list[str], run: dict[str, Any]) -> int:
    """Start the server on a port that was free a moment ago; another one, should somebody have taken it since."""
    for attempts_left in (2, 1, 0):
        port = free_port()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c shared_buffers=16MB"
        started = subprocess.run(
            _as_server_user([*control, "-o", f"{options} -c fsync=off", "start"]),
            **(run | {"check": not attempts_left}),
        )
        if started.returncode == 0:
            return port
    raise AssertionError("unreachable")


@contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """Start a server with its data below `folder` and yield the SQLAlchemy URL of its first database."""
    binaries = _binaries()
    data = folder / "data"
    if os.geteuid() == 0:
        for parent in [folder, *folder.parents]:
            if not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
        subprocess.run(["chown", "postgres", folder], check=True)
    run: dict[str, Any] = {"check": True, "cwd": folder, "stdout": subprocess.DEVNULL}
    run["env"] = {**os.environ, "LC_ALL": "C.UTF-8"}  # initdb refuses a locale that the machine has not
    subprocess.run(
        _as_server_user([str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync"]),
        **run,
    )
    control = [str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log")]
    port = _start(control, run)
    try:
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    finally:
        # Not checked: another test session may have swept the folder away, and the server ends with it.
        subprocess.run(_as_server_user([*control, "-m", "immediate", "stop"]), **(run | {"check": False}))


class Databases:
    """One database on a server, fresh as often as it is asked for: nobody else may hold the last one still.

    The tables are copied from a database that the migrations made once; they take a fifth of the migrations' time.
    """

    NAME, TEMPLATE = "fresh", "migrated"

    def __init__(self, server_url: str) -> None:
        self._server = make_url(server_url)
        self._admin = create_engine(self._server, isolation_level="AUTOCOMMIT")
        self._has_template = False

    def __enter__(self) -> "Databases":
        return self

    def __exit__(self, *error: object) -> None:
        self._admin.dispose()

    def empty(self) -> str:
        return self._fresh("template0")

    def migrated(self) -> str:
        if not self._has_template:
            self._run(f"CREATE DATABASE {self.TEMPLATE}")
            engine = open_engine(self._url(self.TEMPLATE))
            migrate(engine)
            engine.dispose()  # a template that somebody is connected to cannot be copied
            self._has_template = True
        return self._fresh(self.TEMPLATE)

    def _fresh(self, template: str) -> str:
        self._run(f"DROP DATABASE IF EXISTS {self.NAME} WITH (FORCE)")
        self._run(f"CREATE DATABASE {self.NAME} TEMPLATE {template}")
        return self._url(self.NAME)

    def _run(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(statement))

    def _url(self, database: str) -> str:
        return self._server.set(database=database).render_as_string(hide_password=False)

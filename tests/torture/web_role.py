"""The role web in a process of its own, over HTTP: what is asked of it, and what it answers."""

import http.client
import os
import socket
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from config.settings import Settings
from ledger.access import Role
from ledger.ledger import Ledger
from ledger.store import Store
from tests.support.peers import end, free_port
from tests.support.realdata import ROOT
from tests.support.waiting import wait_until

ROLE = """
import sys
from config import load_settings
from node.logging import configure
from pathlib import Path
settings = load_settings(Path(sys.argv[1]))
configure("info", "web")
{fault}
from node.running.confine import confine
confine("web", settings)
from node.roles.web import run
sys.exit(run(settings))
"""
OPEN_DOOR = """
from ledger.access import Principal, Role
from node.web.access import Guard
async def let_in(self, request, role): return Principal("anybody", Role.ADMIN)
Guard.require = let_in
"""
MIB = 1 << 20
FOUR_GB = 4 << 30
ANSWER_S = 20.0


@dataclass
class Web:
    """The role web in a process of its own, confined as it is in a node."""

    folder: Path
    fault: str = ""
    most_bytes: int = 4 * MIB

    def __post_init__(self) -> None:
        self.state, self.port = self.folder / "state", free_port()
        config = self.folder / "site.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(
            f'[node]\nstate_dir = "{self.state}"\n[web]\nport = {self.port}\nmax_upload_bytes = {self.most_bytes}\n'
            f"max_stow_bytes = {self.most_bytes}\n"
        )
        self.ledger = Ledger.open(
            Settings.model_validate({"node": {"state_dir": self.state}}).database_url, self._store()
        )
        self.tokens = {role.value: self.ledger.create_token(role.value, role, None, "user:test") for role in Role}
        self.tokens["expired"] = self.ledger.create_token("expired", Role.ADMIN, -1.0, "user:test")
        self.tokens["revoked"] = self.ledger.create_token("revoked", Role.ADMIN, None, "user:test")
        self.ledger.revoke_token("revoked", "user:test")
        self.tokens["invented"] = "ot_" + "A" * 43
        self.log = self.folder / "web.log"
        with self.log.open("wb") as log:
            command = [sys.executable, "-c", ROLE.format(fault=self.fault), str(config)]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _store(self) -> Store:
        return Store(self.state / "store")

    def __enter__(self) -> "Web":
        wait_until(self._answers, 60)
        return self

    def __exit__(self, *error: object) -> None:
        end(self.process, 30)
        self.ledger.close()

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text()[-2000:])
        with suppress(OSError):
            return self.ask("GET", "/style.css") == 200
        return False

    def ask(self, method: str, path: str, token: str = "", body: object = None, **headers: str) -> int:
        """The status; 0 where the connection was cut, or nothing came in time."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        given = {"Authorization": f"Bearer {self.tokens[token]}"} if token else {}
        try:
            connection.request(method, path, body=body, headers={**given, **headers}, encode_chunked=False)  # type: ignore[arg-type]
            return connection.getresponse().status
        except (BrokenPipeError, ConnectionResetError, TimeoutError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def announces(self, path: str, token: str, length: int) -> int:
        """The answer to a head that promises so many bytes, none of which come."""
        return self.ask("POST", path, token, body=b"", **{"Content-Length": str(length), "Content-Type": "image/png"})

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def pours(self, path: str, token: str, most_bytes: int) -> int:
        """A body without an end, in chunks; how many bytes of it were taken."""
        with closing(socket.create_connection(("127.0.0.1", self.port), ANSWER_S)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)  # what lies here was taken by nobody
            head = (
                f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.tokens[token]}\r\n"
                "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
            sent = 0
            try:
                connection.sendall(head.encode() + b"%x\r\n%s\r\n" % (len(part), part))
                while sent < most_bytes:
                    connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
                    sent += 65536
            except OSError:
                pass
            return sent

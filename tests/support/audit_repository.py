"""A syslog/TLS receiver for audit messages that can be away, slow, or die with what it has not read."""

import contextlib
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.certificates import Authority, Pair

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closed with what is unread, a reset leaves


class Repository:
    """Keeps what it has read, one item a message. dies_after: with so many read it resets a connection, once."""

    def __init__(self, pair: Pair, port: int = 0, read_pause_s: float = 0.0, dies_after: int | None = None) -> None:
        self.messages: list[bytes] = []
        self.connections = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.certificate, pair.key)
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._pause_s = read_pause_s
        self._dies_after = dies_after
        self._is_dead = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with contextlib.suppress(OSError):
                self._listen_to(raw)

    def _listen_to(self, raw: socket.socket) -> None:
        with self._context.wrap_socket(raw, server_side=True) as connection:
            file = connection.makefile("rb")
            while length := self._length(file.read(1), file):
                if self._is_dead or (self._dies_after is not None and len(self.messages) >= self._dies_after):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    self._dies_after = None
                    return
                self.messages.append(file.read(length))
                time.sleep(self._pause_s)
            with contextlib.suppress(OSError):
                connection.unwrap()

    @staticmethod
    def _length(first: bytes, file: object) -> int:
        digits = first
        while digits and not digits.endswith(b" "):
            digits += file.read(1)  # type: ignore[attr-defined]
        return int(digits or b"0")

    def close(self) -> None:
        """It dies with the next record at the latest: nothing more is read, and its connection is reset."""
        self._is_dead = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5.0)

    @property
    def sequences(self) -> list[int]:
        """The seal of each message, in the order in which they were read."""
        seal = re.compile(rb'ParticipantObjectID="(\d+)" ParticipantObjectTypeCode="2" [^>]*Role="13"')
        return [int(seal.findall(message)[-1]) for message in self.messages]


@contextlib.contextmanager
def repository(authority: Authority, **how: object) -> Iterator[Repository]:
    made = Repository(authority.issue(f"repository-{time.monotonic_ns()}"), **how)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            made.close()


def settings_for(port: int, authority: Authority) -> dict[str, object]:
    """Of [audit]."""
    ca: Path = authority.certificate
    return {"repository_host": "127.0.0.1", "repository_port": port, "ca_file": ca}

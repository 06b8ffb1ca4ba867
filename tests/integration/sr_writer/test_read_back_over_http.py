"""QIDO-RS as servers really answer it: what counts as held, as not held, as no answer now, and as no way to ask."""

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from config.settings import DeliverSettings, Destination
from sr_writer.association import NotOffered
from sr_writer.errors import Unreachable
from sr_writer.read_back import Wanted, qido
from tests.support.peers import free_port

WANTED = [Wanted("1.2", "1.2.8.1", "1.2.9.1"), Wanted("1.2", "1.2.8.1", "1.2.9.2"), Wanted("1.2", "1.2.8.2", "1.2.9.3")]


class Server:
    """One answer for every request. paths: what was asked."""

    def __init__(self) -> None:
        self.status, self.body, self.location = 200, b"[]", ""
        self.paths: list[str] = []
        self.accepts: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.paths.append(self.path)
                server.accepts.append(self.headers["Accept"])
                self.send_response(server.status)
                if server.location:
                    self.send_header("Location", server.location)
                self.send_header("Content-Length", str(len(server.body)))
                self.end_headers()
                self.wfile.write(server.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def lists(self, *uids: str) -> None:
        self.body = json.dumps([{"00080018": {"vr": "UI", "Value": [uid]}} for uid in uids]).encode()

    def ask(self, scheme: str = "http") -> set[str]:
        url = f"{scheme}://127.0.0.1:{self.port}/dicom-web"
        destination = Destination(name="pacs", ae_title="PACS", host="h", port=1, qido_url=url)
        return qido(destination, DeliverSettings(response_timeout_s=10.0), WANTED)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def test_each_series_is_asked_for_once_and_only_what_was_asked_for_counts(server: Server) -> None:
    server.lists("1.2.9.1", "1.2.9.3", "1.2.9.99")
    assert server.ask() == {"1.2.9.1", "1.2.9.3"}
    assert server.paths == [f"/dicom-web/studies/1.2/series/1.2.8.{n}/instances" for n in (1, 2)]
    assert server.accepts == ["application/dicom+json"] * 2


@pytest.mark.parametrize(("status", "body"), [(200, b"[]"), (204, b""), (200, b""), (200, b'[{"00080018": {}}]')])
def test_an_empty_answer_means_that_nothing_is_held(server: Server, status: int, body: bytes) -> None:
    server.status, server.body = status, body
    assert server.ask() == set()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 406])
def test_an_address_that_does_not_answer_queries_is_no_way_to_ask(server: Server, status: int) -> None:
    server.status = status
    with pytest.raises(NotOffered, match=f"HTTP {status}"):
        server.ask()


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_in_trouble_is_asked_again(server: Server, status: int) -> None:
    server.status = status
    with pytest.raises(Unreachable, match=f"HTTP {status}"):
        server.ask()


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b'{"a": 1}', b"[1]", b'[{"00080018": [1]}]', b"[" * 100_000])
def test_something_else_than_dicom_json_is_no_answer(server: Server, body: bytes) -> None:
    server.body = body
    with pytest.raises(NotOffered):
        server.ask()


def test_a_redirect_is_not_followed(server: Server) -> None:
    server.status, server.location = 302, "/dicom-web/elsewhere"
    server.lists("1.2.9.1")
    with pytest.raises(NotOffered, match="HTTP 302"):
        server.ask()
    assert server.paths == ["/dicom-web/studies/1.2/series/1.2.8.1/instances"]


def test_an_endless_answer_is_cut_off(server: Server) -> None:
    server.body = b"[" + b" " * (5 * 1024 * 1024) + b"]"
    with pytest.raises(NotOffered, match="without end"):
        server.ask()


def test_a_proxy_of_the_environment_is_not_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    server.lists("1.2.9.1")
    assert server.ask() == {"1.2.9.1"}


def test_a_server_that_is_away_is_asked_again(server: Server) -> None:
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(Unreachable, match="no answer from the qido_url"):
        server.ask()


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(server: Server, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    with pytest.raises(NotOffered, match="certificate"):
        server.ask("https")
    assert server.paths == []


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "ftp://127.0.0.1/"])
def test_only_http_addresses_are_asked(url: str) -> None:
    destination = Destination(name="pacs", ae_title="PACS", host="h", port=1, qido_url=url)
    with pytest.raises(NotOffered):
        qido(destination, DeliverSettings(), WANTED)

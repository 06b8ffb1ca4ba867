"""A hostile caller over bare sockets: too long, too slow, too many, compressed, half; nobody else's answer suffers."""

import contextlib
import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from ledger.access import Role
from node.looking.wire import uploads_dir
from node.web import bodies, crowd, places
from node.web import server as web_server
from tests.support.serving import Served, serving, settings_in
from tests.support.waiting import wait_until

LIMIT = 200_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    web: dict[str, Any] = {"max_upload_bytes": LIMIT, "max_stow_bytes": LIMIT, "body_timeout_s": 1.5, "max_at_once": 2}
    with serving(settings_in(tmp_path_factory.mktemp("abuse"), **web)) as made:
        yield made


def head(served: Served, method: str, path: str, *lines: str, token: bool = True) -> bytes:
    shown = [f"Authorization: Bearer {served.tokens[Role.ADMIN]}"] if token else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *shown, *lines, "", ""]).encode()


def status_of(connection: socket.socket) -> int:
    """The whole answer, which is a problem; 0: the connection was closed without one."""
    with connection.makefile("rb") as stream:
        first = stream.readline()
        if not first:
            return 0
        fields = {}
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            fields[name.lower()] = value.strip()
        said = stream.read(int(fields[b"content-length"])) if b"content-length" in fields else stream.read()
    status = int(first.split()[1])
    assert fields[b"content-type"] == b"application/problem+json", first
    assert json.loads(said)["status"] == status
    assert status < 500 or b"retry-after" in fields
    return status


def sends_less_than(connection: socket.socket, piece: bytes, times: int) -> bool:
    """Whether the other end closes before all is sent."""
    try:
        for _ in range(times):
            connection.sendall(piece)
    except OSError:
        return True
    return False


def waited_for(patch: pytest.MonkeyPatch, longest_s: float, limit: int = LIMIT) -> None:
    """So long for a body: longer than a busy machine needs for what a test does meanwhile."""
    patch.setattr(bodies.Bodies, "_limits", lambda self, scope: (limit, longest_s))


def answer_to(served: Served, *sent: bytes) -> int:
    with served.connect() as connection:
        for part in sent:
            connection.sendall(part)
        return status_of(connection)


FORM = "Content-Type: multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'


@pytest.mark.parametrize("path", ["/analyze", "/batch_analyze", "/studies", "/studies/1.2", "/", "/jobs/1/release"])
def test_four_gigabytes_are_refused_at_once_and_unread(served: Served, path: str) -> None:
    began = monotonic()
    assert answer_to(served, head(served, "POST", path, FORM, f"Content-Length: {4 << 30}")) == 413
    assert monotonic() - began < 25


@pytest.mark.parametrize("length", ["-1", "+5", "0x10", "9" * 30, "1, 2", "\u0661"])
def test_a_length_that_is_none_is_no_request(served: Served, length: str) -> None:
    assert answer_to(served, head(served, "POST", "/analyze", FORM, f"Content-Length: {length}")) in (400, 413)


def test_who_may_not_is_told_so_before_he_sends(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LINGER_S", 30.0)
    sent = head(served, "POST", "/analyze", FORM, f"Content-Length: {LIMIT}", token=False)
    assert answer_to(served, sent) == 401
    assert answer_to(served, sent + b"x" * LIMIT) == 401


def test_an_early_answer_reaches_a_sender_that_goes_on_sending(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LINGER_S", 30.0)
    with served.connect() as connection:
        connection.sendall(head(served, "POST", "/analyze", FORM, f"Content-Length: {LIMIT}", token=False))
        wait_until(lambda: connection.recv(65536, socket.MSG_PEEK).endswith(b"}"), 60)
        for _ in range(20):
            connection.sendall(b"x" * 1000)  # to a closed connection this would cost the answer its way
        assert status_of(connection) == 401


def test_chunks_that_never_end_are_cut_off_at_the_limit(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(head(served, "POST", "/analyze", FORM, "Transfer-Encoding: chunked"))
        chunk = PART + b"x" * 50_000
        assert sends_less_than(connection, b"%x\r\n%b\r\n" % (len(chunk), chunk), 2000)
    wait_until(lambda: not list(uploads_dir(served.settings).iterdir()), 60)


def test_chunks_up_to_the_limit_and_one_more_are_413(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    waited_for(monkeypatch, 60.0, LIMIT + bodies.FRAME)
    monkeypatch.setattr(bodies, "LINGER_S", 30.0)
    chunk = b"x" * 100_000
    count = (LIMIT + bodies.FRAME) // len(chunk) + 1
    sent = [b"%x\r\n%b\r\n" % (len(chunk), PART + chunk[len(PART) :])] + [b"%x\r\n%b\r\n" % (len(chunk), chunk)] * count
    assert answer_to(served, head(served, "POST", "/analyze", FORM, "Transfer-Encoding: chunked"), *sent) == 413


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, identity"])
def test_a_compressed_body_is_not_opened(served: Served, coding: str) -> None:
    assert (
        answer_to(served, head(served, "POST", "/analyze", FORM, f"Content-Encoding: {coding}", "Content-Length: 9"))
        == 415
    )


def test_two_lengths_are_no_request(served: Served) -> None:
    both = head(served, "POST", "/analyze", FORM, "Content-Length: 5", "Transfer-Encoding: chunked")
    assert answer_to(served, both, b"0\r\n\r\n") == 400


@pytest.mark.parametrize("path", ["/analyze", "/jobs/1/release"])
def test_a_body_that_does_not_come_ends_in_time(served: Served, path: str) -> None:
    status = answer_to(served, head(served, "POST", path, FORM, "Content-Length: 1000"), PART)
    assert status == (408 if path == "/analyze" else 404), "what needs no body waits for one"


def test_a_body_that_drips_ends_in_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE_S", 0.2)
    waited_for(monkeypatch, 30.0)
    began = monotonic()
    assert answer_to(served, head(served, "POST", "/analyze", FORM, "Content-Length: 1000"), PART[:10]) == 408
    assert monotonic() - began < 29, "the rate was not looked at"


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nX: 1\r\n"])
def test_a_head_that_does_not_come_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(web_server, "HEAD_S", 0.3)
    with served.connect() as connection:
        connection.sendall(sent)
        connection.settimeout(60)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""


def test_a_second_head_that_drips_is_cut_off_too(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.connect() as connection:
        connection.sendall(head(served, "GET", "/nothing"))
        assert status_of(connection) == 404
        monkeypatch.setattr(web_server, "HEAD_S", 0.3)
        connection.sendall(b"GET /slow")
        connection.settimeout(30)  # shorter than a body may take
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(65536):
                pass


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100,
        b"GET  HTTP\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
    ],
)
def test_what_is_no_http_is_told_so(served: Served, sent: bytes) -> None:
    assert answer_to(served, sent) == 400


def test_a_head_without_an_end_is_not_kept(served: Served) -> None:
    with served.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        assert sends_less_than(connection, b"x" * 100_000, 1000)


def test_more_fields_than_anybody_needs_are_not_read(served: Served) -> None:
    assert answer_to(served, head(served, "GET", "/worklist", *(f"X-{n}: 1" for n in range(200)))) == 431


def test_too_many_parts_are_refused(served: Served) -> None:
    content = (PART + b"x\r\n") * 100 + b"--b--\r\n"
    fields = [f"Content-Length: {len(content)}", FORM]
    assert answer_to(served, head(served, "POST", "/batch_analyze", *fields), content) == 422


def test_above_the_places_for_bodies_others_are_asked_to_come_back_and_health_answers(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited_for(monkeypatch, 15.0)
    monkeypatch.setattr(places, "WAIT_S", 0.1)
    held = [served.connect() for _ in range(2)]
    for connection in held:
        expecting = ["Content-Length: 1000", "Expect: 100-continue"]
        connection.sendall(head(served, "POST", "/analyze", FORM, *expecting))
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"[:25], "it has no place"
        connection.sendall(PART)
    statuses = {answer_to(served, head(served, "POST", "/analyze", FORM, "Content-Length: 1000"), PART)}
    with served.client() as client:
        assert client.get("/style.css").status_code == 200
    assert statuses == {503}
    for connection in held:
        assert status_of(connection) == 408
        connection.close()
    after = head(served, "POST", "/analyze", FORM, "Content-Length: 4")
    wait_until(lambda: answer_to(served, after, b"--b-") == 400, 60)  # the places are free again


def test_connections_that_only_sit_there_are_so_many_and_no_more(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "CONNECTIONS_MAX", 20)
    idle = [served.connect() for _ in range(60)]
    wait_until(lambda: len(select.select(idle, [], [], 0)[0]) >= 40, 60)  # closed by the other end
    for connection in idle:
        connection.close()

    def answered() -> bool:
        try:
            return answer_to(served, head(served, "GET", "/nothing")) == 404
        except OSError:
            return False

    wait_until(answered, 60)


def test_no_file_is_left_of_any_of_this(served: Served) -> None:
    wait_until(lambda: not list(uploads_dir(served.settings).iterdir()), 60)


def test_an_answer_says_nothing_of_what_was_asked(served: Served) -> None:
    name = "SENTINEL"
    with served.client(Role.ADMIN) as client:
        answers = [
            client.get(f"/{name}"),
            client.get(f"/studies/{name}"),
            client.get("/worklist", params={"days": name}),
            client.get("/audit_log", params={"kind": name, "since": name}),
            client.post("/analyze", files={name: (name, name.encode())}),
            client.post("/studies", content=name, headers={"Content-Type": name}),
            client.request("DELETE", "/worklist", params={"x": name}),
        ]
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in answers)
    assert not any(name in answer.text or name in str(answer.headers) for answer in answers)


def test_state_stays_the_users_own(served: Served, tmp_path: Path) -> None:
    assert uploads_dir(served.settings).stat().st_mode & 0o777 == 0o700

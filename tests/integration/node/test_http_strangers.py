"""Strangers who only sit there, or drip, over real sockets and from many addresses: they keep nobody else from signing
in, from uploading, from storing studies, nor health and metrics from being read."""

import contextlib
import select
import socket
from collections.abc import Iterator, Sized
from time import monotonic

import httpx
import pytest
from structlog.testing import capture_logs

from ledger.access import Role
from node import log_events
from node.web import bodies, crowd, places
from node.web import server as web_server
from tests.support.serving import Served, serving, settings_in
from tests.support.waiting import wait_until

HALF_A_HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "
STORE = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=B'}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(settings_in(tmp_path_factory.mktemp("strangers"), max_at_once=2)) as made:
        httpx.get(made.url + "/style.css", timeout=30)  # its application is built with the first request
        yield made


@pytest.fixture
def open_ones(served: Served) -> Iterator[contextlib.ExitStack]:
    """What a test opens, closed after it; it begins when nothing of another one is left."""
    wait_until(lambda: not _bodies(served).working and not _bodies(served).lingering, 20)
    with contextlib.ExitStack() as stack:
        yield stack


def caller(served: Served, stack: contextlib.ExitStack, sent: bytes, address: str = "127.0.0.1") -> socket.socket:
    """Somebody at an address who has sent this and no more."""
    made = socket.create_connection(("127.0.0.1", served.port), timeout=30, source_address=(address, 0))
    stack.callback(made.close)
    made.sendall(sent)
    return made


def begun(path: str, length: int = 60_000, *lines: str) -> bytes:
    """A request whose body does not come."""
    form = "Content-Type: application/x-www-form-urlencoded"
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", form, f"Content-Length: {length}", *lines]
    return "\r\n".join([*head, "", "a"]).encode()


def heard(connection: socket.socket) -> bytes:
    """What it was answered so far; b"" also where it was cut."""
    if not select.select([connection], [], [], 0)[0]:
        return b""
    with contextlib.suppress(OSError):
        return connection.recv(65536, socket.MSG_PEEK)
    return b""


def is_cut(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0]) and not heard(connection)


def everybody_is_served(served: Served) -> None:
    """An upload and a study that are none, so that nothing is left of them; a sign-in that is good."""
    with served.client(Role.OPERATE) as client:
        assert client.post("/analyze", files={"file": ("x", b"no image")}).status_code == 422
        assert client.post("/studies", content=b"--B--\r\n", headers=STORE).status_code == 400
    with served.client() as client:
        assert client.post("/sign-in", data={"token": served.tokens[Role.READ]}).status_code == 303


def refused(served: Served, stack: contextlib.ExitStack, sent: bytes) -> None:
    """Somebody who may not, is told so, and stays."""
    made = caller(served, stack, sent)
    wait_until(lambda: heard(made).startswith(b"HTTP/1.1 401"), 60)


@pytest.fixture
def long_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is cut off because his head has not come."""
    monkeypatch.setattr(web_server, "HEAD_S", 200.0)


@pytest.mark.parametrize("addresses", [1, 12])
def test_forms_that_drip_keep_nobody_from_uploading_storing_or_signing_in(
    served: Served, open_ones: contextlib.ExitStack, addresses: int
) -> None:
    for number in range(48):
        caller(served, open_ones, begun("/sign-in"), f"127.0.0.{2 + number % addresses}")
    everybody_is_served(served)


def test_who_may_not_upload_has_no_place_while_he_is_told(
    served: Served, open_ones: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "WAIT_S", 0.0)
    monkeypatch.setattr(bodies, "LINGER_S", 30.0)
    for path in ("/analyze", "/studies", "/batch_analyze", "/analyze"):
        refused(served, open_ones, begun(path, 9, "X: 1").replace(b"application/x-www", b"multipart/x"))
    everybody_is_served(served)


def test_answers_that_wait_for_their_hearers_are_no_work(
    served: Served, open_ones: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "AT_ONCE_MAX", 3)
    monkeypatch.setattr(bodies, "LINGER_S", 5.0)
    for _ in range(6):
        refused(served, open_ones, begun("/jobs/1/release"))
    with served.client() as client:
        assert client.get("/style.css").status_code == 200


def test_only_so_many_linger(served: Served, open_ones: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LINGER_S", 60.0)
    monkeypatch.setattr(bodies, "LINGERING_MAX", 2)
    several = [caller(served, open_ones, begun("/jobs/1/release")) for _ in range(5)]
    for one in several:
        wait_until(lambda one=one: heard(one), 60)
        assert one.recv(65536).startswith(b"HTTP/1.1 401")
    wait_until(lambda: sum(is_cut(one) for one in several) == 3, 60)


def test_the_one_who_has_dripped_longest_makes_room_and_of_the_address_that_has_most(
    served: Served, open_ones: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PLAIN_S", 200.0)
    monkeypatch.setattr(bodies, "GRACE_S", 200.0)
    monkeypatch.setattr(places, "SMALL_SHARE", 3)
    monkeypatch.setattr(places, "SMALL_MAX", 4)
    other = caller(served, open_ones, begun("/search"), "127.0.0.9")
    wait_until(lambda: len(_small(served)) == 1, 60)
    line = []
    for number in range(5):
        line.append(caller(served, open_ones, begun("/search"), "127.0.0.8"))
        wait_until(lambda n=number: len(_small(served)) == 1 + min(n + 1, 3), 60)
        wait_until(lambda n=number: [bool(heard(one)) for one in line] == [n - at >= 3 for at in range(n + 1)], 60)
    assert heard(line[0]).startswith(b"HTTP/1.1 408")
    caller(served, open_ones, begun("/search"), "127.0.0.10")
    wait_until(lambda: heard(line[2]).startswith(b"HTTP/1.1 408"), 60)
    assert not heard(other)


def _small(served: Served) -> Sized:
    """Those that are waited for; looked at and not touched from this thread."""
    return _bodies(served)._small._waiting


def _bodies(served: Served) -> bodies.Bodies:
    stack = served.app.middleware_stack
    while not isinstance(stack, bodies.Bodies):
        stack = getattr(stack, "app", None) or stack._app
    return stack


def test_a_form_comes_within_ten_seconds_however_long_a_study_may_take(
    served: Served, open_ones: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served.settings.web.body_timeout_s > 100
    assert bodies.PLAIN_S == 10.0
    monkeypatch.setattr(bodies, "PLAIN_S", 0.2)
    began = monotonic()
    late = caller(served, open_ones, begun("/search"))
    wait_until(lambda: heard(late).startswith(b"HTTP/1.1 408"), 60)
    assert monotonic() - began < 60.0  # and not what a study may take


def test_a_form_is_no_upload_and_is_not_read_as_long_as_one(served: Served) -> None:
    with served.client(Role.ADMIN) as client:
        assert client.post("/analyze", data={"csrf": "x" * (bodies.PLAIN_MAX + 1)}).status_code == 413


@pytest.mark.usefixtures("long_heads")
def test_health_and_metrics_answer_while_half_heads_take_all_connections(
    served: Served, open_ones: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "CONNECTIONS_MAX", 30)
    monkeypatch.setattr(crowd, "SHARE", 20)
    with capture_logs() as logs:
        several: list[socket.socket] = []
        for _ in range(4):
            several = [one for one in several if not is_cut(one)]
            while len(several) < 60:
                with contextlib.suppress(OSError):
                    several.append(caller(served, open_ones, HALF_A_HEAD))
            for path in ("/healthz", "/metrics"):
                assert httpx.get(served.url + path, timeout=30).status_code in (200, 503)
        wait_until(lambda: sum(not is_cut(one) for one in several) <= 20, 60)
    said = [line for line in logs if line["event"] == log_events.CONNECTIONS_DROPPED]
    assert len(said) <= 1, "a stranger fills the log"


@pytest.mark.usefixtures("long_heads")
def test_an_address_has_its_share_of_those_that_only_sit_there_and_others_have_theirs(
    served: Served, open_ones: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "SHARE", 5)
    other = caller(served, open_ones, HALF_A_HEAD, "127.0.0.20")
    several = [caller(served, open_ones, HALF_A_HEAD, "127.0.0.21") for _ in range(12)]
    wait_until(lambda: sum(is_cut(one) for one in several) == 7, 60)
    assert [is_cut(one) for one in several] == [True] * 7 + [False] * 5, "not those that have waited longest"
    assert not is_cut(other)


@pytest.mark.usefixtures("long_heads")
def test_whoever_is_being_served_is_not_dropped_for_those_that_sit_there(
    served: Served, open_ones: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "GRACE_S", 200.0)
    monkeypatch.setattr(crowd, "CONNECTIONS_MAX", 10)
    monkeypatch.setattr(crowd, "SHARE", 4)
    token = f"Authorization: Bearer {served.tokens[Role.READ]}"
    sent = begun("/analyze", 6, token).replace(b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=b")
    uploads = [caller(served, open_ones, sent) for _ in range(2)]
    several = [caller(served, open_ones, HALF_A_HEAD) for _ in range(30)]
    wait_until(lambda: sum(is_cut(one) for one in several) >= 26, 60)
    for one in uploads:
        one.sendall(b"--b--")
        wait_until(lambda one=one: heard(one).startswith(b"HTTP/1.1 400"), 60)

"""Whatever the node opens in TLS is by BCP 195: a peer that offers a cipher suite of another age hears nothing."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pynetdicom import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from config.adapters import Hl7Adapter, UpsAdapter
from config.audit import AuditSettings
from config.settings import DeliverSettings, Destination, OutgoingTls
from node.checkup import peers
from node.trail.syslog import Connection
from sr_writer.adapters.hl7 import Hl7Teller
from sr_writer.adapters.http import post
from sr_writer.association import associate
from sr_writer.errors import Unreachable
from tests.support.certificates import Authority, Pair
from tests.support.waiting import wait_until

CBC, GCM = "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"
TIMES = DeliverSettings(connect_timeout_s=20.0, response_timeout_s=20.0)


class Peer:
    """Shakes hands in TLS 1.2 with one cipher suite alone, and ends the connection. agreed: the suites of handshakes
    that came to an end; failed: how many did not."""

    def __init__(self, pair: Pair, suite: str) -> None:
        self.agreed: list[str] = []
        self.failed = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._context.set_ciphers(suite)
        self._context.load_cert_chain(pair.certificate, pair.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(20.0)
                try:
                    with self._context.wrap_socket(connection, server_side=True) as secured:
                        self.agreed.append(str(secured.cipher()[0]))  # type: ignore[index]
                except OSError:
                    self.failed += 1
                    connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("peer")


@pytest.fixture
def peer(pair: Pair) -> Iterator[Callable[[str], Peer]]:
    made: list[Peer] = []

    def make(suite: str) -> Peer:
        made.append(Peer(pair, suite))
        return made[-1]

    yield make
    for one in made:
        one.close()


def hl7(port: int, ca_file: Path) -> None:
    ris = Hl7Adapter(name="ris", kind="hl7", host="127.0.0.1", port=port, tls=True, ca_file=ca_file)
    Hl7Teller(ris, TIMES)._exchange(b"MSH|", "1")


def http(port: int, ca_file: Path) -> None:
    post(f"https://127.0.0.1:{port}/in", b"{}", {}, ca_file, 20.0, "hook")


def audit_repository(port: int, ca_file: Path) -> None:
    Connection(AuditSettings(repository_host="127.0.0.1", repository_port=port, ca_file=ca_file)).end("close")


def doctor(port: int, ca_file: Path) -> None:
    ups = UpsAdapter(name="ups", kind="ups", url=f"https://127.0.0.1:{port}/ups", ca_file=ca_file)
    [line] = peers.adapter(ups)
    if "TLS stands" not in line.found:
        raise Unreachable(line.found)


def association(port: int, ca_file: Path) -> None:
    tls = OutgoingTls(enabled=True, ca_file=ca_file)
    to = Destination(name="PACS", ae_title="PACS", host="127.0.0.1", port=port, tls=tls)
    associate(to, TIMES, [build_context(Verification)])


WAYS = [hl7, http, audit_repository, doctor, association]


@pytest.mark.parametrize("opens", WAYS)
def test_a_peer_with_only_cbc_is_cut_off_and_one_with_gcm_is_not(
    opens: Callable[[int, Path], None], peer: Callable[[str], Peer], authority: Authority
) -> None:
    old, good = peer(CBC), peer(GCM)
    with pytest.raises(Exception):  # noqa: B017, PT011  each says it in its own way
        opens(old.port, authority.certificate)
    with contextlib.suppress(Exception):  # it hangs up after the handshake
        opens(good.port, authority.certificate)
    wait_until(lambda: (len(good.agreed), old.failed) == (1, 1), 20)
    assert (old.agreed, good.agreed) == ([], [GCM])

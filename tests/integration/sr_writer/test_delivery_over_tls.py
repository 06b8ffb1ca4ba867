"""Associations that the node opens in TLS: with DCMTK, with a receiver of our own, and with peers that are not what
they should be."""

import hashlib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from config.settings import DeliverSettings, Destination, OutgoingTls, Settings
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.records import StoredObject, TriagePriority
from node.trying import authority
from sr_writer.association import asking
from sr_writer.build import build_objects
from sr_writer.deliver import Sender
from sr_writer.errors import Unreachable
from sr_writer.secure import client_context
from tests.support.certificates import Authority
from tests.support.findings import flagged_study, new_store
from tests.support.receiving import start_receiving
from tests.support.storescp import storescp
from tests.support.waiting import wait_until

FAST = DeliverSettings(connect_timeout_s=5.0, response_timeout_s=5.0)
HOSTS = ("localhost", "127.0.0.1")


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    authority.make(tmp_path / "pki", HOSTS, days=2)
    return tmp_path / "pki"


def ours(pki: Path, **changes: object) -> OutgoingTls:
    own = {"ca_file": pki / "ca.pem", "certificate_file": pki / "node.pem", "key_file": pki / "node.key"}
    return OutgoingTls.model_validate({"enabled": True, **own, **changes})


def destination(port: int, tls: OutgoingTls, host: str = "127.0.0.1") -> Destination:
    return Destination(name="PACS", ae_title="PACS", host=host, port=port, tls=tls)


def answers(to: Destination, settings: DeliverSettings = FAST) -> bool:
    with asking(to, settings, str(Verification)) as association:
        return bool(association.send_c_echo().get("Status", -1) == 0)


def shows(pki: Path, name: str = "sender", ca: Path | None = None) -> tuple[object, ...]:
    return "+tls", pki / f"{name}.key", pki / f"{name}.pem", "+cf", ca or pki / "ca.pem"


def test_a_long_pdu_leaves_in_pieces_of_which_each_has_its_own_time(pki: Path) -> None:
    """OpenSSL writes all or nothing: 8 MB over a slow line would have to leave within one timeout."""
    secured = client_context(ours(pki), "PACS")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki / "node.pem", pki / "node.key")
    read, content = bytearray(), bytes(range(256)) * 4096 * 8

    def take(plain: socket.socket) -> None:
        with server.wrap_socket(plain, server_side=True) as secure:
            while piece := secure.recv(65_536):
                read.extend(piece)

    near, far = socket.socketpair()
    thread = threading.Thread(target=take, args=(far,), daemon=True)
    thread.start()
    with secured.wrap_socket(near, server_hostname="127.0.0.1") as connection:
        connection.settimeout(60.0)
        left, pieces = content, []
        while left:
            pieces.append(connection.send(left))
            left = left[pieces[-1] :]
    thread.join(60)
    assert bytes(read) == content
    assert max(pieces) < len(content) / 8


def test_results_reach_storescp_over_tls_byte_for_byte(pki: Path, tmp_path: Path) -> None:
    store = new_store(tmp_path / "results")
    made = build_objects(flagged_study(store), store, Settings(), "2.25.7", "generic-pacs")[0]
    digest = hashlib.sha256(made.content).hexdigest()
    names = (made.kind, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid)
    kept = StoredObject(1, *names, digest, store.put("objects", digest, ".dcm", made.content), TriagePriority.HIGH)
    outcomes: list[DeliveryOutcome] = []
    with storescp(tmp_path / "pacs", *shows(pki)) as port:

        def sent() -> bool:
            try:
                Sender(destination(port, ours(pki)), FAST).send([kept], store, outcomes.append)
            except Unreachable:  # it does not listen yet
                return False
            return True

        wait_until(sent, within_s=60)
    assert [outcome.state for outcome in outcomes] == [DeliveryState.DELIVERED]
    [found] = (tmp_path / "pacs").iterdir()
    assert made.content[-2000:] in found.read_bytes()


def test_our_own_receiver_lets_the_node_in_by_its_certificate_alone(pki: Path, tmp_path: Path) -> None:
    tls = {"certificate_file": pki / "sender.pem", "key_file": pki / "sender.key", "ca_file": pki / "ca.pem"}
    node = start_receiving(tmp_path / "node", ae_title="PACS", tls={"enabled": True, **tls})
    try:
        port = node.address[1]
        assert answers(destination(port, ours(pki)))
        assert answers(destination(port, ours(pki), host="localhost"))
        with pytest.raises(Unreachable, match=r"may not accept our certificate|refuses the handshake"):
            answers(destination(port, ours(pki, certificate_file=Path(), key_file=Path())))
        with pytest.raises(Unreachable, match="broke off"):
            answers(Destination(name="PACS", ae_title="PACS", host="127.0.0.1", port=port))
    finally:
        node.receiver.stop(0.0)
        node.ledger.close()


SERVER = """
import socket, ssl, sys
certificate, key, newest = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.set_ciphers("ALL:@SECLEVEL=0")
context.load_cert_chain(certificate, key)
context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, ssl.TLSVersion[newest]
server = socket.create_server(("0.0.0.0", 0))
print(server.getsockname()[1], flush=True)
while True:
    connection, _ = server.accept()
    try:
        context.wrap_socket(connection, server_side=True).recv(1)
    except OSError:
        pass
"""


@contextmanager
def peer(certificate: Path, key: Path, newest: str = "TLSv1_3") -> Iterator[int]:
    """Something that speaks TLS as it is told, and no DICOM; its port."""
    command = [sys.executable, "-W", "ignore", "-c", SERVER, str(certificate), str(key), newest]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("what", ["expired", "stranger", "another address", "revoked", "old TLS"])
def test_a_peer_that_is_not_what_it_should_be_gets_nothing_and_the_sentence_says_why(tmp_path: Path, what: str) -> None:
    made = Authority(tmp_path / "pki")
    pair = made.issue("pacs", days=0 if what == "expired" else 10)
    ca = Authority(tmp_path / "other").certificate if what == "stranger" else made.certificate
    tls = OutgoingTls(enabled=True, ca_file=ca, crl_file=made.revoke(pair) if what == "revoked" else Path())
    said = {
        "expired": "has expired",
        "stranger": "of no authority in ca_file",
        "another address": "of another address",
        "revoked": "is revoked",
        "old TLS": "no TLS with it|refuses the handshake",
    }[what]
    host = "127.0.0.2" if what == "another address" else "127.0.0.1"
    newest = "TLSv1_1" if what == "old TLS" else "TLSv1_3"
    with peer(pair.certificate, pair.key, newest) as port, pytest.raises(Unreachable, match=said):
        answers(destination(port, tls, host))


def test_whoever_does_not_want_the_host_name_verified_says_so(tmp_path: Path) -> None:
    made = Authority(tmp_path / "pki")
    pair = made.issue("pacs")
    with peer(pair.certificate, pair.key) as port, pytest.raises(Unreachable, match="did not answer"):
        answers(destination(port, OutgoingTls(enabled=True, ca_file=made.certificate, verify_host=False), "127.0.0.2"))


def test_files_that_cannot_be_used_put_the_delivery_off(pki: Path, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"PACS: the files of its tls cannot be used: .*gone.pem"):
        answers(destination(1, ours(pki, ca_file=tmp_path / "gone.pem")))
    with pytest.raises(Unreachable, match="key values mismatch"):
        answers(destination(1, ours(pki, key_file=pki / "sender.key")))

"""TLS on real sockets, over every engine: who comes in, who does not and why, and that nobody waits for anybody."""

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from config.settings import TlsSettings
from scp.network.tls import LOOK_EVERY_S, Tls
from tests.support.certificates import Authority, Pair
from tests.support.encoded import CT, data_set
from tests.support.peers import FOLDERS, need
from tests.support.rawscu import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    VERIFICATION,
    RawScu,
    associate_rq,
    command,
    p_data,
    ui,
    us,
)
from tests.support.receiving import Receiving, StartReceiving
from tests.support.waiting import wait_until

SAMPLE = Path(__file__).parents[3] / "node" / "samples" / "synthetic-chest-1.dcm"


@dataclass
class Hospital:
    """An authority, the node's certificate and a modality's."""

    authority: Authority
    node: Pair
    modality: Pair

    def settings(self, **changes: Any) -> dict[str, Any]:
        files = {"certificate_file": self.node.certificate, "key_file": self.node.key}
        return {"enabled": True, "ca_file": self.authority.certificate, **files, **changes}

    def client(self, shown: Pair | None = None) -> ssl.SSLContext:
        """Of a modality that shows `shown`, and checks the node's certificate."""
        context = ssl.create_default_context(cafile=self.authority.certificate)
        context.check_hostname = False
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        return context


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    authority = Authority(tmp_path / "pki")
    return Hospital(authority, authority.issue("node"), authority.issue("modality"))


def echoes(node: Receiving, context: ssl.SSLContext) -> bool:
    with RawScu(node.address, tls=context) as scu:
        return scu.echo() == 0


def is_cut_off(node: Receiving, context: ssl.SSLContext) -> bool:
    """In TLS 1.3 the client hears of it only when it reads."""
    try:
        with closing(context.wrap_socket(socket.create_connection(node.address, timeout=20))) as connection:
            connection.sendall(associate_rq([(VERIFICATION, (IMPLICIT_LITTLE,))]))
            return connection.recv(1) == b""
    except (ssl.SSLError, ConnectionError):
        return True


def failures() -> dict[str, float]:
    [family] = [one for one in REGISTRY.collect() if one.name == "opentriage_receive_tls_failed"]
    return {one.labels["reason"]: one.value for one in family.samples if one.name.endswith("_total")}


@pytest.fixture
def told() -> Callable[[], dict[str, float]]:
    """The handshakes that failed in this test, by reason."""
    before = failures()
    return lambda: {
        reason: count - before.get(reason, 0) for reason, count in failures().items() if count > before.get(reason, 0)
    }


# --- who comes in ---


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"], ids=["non-downgrading", "bcp195", "extended"])
def test_dcmtk_stores_with_a_certificate_of_our_authority(
    start: StartReceiving, hospital: Hospital, profile: str
) -> None:
    node = start(tls=hospital.settings())
    host, port = node.address
    shown = hospital.modality
    tls = ["+tls", shown.key, shown.certificate, "+cf", hospital.authority.certificate, profile]
    done = subprocess.run(
        [need("storescu"), *tls, "-v", "-aec", "OPENTRIAGE", host, str(port), SAMPLE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sum(node.dispositions.values()) == 1


def test_without_mutual_no_certificate_is_asked_for(start: StartReceiving, hospital: Hospital) -> None:
    node = start(tls=hospital.settings(mutual=False))
    assert echoes(node, hospital.client())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_are_spoken(start: StartReceiving, hospital: Hospital, version: ssl.TLSVersion) -> None:
    node = start(tls=hospital.settings())
    context = hospital.client(hospital.modality)
    context.minimum_version = context.maximum_version = version
    assert echoes(node, context)


def test_two_messages_in_one_tls_record_are_both_read(start: StartReceiving, hospital: Hospital) -> None:
    """The second is decrypted with the first: the socket itself has nothing more to read."""
    node = start(tls=hospital.settings())
    with RawScu(node.address, [(CT, (EXPLICIT_LITTLE,))], tls=hospital.client(hospital.modality)) as scu:
        rq = {0x2: ui(CT), 0x100: us(1), 0x110: us(7), 0x700: us(0), 0x800: us(1), 0x1000: ui("1.2.3.4")}
        scu.socket.sendall(p_data(1, 3, command(rq)) + p_data(1, 2, data_set()))
        assert scu.read_response().status == 0


# --- who does not, and why ---


def test_a_peer_without_a_certificate_is_cut_off(start: StartReceiving, hospital: Hospital, told: Any) -> None:
    node = start(tls=hospital.settings())
    assert is_cut_off(node, hospital.client())
    wait_until(lambda: told() == {"no_certificate": 1}, 60)


def test_a_certificate_of_another_authority_is_cut_off(
    start: StartReceiving, hospital: Hospital, tmp_path: Path, told: Any
) -> None:
    node = start(tls=hospital.settings())
    stranger = Authority(tmp_path / "elsewhere").issue("modality")
    with capture_logs() as logs:
        assert is_cut_off(node, hospital.client(stranger))
        wait_until(lambda: told() == {"unknown_ca": 1}, 60)
        [line] = wait_until(lambda: [one for one in logs if one["event"] == "tls_handshake_failed"], 60)
    assert (line["reason"], line["peer"]) == ("unknown_ca", "127.0.0.1")


def test_an_expired_certificate_is_cut_off(start: StartReceiving, hospital: Hospital, told: Any) -> None:
    node = start(tls=hospital.settings())
    assert is_cut_off(node, hospital.client(hospital.authority.issue("old", days=-1)))
    wait_until(lambda: told() == {"expired": 1}, 60)


def test_a_certificate_that_is_no_clients_is_cut_off(start: StartReceiving, hospital: Hospital, told: Any) -> None:
    node = start(tls=hospital.settings())
    assert is_cut_off(node, hospital.client(hospital.authority.issue("web", usage="server")))
    wait_until(lambda: told() == {"other": 1}, 60)


def test_a_revoked_certificate_is_cut_off_and_its_neighbour_is_not(
    start: StartReceiving, hospital: Hospital, told: Any
) -> None:
    lost = hospital.authority.issue("lost")
    node = start(tls=hospital.settings(crl_file=hospital.authority.revoke(lost)))
    assert is_cut_off(node, hospital.client(lost))
    wait_until(lambda: told() == {"revoked": 1}, 60)
    assert echoes(node, hospital.client(hospital.modality))


@pytest.mark.parametrize(
    "offered",
    [
        ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
        ("-tls1_2", "-cipher", "AES128-GCM-SHA256"),  # RSA key exchange
        ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"),  # CBC
    ],
    ids=["tls 1.1", "no forward secrecy", "cbc"],
)
def test_what_is_no_longer_safe_is_cut_off(
    start: StartReceiving, hospital: Hospital, told: Any, offered: tuple[str, ...]
) -> None:
    node = start(tls=hospital.settings())
    host, port = node.address
    openssl = next(folder / "openssl" for folder in FOLDERS if (folder / "openssl").is_file())
    shown = ("-cert", hospital.modality.certificate, "-key", hospital.modality.key)
    command = [openssl, "s_client", "-connect", f"{host}:{port}", *offered, *shown]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert done.returncode != 0
    wait_until(lambda: told() == {"protocol": 1}, 60)


def test_plain_dicom_is_cut_off(start: StartReceiving, hospital: Hospital, told: Any) -> None:
    node = start(tls=hospital.settings())
    with capture_logs() as logs:
        for count in (1, 2):
            with closing(socket.create_connection(node.address, timeout=20)) as connection:
                connection.sendall(associate_rq([(VERIFICATION, (IMPLICIT_LITTLE,))]))
                assert _until_the_end(connection)[:1] in (b"", b"\x15")  # nothing but an alert
            wait_until(lambda count=count: told() == {"protocol": count}, 60)
    [line] = [entry for entry in logs if entry["event"] == "tls_handshake_failed"]  # one a minute
    assert "switch TLS on at the sender" in line["hint"]


def test_a_peer_that_does_not_trust_us_is_named_so(
    start: StartReceiving, hospital: Hospital, tmp_path: Path, told: Any
) -> None:
    node = start(tls=hospital.settings())
    context = ssl.create_default_context(cafile=Authority(tmp_path / "elsewhere").certificate)
    context.check_hostname = False
    with pytest.raises(ssl.SSLCertVerificationError), closing(socket.create_connection(node.address)) as raw:
        context.wrap_socket(raw)
    wait_until(lambda: told() == {"refused_by_peer": 1}, 60)


# --- nobody waits for anybody ---


def test_a_newcomer_does_not_wait_for_the_silent(start: StartReceiving, hospital: Hospital, engine: str) -> None:
    room = {
        "pynetdicom": {"max_associations": 300}
    }  # the native engine cuts off the longest silent where there is none
    node = start(tls=hospital.settings(handshake_timeout_s=30.0), **room.get(engine, {}))
    with ExitStack() as silent:
        for _ in range(200):
            silent.enter_context(closing(socket.create_connection(node.address, timeout=20)))
        began = time.monotonic()
        assert echoes(node, hospital.client(hospital.modality))
        took_s = time.monotonic() - began
    assert took_s < 15  # half of one handshake's deadline


def client_hello(context: ssl.SSLContext) -> bytes:
    """The first bytes that this client would send."""
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def test_half_a_client_hello_is_dropped_at_the_deadline(start: StartReceiving, hospital: Hospital, told: Any) -> None:
    node = start(tls=hospital.settings(handshake_timeout_s=0.3))
    hello = client_hello(hospital.client())
    with closing(socket.create_connection(node.address, timeout=60)) as connection, suppress(ConnectionError):
        connection.sendall(hello[: len(hello) // 2])
        assert connection.recv(1) == b""
    wait_until(lambda: told() == {"timeout": 1}, 60)


def test_a_drip_does_not_extend_the_deadline(start: StartReceiving, hospital: Hospital, told: Any) -> None:
    node = start(tls=hospital.settings(handshake_timeout_s=0.5))
    hello = client_hello(hospital.client())
    began = time.monotonic()
    with closing(socket.create_connection(node.address, timeout=20)) as connection:
        connection.settimeout(0.1)
        assert not all(_still_open_after(connection, byte) for byte in hello)  # which would take about 25 s
    assert time.monotonic() - began < 20
    wait_until(lambda: told() == {"timeout": 1}, 60)


def _still_open_after(connection: socket.socket, byte: int) -> bool:
    try:
        connection.sendall(bytes([byte]))
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionError:
        return False


def _until_the_end(connection: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionError):
        while step := connection.recv(100):
            received += step
    return received


# --- files that change ---


def replace(old: Pair, new: Pair) -> None:
    """As a person or a renewing program does it: each file in one step."""
    for source, target in ((new.key, old.key), (new.certificate, old.certificate)):
        part = target.with_suffix(".part")
        shutil.copy2(source, part)
        part.replace(target)


def shown_to(context: ssl.SSLContext, address: tuple[str, int]) -> bytes:
    with closing(context.wrap_socket(socket.create_connection(address, timeout=20))) as connection:
        return connection.getpeercert(binary_form=True) or b""


def test_a_new_certificate_is_shown_while_what_is_open_goes_on(start: StartReceiving, hospital: Hospital) -> None:
    node = start(tls=hospital.settings())
    renewed = hospital.authority.issue("renewed")
    wanted = ssl.PEM_cert_to_DER_cert(_block(renewed.certificate))
    context = hospital.client(hospital.modality)
    with RawScu(node.address, tls=context) as scu:
        assert shown_to(context, node.address) != wanted
        replace(hospital.node, renewed)
        wait_until(lambda: shown_to(context, node.address) == wanted, LOOK_EVERY_S + 60)
        assert scu.echo() == 0
        scu.release()


def _block(path: Path) -> str:
    return "-----BEGIN" + path.read_text().partition("-----BEGIN")[2]


def test_a_file_that_is_not_set_is_not_the_working_directory(
    hospital: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scp.network.tls.LOOK_EVERY_S", 0.0)
    tls = Tls(TlsSettings.model_validate(hospital.settings()))
    with capture_logs() as logs:
        before = tls.context()
        (tmp_path / "new").touch()
        assert tls.context() is before
    assert logs == []


def test_files_that_cannot_be_used_are_said_and_the_old_ones_stay(start: StartReceiving, hospital: Hospital) -> None:
    node = start(tls=hospital.settings())
    context = hospital.client(hospital.modality)
    with capture_logs() as logs:
        hospital.node.certificate.write_text("-----BEGIN CERTIFICATE-----\nhalf of")

        def said() -> list[Any]:
            assert echoes(node, context)
            return [entry for entry in logs if entry["event"] == "tls_files_refused"]

        [line] = wait_until(said, LOOK_EVERY_S + 60)
    assert line["log_level"] == "error"
    assert str(hospital.node.certificate) in line["reason"]


def test_who_was_revoked_meanwhile_is_cut_off(start: StartReceiving, hospital: Hospital) -> None:
    listed = hospital.authority.revoke()
    node = start(tls=hospital.settings(crl_file=listed))
    context = hospital.client(hospital.modality)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # resumes sessions without tickets
    with closing(context.wrap_socket(socket.create_connection(node.address, timeout=20))) as connection:
        session = connection.session
    hospital.authority.revoke(hospital.modality)
    wait_until(lambda: is_cut_off(node, context), LOOK_EVERY_S + 60)
    with closing(socket.create_connection(node.address, timeout=20)) as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw, session=session)

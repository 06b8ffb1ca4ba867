"""[web.tls]: the receiver's profile on the HTTP port, certificates that are renewed while it runs, and no plaintext."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ledger.access import Role
from node.web.server import secured
from scp.network import tls
from scp.network.tls import CannotSecure
from tests.support.certificates import Authority, Pair
from tests.support.serving import Served, serving, settings_in


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Served]:
    files = put(tmp_path_factory.mktemp("tls"), authority.issue("node", usage="server"))
    with serving(settings_in(tmp_path_factory.mktemp("web"), tls=files)) as made:
        yield made


def put(folder: Path, pair: Pair) -> dict[str, str]:
    certificate, key = folder / "web.pem", folder / "web.key"
    certificate.write_bytes(pair.certificate.read_bytes())
    key.write_bytes(pair.key.read_bytes())
    return {"certificate_file": str(certificate), "key_file": str(key)}


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


def test_the_interface_is_had_over_tls_and_over_nothing_else(served: Served, authority: Authority) -> None:
    with served.client(Role.READ, verify=trusting(authority)) as client:
        assert client.get("/worklist").status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(served.url.replace("https", "http") + "/worklist", headers=served.bearer(Role.READ))


def test_the_profile_is_the_receivers(served: Served) -> None:
    context = secured(served.settings.web).context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert not any("CBC" in cipher["name"] or "SHA1" in cipher["name"] for cipher in context.get_ciphers())


def test_who_stops_in_the_handshake_keeps_nobody_waiting(served: Served, authority: Authority) -> None:
    silent = [served.connect() for _ in range(20)]
    for connection in silent:
        connection.sendall(b"\x16\x03\x01\x02\x00")
    with served.client(Role.READ, verify=trusting(authority)) as client:
        assert client.get("/worklist").status_code == 200
    for connection in silent:
        connection.close()


def test_a_renewed_certificate_is_shown_without_a_restart(
    served: Served, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "LOOK_EVERY_S", 0.0)
    before = shown(served, authority)
    put(served.settings.web.tls.certificate_file.parent, authority.issue("renewed", usage="server"))
    assert shown(served, authority) != before


def shown(served: Served, authority: Authority) -> bytes:
    with (
        served.connect() as connection,
        trusting(authority).wrap_socket(connection, server_hostname="localhost") as secure,
    ):
        certificate = secure.getpeercert(binary_form=True)
    assert certificate
    return certificate


def test_files_that_cannot_be_used_are_named_as_the_settings_name_them(tmp_path: Path) -> None:
    absent = {"certificate_file": str(tmp_path / "a"), "key_file": str(tmp_path / "b")}
    with pytest.raises(CannotSecure, match=r"web\.tls\.certificate_file"):
        secured(settings_in(tmp_path, tls=absent).web)

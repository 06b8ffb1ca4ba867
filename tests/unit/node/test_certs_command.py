"""`opentriage certs`: what it makes works at once, is for nobody else's eyes, and is never overwritten."""

import ssl
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from config import load_settings
from node.cli import app
from node.trying import authority
from node.watching import certificates
from scp.network.tls import rehearse
from tests.support.peers import need

runner = CliRunner()


def made(folder: Path) -> Path:
    result = runner.invoke(app, ["certs", "make", str(folder), "--host", "localhost", "--host", "127.0.0.1"])
    assert result.exit_code == 0, result.output
    return folder


def test_the_printed_settings_are_accepted_as_they_are_and_the_node_lets_itself_in(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    result = runner.invoke(app, ["certs", "make", str(folder)])
    commented = result.stdout.replace("# [[peers]]", "[[peers]]").replace("# ae_title", "ae_title")
    text = commented.replace("# certificate_sha256", "certificate_sha256")
    assert set(tomllib.loads(text)) == {"receive", "web", "peers"}
    config = tmp_path / "site.toml"
    config.write_text(text)
    settings = load_settings(config)
    assert list(certificates.errors(settings.receive.tls, certificates.today())) == []
    assert rehearse(settings.receive.tls) == ""


def test_keys_are_readable_for_their_owner_alone(tmp_path: Path) -> None:
    modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in made(tmp_path / "pki").iterdir()}
    assert modes[".key"] == 0o600
    assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    folder = made(tmp_path / "pki")
    for path in folder.iterdir():
        if path.name != "web.key":
            path.unlink()
    before = (folder / "web.key").read_bytes()
    result = runner.invoke(app, ["certs", "make", str(folder)])
    assert result.exit_code == 1
    assert "nothing was written" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["web.key"]
    assert (folder / "web.key").read_bytes() == before


def test_openssl_agrees_on_usages_names_and_the_list(tmp_path: Path) -> None:
    folder, openssl = made(tmp_path / "pki"), need("openssl")
    for name, purpose in (("node", "sslserver"), ("node", "sslclient"), ("sender", "sslclient"), ("web", "sslserver")):
        checks = [
            "-purpose",
            purpose,
            "-crl_check",
            "-CRLfile",
            folder / "revoked.pem",
            "-verify_hostname",
            "localhost",
        ]
        command = [openssl, "verify", "-x509_strict", "-CAfile", folder / "ca.pem", *checks, folder / f"{name}.pem"]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_what_is_revoked_is_refused_and_so_is_a_certificate_of_another_authority(tmp_path: Path) -> None:
    folder, other = made(tmp_path / "pki"), made(tmp_path / "other")
    assert runner.invoke(app, ["certs", "revoke", str(folder), str(folder / "sender.pem")]).exit_code == 0
    (other / "ca.pem").unlink()
    stranger = runner.invoke(app, ["certs", "revoke", str(folder), str(folder / "ca.key")])
    assert stranger.exit_code == 1
    command = [
        need("openssl"),
        "verify",
        "-CAfile",
        folder / "ca.pem",
        "-crl_check",
        "-CRLfile",
        folder / "revoked.pem",
    ]
    for name, expected in (("sender", "certificate revoked"), ("node", "OK")):
        done = subprocess.run([*map(str, command), str(folder / f"{name}.pem")], capture_output=True, text=True)
        assert expected in done.stdout + done.stderr


def test_show_prints_what_binds_an_ae_title(tmp_path: Path) -> None:
    pem = made(tmp_path / "pki") / "sender.pem"
    said = tomllib.loads(runner.invoke(app, ["certs", "show", str(pem)]).stdout)
    digest = authority.known_of(pem).sha256
    assert said == {"certificate_sha256": [digest], "certificate_names": ["sender", "localhost"]}
    assert len(ssl.PEM_cert_to_DER_cert(pem.read_text())) > 0


def test_show_says_of_a_key_and_of_a_list_what_they_are_and_repeats_nothing_of_them(tmp_path: Path) -> None:
    folder = made(tmp_path / "pki")
    for name, said in (("node.key", "is a private key and no certificate"), ("revoked.pem", "is a revocation list")):
        result = runner.invoke(app, ["certs", "show", str(folder / name)])
        assert result.exit_code == 1
        assert said in " ".join(result.stderr.split())
        assert not any(line in result.output for line in (folder / name).read_text().splitlines()[1:])


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff\xfe"])
def test_show_says_in_words_that_a_file_is_no_certificate(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pem").write_bytes(content)
    result = runner.invoke(app, ["certs", "show", str(tmp_path / "x.pem")])
    assert result.exit_code == 1
    assert "cannot be read as a certificate" in " ".join(result.stderr.split())

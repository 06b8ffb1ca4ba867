"""A certificate authority of the test's own, made with the openssl command when the test runs."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.peers import FOLDERS

EXTENSIONS = """\
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
[both]
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
[server]
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
[ca]
default_ca = known
[known]
database = {folder}/index.txt
crlnumber = {folder}/crlnumber
default_md = sha256
default_crl_days = 30
"""


@dataclass(frozen=True)
class Pair:
    """Files in PEM."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates into a folder of its own."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder / name
        self._folder.mkdir(parents=True)
        self._config = self._folder / "openssl.cnf"
        self._config.write_text(EXTENSIONS.format(folder=self._folder))
        (self._folder / "index.txt").touch()
        (self._folder / "crlnumber").write_text("01\n")
        self._own = self._request(name)
        self._sign(self._own, "authority", days=30, signed_by=None)
        self.certificate = self._own.certificate

    def issue(self, name: str, days: int = 10, usage: str = "both") -> Pair:
        """days: from now to the end of its validity; 0 or less: it has ended. usage: both or server."""
        pair = self._request(name)
        self._sign(pair, usage, days, self._own)
        return pair

    def revoke(self, *pairs: Pair) -> Path:
        """The list of what is revoked from now on, and nothing else."""
        for pair in pairs:
            self.openssl("ca", "-config", self._config, *self._signer(self._own), "-revoke", pair.certificate)
        revoked = self._folder / "revoked.pem"
        self.openssl("ca", "-config", self._config, *self._signer(self._own), "-gencrl", "-out", revoked)
        return revoked

    def _request(self, name: str) -> Pair:
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        csr = pair.key.with_suffix(".csr")
        self.openssl("req", "-new", *curve, "-subj", f"/CN={name}", "-keyout", pair.key, "-out", csr)
        pair.key.chmod(0o600)
        return pair

    def _sign(self, pair: Pair, usage: str, days: int, signed_by: Pair | None) -> None:
        csr = pair.key.with_suffix(".csr")
        signer = (
            ("-signkey", pair.key) if signed_by is None else ("-CA", signed_by.certificate, "-CAkey", signed_by.key)
        )
        extensions = ("-extfile", self._config, "-extensions", usage)
        self.openssl("x509", "-req", "-in", csr, *signer, *extensions, "-days", str(days), "-out", pair.certificate)

    @staticmethod
    def _signer(own: Pair) -> tuple[object, ...]:
        return "-cert", own.certificate, "-keyfile", own.key

    @staticmethod
    def openssl(*arguments: object) -> None:
        """Run the command; ends the test as skipped where it is not installed."""
        program = next((folder / "openssl" for folder in FOLDERS if (folder / "openssl").is_file()), None)
        if program is None:
            pytest.skip("openssl is not installed (Debian package openssl)")
        done = subprocess.run(
            [str(program), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr

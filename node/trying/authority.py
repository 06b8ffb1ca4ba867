"""A certificate authority to try TLS with: its key lies beside what it signs, so it proves nothing to anybody else."""

import ipaddress
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAME: Final = "OpenTriage TEST authority, proves nothing"
CA, REVOKED = "ca", "revoked.pem"
_BEFORE: Final = timedelta(minutes=5)  # other machines' clocks
_CLIENT, _SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
USAGES: Final[dict[str, tuple[x509.ObjectIdentifier, ...]]] = {
    "node": (_SERVER, _CLIENT),
    "sender": (_CLIENT, _SERVER),  # and a PACS, which listens
    "web": (_SERVER,),
}


@dataclass(frozen=True)
class Known:
    """What a certificate says of itself. sha256: as `[[peers]]` wants it; names: what a caller may be known by."""

    subject: str
    names: tuple[str, ...]
    sha256: str
    ends: datetime
    issuer: str


def make(folder: Path, hosts: Sequence[str], days: int) -> list[Path]:
    """An authority, one certificate for each of USAGES, and an empty revocation list. Raises FileExistsError before
    anything is written when one of the files is there, OSError."""
    files = [folder / f"{name}.{kind}" for name in (CA, *USAGES) for kind in ("pem", "key")] + [folder / REVOKED]
    for path in files:
        if path.exists():
            raise FileExistsError(f"{path} exists")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key, own = _authority(days)
    _write(folder, CA, key, own)
    for name, usage in USAGES.items():
        theirs = ec.generate_private_key(ec.SECP256R1())
        _write(folder, name, theirs, _issued(name, theirs, hosts, usage, days, own, key))
    _new_file(folder / REVOKED, _list([], own, key, days), 0o644)
    return files


def revoke(folder: Path, certificate: Path, days: int) -> int:
    """Put a certificate on the list of the authority in `folder`; how many stand there now. Raises OSError, and
    ValueError for a file that is not what it should be or a certificate of another authority."""
    own = x509.load_pem_x509_certificate((folder / f"{CA}.pem").read_bytes())
    key = serialization.load_pem_private_key((folder / f"{CA}.key").read_bytes(), None)
    old = x509.load_pem_x509_crl((folder / REVOKED).read_bytes())
    theirs = x509.load_pem_x509_certificate(certificate.read_bytes())
    if not isinstance(key, ec.EllipticCurvePrivateKey) or theirs.issuer != own.subject:
        raise ValueError(f"{certificate} is not of the authority in {folder}")
    serials = {one.serial_number for one in old} | {theirs.serial_number}
    fresh = folder / f".{REVOKED}.new"
    fresh.unlink(missing_ok=True)
    _new_file(fresh, _list(sorted(serials), own, key, days), 0o644)
    fresh.replace(folder / REVOKED)
    return len(serials)


def known_of(path: Path) -> Known:
    """Of the first certificate in a PEM file. Raises OSError, ValueError."""
    one = x509.load_pem_x509_certificate(path.read_bytes())
    common = [str(name.value) for name in one.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    try:
        said = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        common += said.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        pass
    names = tuple(dict.fromkeys(common))
    digest = one.fingerprint(hashes.SHA256()).hex()
    return Known(one.subject.rfc4514_string(), names, digest, one.not_valid_after_utc, one.issuer.rfc4514_string())


def _authority(days: int) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key, name = ec.generate_private_key(ec.SECP256R1()), _name(NAME)
    signs = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = _certificate(name, name, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(signs, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return key, builder.sign(key, hashes.SHA256())


def _issued(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    hosts: Iterable[str],
    usage: Iterable[x509.ObjectIdentifier],
    days: int,
    authority: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    builder = _certificate(_name(name), authority.subject, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(map(_general_name, hosts)), critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return builder.add_extension(identifier, critical=False).sign(signer, hashes.SHA256())


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - _BEFORE).not_valid_after(now + timedelta(days=days))


def _list(serials: Iterable[int], authority: x509.Certificate, signer: ec.EllipticCurvePrivateKey, days: int) -> bytes:
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
    builder = builder.last_update(now - _BEFORE).next_update(now + timedelta(days=days))
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _new_file(folder / f"{name}.key", plain, 0o600)
    _new_file(folder / f"{name}.pem", certificate.public_bytes(pem), 0o644)


def _new_file(path: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)

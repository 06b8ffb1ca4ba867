"""TLS on whatever we open (PS3.15 B.12, BCP 195): the peer shows a certificate, and so do we where it asks.

Associations, adapters, queries by HTTP and the audit repository all begin with `profiled`.
"""

import ssl
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from config.settings import BCP195_CIPHERS, OutgoingTls
from sr_writer.errors import Unreachable

_SAID = {
    10: "its certificate has expired, or one of the two clocks is wrong",
    18: "its certificate is of no authority in ca_file",
    19: "its certificate is of no authority in ca_file",
    20: "its certificate is of no authority in ca_file",
    21: "its certificate is of no authority in ca_file",
    23: "its certificate is revoked",
    62: "its certificate is of another host name than the one that the settings call",
    64: "its certificate is of another address than the one that the settings call",
}

PIECE_BYTES: Final = 1 << 18


class ClientContext(ssl.SSLContext):
    """Remembers why a handshake failed: pynetdicom tells only that there is no connection."""

    failure: ssl.SSLError | None = None


class _Telling(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except ssl.SSLError as error:
            if isinstance(self.context, ClientContext):
                self.context.failure = error
            raise

    def send(self, data: Any, flags: int = 0) -> int:
        """A piece, and how much that was. OpenSSL would write all or nothing within one timeout, and where the peer
        names no maximum length all of an object is one PDU: over a slow line it would never get through."""
        return super().send(memoryview(data)[:PIECE_BYTES], flags)


Kind = TypeVar("Kind", bound=ssl.SSLContext)
NONE = Path()  # a file that is not named


def client_context(tls: OutgoingTls, key: str) -> ClientContext:
    """For one association with the peer called `key`: the files as they are now. Raises Unreachable."""
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _Telling
    context.check_hostname = tls.verify_host
    try:
        return profiled(context, tls.ca_file, tls.certificate_file, tls.key_file, tls.crl_file)
    except OSError as error:  # SSLError is one
        why = error.reason if isinstance(error, ssl.SSLError) else f"{error.filename}: {error.strerror}"
        raise Unreachable(f"{key}: the files of its tls cannot be used: {_words(why)}") from None


def named_context(ca_file: Path = NONE, certificate_file: Path = NONE, key_file: Path = NONE) -> ssl.SSLContext:
    """For one connection to a host that is called by the name in its certificate. Raises OSError; SSLError is one."""
    return profiled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ca_file, certificate_file, key_file)


def profiled(
    context: Kind, ca_file: Path, certificate_file: Path = NONE, key_file: Path = NONE, crl_file: Path = NONE
) -> Kind:
    """The context by BCP 195, with these files. NONE: for ca_file the authorities that the system trusts; else nothing.
    Raises OSError where one cannot be read, SSLError where it is not what it should be."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(BCP195_CIPHERS)
    if ca_file == NONE:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.load_verify_locations(_there(ca_file))
    if crl_file != NONE:
        context.load_verify_locations(_there(crl_file))
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    if certificate_file != NONE:
        password: Any = partial(_no_passphrase, key_file)
        context.load_cert_chain(_there(certificate_file), _there(key_file), password)
    return context


def why_not(error: ssl.SSLError) -> str:
    """What a failed handshake means, for a person. Never quotes what came from the peer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _SAID.get(error.verify_code, f"its certificate is not accepted: {_words(error.verify_message)}")
    said = str(error.reason)
    if said in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE") or "EOF" in said:
        return "it speaks no TLS at this port, or broke off: look whether this is its port for TLS"
    if "ALERT" in said:
        return f"it refuses the handshake ({_words(said)}): look whether it knows the authority of our certificate"
    return f"no TLS with it: {_words(said)}"


def _there(path: Path) -> Path:
    """OpenSSL does not say which file is missing."""
    with path.open("rb"):
        return path


def _no_passphrase(path: Path) -> NoReturn:
    raise OSError(0, "has a passphrase, and nobody is there to type it", str(path))


def _words(said: object) -> str:
    return str(said or "not what it should be").replace("_", " ").lower()

"""TLS on accepted connections (PS3.15 B.12, BCP 195): who may come in, and why somebody did not.

The handshake runs in the connection's own thread under a deadline for all of it, so that neither silence nor a trickle
keeps anybody else waiting. Files that change are read again at the next handshake: new ones that cannot be used are
said loudly and the old ones stay in use; associations that are open are not touched. No session is ever resumed, so a
certificate that was revoked meanwhile is looked at again each time.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import structlog

from config.settings import BCP195_CIPHERS, TlsSettings
from ledger.errors import PermanentError
from scp import metrics
from scp.network.sparing import SparingLog

log = structlog.get_logger()

LOOK_EVERY_S: Final = 1.0
FAILED: Final = "tls_handshake_failed"
_HINTS: Final = {
    "WRONG_VERSION_NUMBER": "it speaks no TLS, plain DICOM most likely: switch TLS on at the sender, as it is here",
    "HTTP_REQUEST": "it speaks HTTP",
}


class Reason(StrEnum):
    """Why a handshake failed."""

    NO_CERTIFICATE = "no_certificate"
    UNKNOWN_CA = "unknown_ca"
    EXPIRED = "expired"  # or not valid yet
    REVOKED = "revoked"
    PROTOCOL = "protocol"  # no common version or cipher suite, or no TLS at all
    REFUSED_BY_PEER = "refused_by_peer"  # most often: it does not know the authority of our certificate
    TIMEOUT = "timeout"
    CLOSED = "closed"  # the peer went away, as probes do that only look whether somebody listens
    OTHER = "other"


for _reason in Reason:  # from 0 on (scp.metrics)
    metrics.TLS_FAILED.labels(_reason)


class HandshakeFailed(OSError):
    """No TLS with this peer; it is cut off."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason


class CannotSecure(PermanentError):
    """The files of [receive.tls] cannot be used; the text says which and why."""


# of X509_verify_cert(3)
_VERIFIED: Final = {
    9: Reason.EXPIRED,
    10: Reason.EXPIRED,
    18: Reason.UNKNOWN_CA,
    19: Reason.UNKNOWN_CA,
    20: Reason.UNKNOWN_CA,
    21: Reason.UNKNOWN_CA,
    23: Reason.REVOKED,
}


def reason_of(error: OSError) -> Reason:
    """The reason behind what a handshake raised."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFIED.get(error.verify_code, Reason.OTHER)
    if isinstance(error, TimeoutError):
        return Reason.TIMEOUT
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError)):
        return Reason.CLOSED
    if not isinstance(error, ssl.SSLError):
        return Reason.OTHER
    said = str(error.reason)
    if said == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return Reason.NO_CERTIFICATE
    return Reason.REFUSED_BY_PEER if "ALERT" in said else Reason.PROTOCOL


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """What the files and settings amount to. Raises CannotSecure."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(BCP195_CIPHERS)
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    _show(context, settings)
    if settings.mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, "ca_file", settings.ca_file)
        if settings.crl_file != Path():
            _trust(context, "crl_file", settings.crl_file)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def own_client_context(settings: TlsSettings) -> ssl.SSLContext:
    """For the node's call to itself: asks nothing of the other end, which is this machine. Raises CannotSecure."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if settings.mutual:
        _show(context, settings)
    return context


def _show(context: ssl.SSLContext, settings: TlsSettings) -> None:
    for name in ("certificate_file", "key_file"):
        _readable(name, getattr(settings, name))
    try:
        context.load_cert_chain(
            settings.certificate_file, settings.key_file, password=partial(_no_passphrase, settings.key_file)
        )
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CannotSecure("receive.tls: key_file is not the key of certificate_file") from None
        raise CannotSecure(
            f"receive.tls: {settings.certificate_file} with {settings.key_file} cannot be used: {_words(error)}"
        ) from None


def _trust(context: ssl.SSLContext, name: str, path: Path) -> None:
    _readable(name, path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise CannotSecure(f"receive.tls.{name}: {path} cannot be used: {_words(error)}") from None


def _readable(name: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise CannotSecure(f"receive.tls.{name}: {path} cannot be read: {error.strerror}") from None


def _no_passphrase(path: Path) -> NoReturn:
    raise CannotSecure(
        f"receive.tls.key_file: {path} has a passphrase, and nobody is there to type it: write it without one with "
        f"openssl pkey -in {path} -out NEW, and name NEW (readable for the node's user only)"
    )


def _words(error: ssl.SSLError) -> str:
    """OpenSSL's own text, which never quotes what came from a peer or a file."""
    said = getattr(error, "verify_message", "") or error.reason or "not what it should be"
    return str(said).replace("_", " ").lower()


Stamp = tuple[tuple[int, int, int], ...]


class Tls:
    """What `secure` of scp.network.engine.Surroundings needs to know."""

    def __init__(self, settings: TlsSettings, turned_away: Callable[[str, str, str], None] | None = None) -> None:
        """turned_away: see scp.network.engine.Handlers. Raises CannotSecure."""
        self._settings = settings
        self._turned_away = turned_away
        self._lock = threading.Lock()
        self._failed = SparingLog(FAILED)
        self._looked_at = time.monotonic()
        self._seen = self._stamp()
        self._context = server_context(settings)

    def secure(self, connection: socket.socket) -> socket.socket:
        """The connection in TLS, its timeout as before. Until then a shutdown() of what was given ends the handshake;
        afterwards what was given is closed. Raises HandshakeFailed, with all of it closed."""
        peer, timeout_s = _peer_of(connection), connection.gettimeout()
        limit_s = self._settings.handshake_timeout_s
        held = connection.dup()  # wrap_socket() takes the descriptor away
        try:
            held.settimeout(limit_s if timeout_s is None else min(limit_s, timeout_s))
            held = self.context().wrap_socket(held, server_side=True, do_handshake_on_connect=False)
            held.do_handshake()  # the timeout is that of the whole handshake
            held.settimeout(timeout_s)
        except OSError as error:
            held.close()
            raise self._told(error, peer) from error
        finally:
            connection.close()
        return held

    def _told(self, error: OSError, peer: str) -> HandshakeFailed:
        """Count and log why; a probe that hangs up is no news."""
        reason = reason_of(error)
        text = _words(error) if isinstance(error, ssl.SSLError) else type(error).__name__
        metrics.TLS_FAILED.labels(reason).inc()
        if reason is Reason.CLOSED:
            log.debug(FAILED, reason=str(reason), text=text, peer=peer)
        else:
            hint = _HINTS.get(str(error.reason)) if isinstance(error, ssl.SSLError) else None
            self._failed.warn(peer, str(reason), text=text, **({"hint": hint} if hint else {}))
            if self._turned_away is not None:
                self._turned_away(peer, "", f"tls_{reason}")
        return HandshakeFailed(reason, text)

    def context(self) -> ssl.SSLContext:
        """The context of new handshakes: of the files as they are now, or the last that could be used."""
        with self._lock:
            if time.monotonic() - self._looked_at >= LOOK_EVERY_S:
                self._looked_at = time.monotonic()
                self._look_again()
            return self._context

    def _look_again(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._context = server_context(self._settings)
        except CannotSecure as error:
            log.error("tls_files_refused", reason=str(error), in_use="those read before")
        else:
            log.info("tls_files_read_again")

    def _stamp(self) -> Stamp:
        """Tells whether a file that is in use changed; a file that is away is a change too."""
        settings = self._settings
        paths = [settings.certificate_file, settings.key_file]
        if settings.mutual:
            paths += (settings.ca_file, settings.crl_file)
        return tuple(_stamp_of(path) for path in paths if path != Path())  # Path(): not set, and the working directory


def _stamp_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _peer_of(connection: socket.socket) -> str:
    try:
        return str(connection.getpeername()[0])
    except OSError:
        return ""


def rehearse(settings: TlsSettings) -> str:
    """Why the node's own certificate would not let the node in, as OpenSSL says it; empty when it would. Nothing
    leaves this process. Raises CannotSecure."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context(settings).wrap_bio(to_server, to_client, server_side=True)
    client = own_client_context(settings).wrap_bio(to_client, to_server)
    for side in (client, server) * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError as error:
            return _words(error)
    return ""

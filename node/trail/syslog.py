"""Syslog over TLS (RFC 5425). The only receipt there is: a connection that ends in good order.

After our close_notify the repository answers with its own once it has read everything before it. When it dies, or drops
what it has not read, the connection is reset instead.
"""

import contextlib
import fcntl
import socket
import ssl
import struct
import sys
import time
from typing import Final

from config.audit import AuditSettings
from ledger.errors import RetryableError
from sr_writer.secure import named_context

CONNECT_S: Final = 10.0
SEND_S: Final = 30.0  # a repository that takes nothing for so long is away
CLOSE_S: Final = 10.0
_SIOCOUTQ: Final = 0x5411  # linux/sockios.h: octets that the other machine has not acknowledged


class Unheard(RetryableError):
    """The repository was not reached, or did not say that it has read what was sent. The text is for a person."""


def frame(message: bytes) -> bytes:
    """RFC 5425 4.3: MSG-LEN SP SYSLOG-MSG."""
    return b"%d " % len(message) + message


class Connection:
    """One connection to the repository. Raises Unheard."""

    def __init__(self, settings: AuditSettings) -> None:
        try:
            context = named_context(settings.ca_file, settings.certificate_file, settings.key_file)
            raw = socket.create_connection((settings.repository_host, settings.repository_port), CONNECT_S)
        except OSError as error:
            raise Unheard(_why("cannot be reached", error)) from None
        try:
            self._socket = context.wrap_socket(raw, server_hostname=settings.repository_host)
            self._socket.settimeout(SEND_S)
        except OSError as error:  # SSLError is one
            raw.close()
            raise Unheard(_why("did not agree on TLS", error)) from None

    def send(self, messages: bytes) -> None:
        try:
            self._socket.sendall(messages)
        except OSError as error:
            raise Unheard(_why("stopped listening", error)) from None

    def end(self, confirm: str) -> None:
        """Close it. Returns only when everything that was sent was read (close), or has arrived (sent)."""
        try:
            if confirm == "sent":
                self._drain()
            self._socket.settimeout(CLOSE_S)
            try:
                self._socket.unwrap().close()
            except OSError as error:  # SSLError is one; so an end without close_notify, which tells nothing
                if confirm == "close":
                    raise Unheard(_why("did not end the connection in good order", error)) from None
        finally:
            self.drop()

    def _drain(self) -> None:
        give_up = time.monotonic() + CLOSE_S
        while sys.platform == "linux":
            left = struct.unpack("i", fcntl.ioctl(self._socket.fileno(), _SIOCOUTQ, b"\0\0\0\0"))[0]
            if not left:
                return
            if time.monotonic() > give_up:
                raise Unheard("the repository's machine does not take what was sent")
            time.sleep(0.01)

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()


def _why(what: str, error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the repository {what}: {error.verify_message}"
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return f"the repository {what}: {reason or type(error).__name__}"

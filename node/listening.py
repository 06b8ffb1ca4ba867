"""Why an address cannot be listened on, in one sentence: a person mends it, no restart does."""

import errno
import socket

from ledger.errors import PermanentError


class CannotListen(PermanentError):
    """The address of a role cannot be had; the text says why."""


def cannot_listen(host: str, port: int, error: OSError) -> CannotListen:
    """The sentence for what `bind` said."""
    if error.errno == errno.EADDRINUSE:
        return CannotListen(f"port {port} on {host} is taken: another program, or another node, listens there")
    if error.errno == errno.EACCES:
        return CannotListen(f"port {port} on {host} is not for this user: ports below 1024 need a privilege")
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return CannotListen(f"{host} is not an address of this machine")
    return CannotListen(f"port {port} on {host} cannot be had: {error.strerror}")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise cannot_listen(host, port, error) from None

"""Why an address cannot be listened on, in one sentence: a person mends it, no restart does."""

import errno
import os
import socket

from ledger.errors import PermanentError

BACKLOG = 1024  # connections that wait until somebody accepts them
SYSTEMD_FIRST_FD = 3


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


def reserve(host: str, port: int) -> socket.socket:
    """A socket that holds the address and refuses connections until listen(). Raises CannotListen."""
    reserved = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reserved.family == socket.AF_INET6:
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        reserved.bind((host, port))
    except OSError as error:
        reserved.close()
        raise cannot_listen(host, port, error) from None
    return reserved


def handed_over() -> socket.socket | None:
    """The listening socket that systemd made for this process (sd_listen_fds(3)): callers wait while we are away."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    os.set_inheritable(SYSTEMD_FIRST_FD, False)
    return socket.socket(fileno=SYSTEMD_FIRST_FD)

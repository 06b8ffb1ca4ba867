"""A peer that takes a connection and then keeps to nothing: half a PDU and silence, a byte now and then, a length that
is not to be believed, an answer without end."""

import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from tests.support.sink import Sink, _read_pdu

HEADER = struct.Struct(">BxL")
STEP_S = 0.02
LIFE_S = 60.0
Halt = Callable[[socket.socket, bytes], None]  # given the connection, and the A-ASSOCIATE-AC that it would have sent


def half_a_header(connection: socket.socket, _: bytes) -> None:
    connection.sendall(HEADER.pack(4, 1000)[:3])


def half_a_pdu(connection: socket.socket, _: bytes) -> None:
    connection.sendall(HEADER.pack(4, 1000) + bytes(6))


def dripping(connection: socket.socket, _: bytes) -> None:
    """A byte often enough that no read of one byte ever waits long."""
    connection.sendall(HEADER.pack(4, 10_000))
    until = time.monotonic() + LIFE_S
    while time.monotonic() < until:
        connection.sendall(b"\0")
        time.sleep(STEP_S)


def four_gibibytes(connection: socket.socket, _: bytes) -> None:
    connection.sendall(HEADER.pack(4, 0xFFFFFFF0) + bytes(1 << 20))


def a_long_abort(connection: socket.socket, _: bytes) -> None:
    connection.sendall(HEADER.pack(7, 1 << 20))


def without_end(connection: socket.socket, _: bytes) -> None:
    """Fragments of a data set, none of which is the last."""
    fragment = HEADER.pack(4, 16_006) + struct.pack(">LBB", 16_002, 1, 0) + bytes(16_000)
    for _ in range(4_000):
        connection.sendall(fragment)


def half_an_acceptance(connection: socket.socket, acceptance: bytes) -> None:
    connection.sendall(acceptance[: len(acceptance) // 2])


def a_dripping_acceptance(connection: socket.socket, acceptance: bytes) -> None:
    connection.sendall(HEADER.pack(2, 10_000) + acceptance[HEADER.size :])
    dripping(connection, acceptance)


def a_huge_acceptance(connection: socket.socket, acceptance: bytes) -> None:
    connection.sendall(HEADER.pack(2, 0xFFFFFFF0) + acceptance[HEADER.size :])


class Halting(Sink):
    """halt: what it does instead of accepting the association, or (answers) instead of answering the first question."""

    def __init__(self, halt: Halt, answers: bool = True, context: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self._halt, self._answers, self._context = halt, answers, context
        self.ended = b""  # the last that it heard: of the connections that it had

    def _talk(self, connection: socket.socket) -> None:
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True)
        with connection:
            _, asked = _read_pdu(connection)
            accepted = self._accepted(asked)
            if self._answers:
                connection.sendall(accepted)
                _read_pdu(connection)
            with suppress(OSError):
                self._halt(connection, accepted)
            connection.settimeout(LIFE_S)
            while heard := connection.recv(65_536):
                self.ended = heard

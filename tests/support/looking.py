"""Who says whose an image is, without the models that would judge it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from config import Settings
from node.looking import header
from node.looking import server as look_server
from node.looking.server import LookServer
from node.looking.turns import Turns
from node.web import identities

UNHURRIED_S = 60.0  # a busy machine starts a child, and reads a header, in more than the two seconds that a page waits


@contextmanager
def unhurried() -> Iterator[None]:
    """Pages wait for as long as a header takes."""
    with (
        mock.patch.object(identities, "WITHIN_S", UNHURRIED_S),
        mock.patch.object(header, "WALL_S", UNHURRIED_S),
    ):
        yield


@contextmanager
def headers_read(settings: Settings) -> Iterator[LookServer]:
    """The look socket of a node that has no model: nobody is at its desk. `unhurried`."""
    analyser: Any = None
    with mock.patch.object(look_server, "Desk"):
        server = LookServer(settings, analyser, Turns())
    with unhurried():
        server.start()
        try:
            yield server
        finally:
            server.stop()

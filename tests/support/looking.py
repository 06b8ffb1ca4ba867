"""Who says whose an image is, without the models that would judge it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from config import Settings
from node.looking import server as look_server
from node.looking.server import LookServer
from node.looking.turns import Turns


@contextmanager
def headers_read(settings: Settings) -> Iterator[LookServer]:
    """The look socket of a node that has no model: nobody is at its desk."""
    analyser: Any = None
    with mock.patch.object(look_server, "Desk"):
        server = LookServer(settings, analyser, Turns())
    server.start()
    try:
        yield server
    finally:
        server.stop()

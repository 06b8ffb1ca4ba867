"""Which Host headers are answered: against pages elsewhere that rebind their name to our address."""

from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from config.web import WebSettings
from node.web import problems
from node.web.problems import Problem

HERE: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Hosts:
    """On loopback, HERE; elsewhere the node does not know by which names it is called."""

    def __init__(self, app: ASGIApp, settings: WebSettings) -> None:
        self._app = app
        self._asks = settings.is_on_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._asks:
            request = Request(scope, receive)
            if name_of(request.headers.get("host", "")) not in HERE:
                refusal = Problem(400, "This node is asked on this machine alone: as 127.0.0.1, localhost or [::1].")
                await problems.answer(request, refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def name_of(host: str) -> str:
    """A Host header without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and (not port or port.isdecimal()) else host).lower()

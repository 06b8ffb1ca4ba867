"""What anybody may see on loopback, the bare page, health and metrics, needs a token where other machines reach it."""

from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from config.web import WebSettings
from ledger.access import Role
from ledger.errors import LedgerUnavailable
from node.web import problems
from node.web.access import Guard
from node.web.problems import Problem

BARE: Final = frozenset({"/", "/healthz", "/metrics"})
SIGN_IN: Final = "/sign-in"


class OffLoopback:
    """Asks who it is for the paths of BARE, unless the node listens on loopback or the settings open them."""

    def __init__(self, app: ASGIApp, settings: WebSettings, guard: Guard) -> None:
        self._app = app
        self._asks = not settings.is_on_loopback and not settings.open_off_loopback
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._asks and scope["path"] in BARE:
            request = Request(scope, receive)
            try:
                await self._guard.require(request, Role.READ)
            except Problem as problem:
                await self._refusal(request, problem)(scope, receive, send)
                return
            except LedgerUnavailable as error:
                await (await problems.on_ledger_unavailable(request, error))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    @staticmethod
    def _refusal(request: Request, problem: Problem) -> ASGIApp:
        if request.url.path == "/" and problem.status == 401 and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(SIGN_IN, 303)
        return problems.answer(request, problem)

"""The application: pages (node/web/pages.py), the interface for programs (node/web/api.py), and what guards both."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from config import Settings
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from node.web import problems
from node.web.access import Guard
from node.web.api import api_router
from node.web.api_docs import docs_routes
from node.web.bodies import Bodies
from node.web.headers import SecurityHeaders
from node.web.hosts import Hosts
from node.web.off_loopback import OffLoopback
from node.web.pages import Pages, page_routes
from node.web.stow import Stow


def make_app(settings: Settings, ledger: Ledger) -> FastAPI:
    """The ASGI application."""
    handlers: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
        problems.Problem: problems.on_problem,
        HTTPException: problems.on_http,
        RequestValidationError: problems.on_invalid,
        LedgerUnavailable: problems.on_ledger_unavailable,
        ClientDisconnect: problems.on_gone,
        Exception: problems.on_failure,
    }
    guard, stow = Guard(settings, ledger), Stow(settings, ledger)
    app = FastAPI(
        title="OpenTriage",
        routes=[*page_routes(Pages(settings, ledger)), *docs_routes()],
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(Bodies, settings=settings.web),
            Middleware(Hosts, settings=settings.web),
            Middleware(OffLoopback, settings=settings.web, guard=guard),
        ],
        exception_handlers=handlers,
        openapi_url=None,  # nothing without a token: node/web/api_docs.py serves it
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it would repeat the Host header
    )
    app.state.guard, app.state.stow = guard, stow
    router = api_router(settings, ledger, stow)
    app.state.routes = [*app.routes, *router.routes]
    app.include_router(router)
    return app

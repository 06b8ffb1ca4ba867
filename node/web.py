"""The page, health and metrics: server-rendered, read-only, no build step, nothing loaded from elsewhere."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config import Settings
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from node import log_events, notices
from node.health import HealthCheck
from node.metrics import make_registry, render
from node.places import made_of
from node.triage_list import (
    delivery_states,
    delivery_word,
    finding_words,
    priority_word,
    start_of_day,
    state_word,
)
from sr_writer.profiles import name_of_kind

TEMPLATES = Path(__file__).with_name("templates")
REFRESH_S = 5
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class SecurityHeaders:
    """Adds HEADERS to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class Pages:
    """The handlers; each asks the ledger in a thread of its own."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._health = HealthCheck(settings, ledger)
        self._registry = make_registry(settings, ledger)
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._templates.globals.update(
            priority_word=priority_word,
            finding_words=finding_words,
            delivery_states=delivery_states,
            delivery_word=delivery_word,
            state_word=state_word,
            name_of_kind=name_of_kind,
        )

    async def triage_list(self, request: Request) -> Response:
        """The list of the day, most urgent first, without names."""
        return HTMLResponse(await run_in_threadpool(self._render, request.query_params.get("open", "")))

    def _render(self, opened: str = "") -> str:
        """opened: the study whose objects are shown; the page renews itself and would close them."""
        now = datetime.now().astimezone()
        entries = self._ledger.worklist(start_of_day())
        uids = [entry.study_instance_uid for entry in entries]
        objects = self._ledger.objects_of(uids)
        return self._templates.get_template("list.html").render(
            entries=entries,
            opened=opened,
            made={uid: made_of(objects.get(uid, [])) for uid in uids},
            heard=self._ledger.told_of(uids),
            parked=self._ledger.parked(),
            told=self._ledger.told_so_far(),
            refused=notices.read(self._settings, "analyse").get("refused", []),
            now=now,
            refresh_s=REFRESH_S,
            ae_title=self._settings.receive.ae_title,
        )

    async def healthz(self, request: Request) -> Response:
        """200 only when the node answered itself and nothing due has waited too long."""
        health = await run_in_threadpool(self._health.check)
        body: dict[str, Any] = {
            "healthy": not health.reasons,
            "echo_answered": health.echo_answered,
            "oldest_job_s": health.oldest_job_s,
            "reasons": list(health.reasons),
            "provider": health.provider,
            "degraded": health.degraded,
            "alarms": list(health.alarms),
        }
        return JSONResponse(body, status_code=503 if health.reasons else 200)

    async def metrics(self, request: Request) -> Response:
        """Prometheus text format."""
        text = await run_in_threadpool(render, self._registry)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def style(self, request: Request) -> Response:
        """The one style sheet."""
        return Response((TEMPLATES / "style.css").read_text(encoding="utf-8"), media_type="text/css")


async def _unavailable(request: Request, error: Exception) -> Response:
    return PlainTextResponse("The ledger cannot be read. The list will be back when it can.\n", status_code=503)


async def _failed(request: Request, error: Exception) -> Response:
    structlog.get_logger().error(log_events.PAGE_FAILED, page=request.url.path, exc_info=error)
    return PlainTextResponse("This page could not be made; the log says where.\n", status_code=500)


def make_app(settings: Settings, ledger: Ledger) -> Starlette:
    """The ASGI application."""
    pages = Pages(settings, ledger)
    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        LedgerUnavailable: _unavailable,
        Exception: _failed,
    }
    return Starlette(
        routes=[
            Route("/", pages.triage_list),
            Route("/healthz", pages.healthz),
            Route("/metrics", pages.metrics),
            Route("/style.css", pages.style),
        ],
        middleware=[Middleware(SecurityHeaders), Middleware(TrustedHostMiddleware, allowed_hosts=_hosts(settings))],
        exception_handlers=handlers,
    )


def _hosts(settings: Settings) -> list[str]:
    """Which Host headers are answered: against pages elsewhere that rebind their name to our address."""
    host = settings.web.host
    if host in ("127.0.0.1", "::1", "localhost"):
        return ["127.0.0.1", "localhost", "[::1]"]
    return ["*"]

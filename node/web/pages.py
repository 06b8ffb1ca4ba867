"""The pages, health and metrics: server-rendered, no build step, nothing loaded from elsewhere.

Without sign-in, which is possible on loopback only, no page shows whose a study is, nor a picture, and nothing changes.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from config import Settings
from ledger.access import Role
from ledger.audit import AuditKind
from ledger.ledger import Ledger
from node import notices
from node.telling.caller import said_of
from node.telling.opinions_csv import as_csv
from node.watching.health import HealthCheck
from node.watching.metrics import make_registry, render
from node.web import page_acts, page_drift, page_picture, page_signing
from node.web.access import guard_of
from node.web.identities import Identities, Whose
from node.web.model_cards import cards
from node.web.page_frame import SEARCH, TEMPLATES, Frame, MustSignIn, seen, to_sign_in
from node.web.page_list import TriageList
from node.web.page_pace import drawn
from node.web.page_study import story_of
from node.web.page_unsigned import without_tokens

ICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="#7cc0f8" stroke-width="3" '
    'stroke-linecap="round"><path d="M4 18.5V14m5.3 4.5v-9m5.4 9V5.5m5.3 13v-7"/></svg>'
)
Handler = Callable[[Request], Awaitable[Response]]


class Pages:
    """The handlers; each asks the ledger in a thread of its own."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._health = HealthCheck(settings, ledger)
        self._registry = make_registry(settings, ledger)
        self._identities = Identities(settings, ledger)
        self.frame = Frame(settings, ledger, self._health)
        self.list = TriageList(ledger, self._identities, self.frame)

    # --- a study ---

    async def study(self, request: Request) -> Response:
        """Everything that happened to one study, and why."""
        visit = await self.frame.visit(request)
        uid = request.path_params["uid"]
        reader = visit.principal.name if visit.principal and visit.may_read else ""
        context = await run_in_threadpool(story_of, self._ledger, uid, reader)
        if context is None:
            raise HTTPException(404)
        if visit.principal:
            await guard_of(request).accessed(request, visit.principal, "study", uid, renewal=visit.is_renewal)
            whose = await run_in_threadpool(self._identities.of_study, uid)
        else:
            whose = Whose()
        context |= {"who": whose.known.get(uid), "not_now": uid in whose.not_now}
        return await self.frame.page(request, visit, "study.html", context)

    async def picture(self, request: Request) -> Response:
        return await page_picture.picture(self._ledger, self._settings, request)

    # --- the other pages ---

    async def parked(self, request: Request) -> Response:
        """Jobs that wait for a person."""
        visit = await self.frame.visit(request)
        await seen(request, visit, "parked")
        released = request.query_params.get("released", "")
        jobs = await run_in_threadpool(self._ledger.parked)
        context = {"jobs": jobs, "released": released if released.isascii() and released.isdecimal() else ""}
        return await self.frame.page(request, visit, "parked.html", context)

    async def senders(self, request: Request) -> Response:
        """Who calls this node, and what he did not get."""
        visit = await self.frame.visit(request)
        await seen(request, visit, "senders")
        context = await run_in_threadpool(self._senders, visit.may_read)
        return await self.frame.page(request, visit, "senders.html", context)

    def _senders(self, may_read: bool) -> dict[str, Any]:
        """may_read: strangers see that somebody sends by STOW-RS, and not with which token."""
        ledger, settings = self._ledger, self._settings
        peers = ledger.peers()
        refused = {one.calling_ae_title: ledger.refused_of(one.calling_ae_title) for one in peers}
        away = {one.calling_ae_title: ledger.turned_away(one.calling_ae_title) for one in peers}
        said: Callable[[str], str] = str if may_read else without_tokens
        lines = {one.calling_ae_title: [said(line) for line in said_of(one, ledger, settings)] for one in peers}
        counts = {title: sum(one.count for one in (*refused[title], *away[title])) for title in lines}
        return {"peers": peers, "names": {title: said(title) for title in lines}, "lines": lines, "refusals": counts}

    async def models(self, request: Request) -> Response:
        """The packages of this machine."""
        visit = await self.frame.visit(request)
        looking = notices.read(self._settings, "analyse")
        context = {
            "cards": await run_in_threadpool(cards, self._settings.look),
            "serving": looking.get("models"),
            "refused": looking.get("refused", []),
            "provider": looking.get("provider"),
            "drift": await run_in_threadpool(page_drift.drawn, self._settings, self._ledger, visit.may_read),
        }
        return await self.frame.page(request, visit, "models.html", context)

    async def model(self, request: Request) -> Response:
        """One package's card, and its figures with their intervals."""
        visit = await self.frame.visit(request)
        return await self.frame.page(request, visit, "model.html", {"card": await self._card(request)})

    async def model_plot(self, request: Request) -> Response:
        """A picture that the package's manifest pins."""
        await self.frame.visit(request)
        card = await self._card(request)
        if request.path_params["plot"] not in card.plots():
            raise HTTPException(404)
        path = card.folder / request.path_params["plot"]
        return Response(await run_in_threadpool(path.read_bytes), media_type="image/png")

    async def _card(self, request: Request) -> Any:
        key = f"{request.path_params['name']}/{request.path_params['version']}"
        found = await run_in_threadpool(cards, self._settings.look)
        card = next((one for one in found if one.key == key), None)
        if card is None:
            raise HTTPException(404)
        return card

    async def pace(self, request: Request) -> Response:
        """How much came, and how soon it was answered."""
        visit = await self.frame.visit(request)
        await seen(request, visit, "pace")
        return await self.frame.page(request, visit, "pace.html", drawn(await run_in_threadpool(self._ledger.pace)))

    # --- what signing in allows ---

    async def sign_in(self, request: Request) -> Response:
        if request.method == "POST":
            return await page_signing.sign_in(self.frame, request)
        return await page_signing.sign_in_page(self.frame, request)

    async def sign_out(self, request: Request) -> Response:
        return await page_signing.sign_out(request)

    async def release(self, request: Request) -> Response:
        return await page_acts.release(self._ledger, self._settings, request)

    async def opinion(self, request: Request) -> Response:
        return await page_acts.opinion(self._ledger, request)

    async def opinions_csv(self, request: Request) -> Response:
        """The table that `opentriage validate` reads."""
        principal = await guard_of(request).require(request, Role.READ)
        images = await run_in_threadpool(self._ledger.labelled_images)
        await guard_of(request).audit(request, principal, AuditKind.EXPORT, what="opinions", images=len(images))
        text = await run_in_threadpool(as_csv, images, self._ledger.store)
        return Response(
            text, media_type="text/csv", headers={"Content-Disposition": 'attachment; filename="opinions.csv"'}
        )

    # --- for programs, and the page's own files ---

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

    async def script(self, request: Request) -> Response:
        """The one script; everything works without it."""
        return Response((TEMPLATES / "page.js").read_text(encoding="utf-8"), media_type="text/javascript")

    async def icon(self, request: Request) -> Response:
        return Response(ICON, media_type="image/svg+xml")


def _led(handler: Handler) -> Handler:
    """Strangers off loopback are led to the form."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except MustSignIn:
            return to_sign_in(request)

    return answer


def page_routes(pages: Pages) -> list[BaseRoute]:
    return [
        Route("/", _led(pages.list.shown)),
        Route(SEARCH, _led(pages.list.search), methods=["POST"]),
        Route(SEARCH, pages.list.no_search),
        Route("/study/{uid}", _led(pages.study)),
        Route("/study/{uid}/picture.png", pages.picture),
        Route("/study/{uid}/opinion", pages.opinion, methods=["POST"]),
        Route("/parked", _led(pages.parked)),
        Route("/parked/{job:int}/release", pages.release, methods=["POST"]),
        Route("/senders", _led(pages.senders)),
        Route("/models", _led(pages.models)),
        Route("/models/{name}/{version}", _led(pages.model)),
        Route("/models/{name}/{version}/{plot}", _led(pages.model_plot)),
        Route("/pace", _led(pages.pace)),
        Route("/opinions.csv", pages.opinions_csv),
        Route("/sign-in", pages.sign_in, methods=["GET", "POST"]),
        Route("/sign-out", pages.sign_out, methods=["POST"]),
        Route("/healthz", pages.healthz),
        Route("/metrics", pages.metrics),
        Route("/style.css", pages.style),
        Route("/page.js", pages.script),
        Route("/icon.svg", pages.icon),
    ]

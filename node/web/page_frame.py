"""What every page has around it: who looks, what is degraded, the way to the other pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from config import Settings
from ledger.access import Principal, Role
from ledger.figures import with_sd
from ledger.ledger import Ledger
from ledger.records import Finding
from node.telling.story import numbers_behind
from node.telling.triage_list import (
    delivery_states,
    delivery_word,
    finding_words,
    priority_word,
    sent_after_s,
    state_word,
    still_waits,
)
from node.watching.health import Health, HealthCheck
from node.web.access import guard_of
from node.web.off_loopback import SIGN_IN
from node.web.page_together import Together
from node.web.page_words import clock, duration, local, seemly, short_uid
from sr_writer.profiles import name_of_kind

TEMPLATES: Final = Path(__file__).parents[1] / "templates"
REFRESH_S: Final = 4
SEARCH: Final = "/search"
LIVE: Final = "x-live"  # the page asks by itself


@dataclass(frozen=True)
class Visit:
    """Who looks at a page. csrf: for its forms."""

    principal: Principal | None
    csrf: str = ""
    is_renewal: bool = False

    @property
    def may_read(self) -> bool:
        return self.principal is not None and self.principal.role.covers(Role.READ)

    @property
    def may_operate(self) -> bool:
        return self.principal is not None and self.principal.role.covers(Role.OPERATE)


@dataclass(frozen=True)
class Facts:
    """What every page says besides its own: of the node, and of nobody who looks. parked: how many jobs."""

    health: Health
    parked: int


class MustSignIn(Exception):
    """Off loopback there is nothing to see for strangers."""


class Frame:
    """Makes pages from templates."""

    def __init__(self, settings: Settings, ledger: Ledger, health: HealthCheck) -> None:
        self.settings = settings
        self.ledger = ledger
        self._health = health
        self._together = Together[Facts]()
        self.templates = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,  # they change with the program, not beside it
        )
        self.templates.globals.update(
            priority_word=priority_word,
            finding_words=finding_words,
            delivery_states=delivery_states,
            delivery_word=delivery_word,
            state_word=state_word,
            sent_after_s=sent_after_s,
            still_waits=still_waits,
            name_of_kind=name_of_kind,
            duration=duration,
            short_uid=short_uid,
            local=local,
            clock=clock,
            seemly=seemly,
            numbers_behind=numbers_behind,
            probability=_probability,
        )

    async def visit(self, request: Request) -> Visit:
        """Who looks. Raises MustSignIn for strangers off loopback, Problem for a token that is no good."""
        guard = guard_of(request)
        principal = await guard.principal(request)
        if principal is None and not self.settings.web.is_on_loopback and not self._is_open(request):
            raise MustSignIn
        csrf = guard.csrf_token(request) if principal else ""
        return Visit(principal, csrf, request.headers.get(LIVE) == "1")

    async def facts(self, visit: Visit) -> Facts:
        """What stands around a page that is shown now. A page that renews itself is told with others."""
        return await (self._together.ask(self._facts) if visit.is_renewal else run_in_threadpool(self._facts))

    async def page(
        self,
        request: Request,
        visit: Visit,
        template: str,
        context: Mapping[str, Any],
        status: int = 200,
        facts: Facts | None = None,
    ) -> Response:
        """One page. facts: what was asked already."""
        facts = facts or await self.facts(visit)
        return HTMLResponse(await run_in_threadpool(self._render, request, visit, template, context, facts), status)

    def _facts(self) -> Facts:
        return Facts(self._health.check(), sum(self.ledger.parked_counts().values()))

    def _render(self, request: Request, visit: Visit, template: str, context: Mapping[str, Any], facts: Facts) -> str:
        return self.templates.get_template(template).render(
            visit=visit,
            path=request.url.path,
            health=facts.health,
            shadow=self.settings.node.mode == "shadow",
            parked_count=facts.parked,
            now=datetime.now().astimezone(),
            refresh_s=REFRESH_S,
            ae_title=self.settings.receive.ae_title,
            **context,
        )

    def _is_open(self, request: Request) -> bool:
        return self.settings.web.open_off_loopback and request.url.path in ("/", SEARCH)


def _probability(finding: Finding) -> str:
    return with_sd(finding.probability, finding.probability_sd)


async def seen(request: Request, visit: Visit, what: str) -> None:
    """A page without identities that somebody who signed in reads: one record in five minutes."""
    if visit.principal:
        await guard_of(request).accessed(request, visit.principal, what, renewal=True)


def to_sign_in(request: Request) -> Response:
    """Where strangers are led; the way back is not remembered in an address that others see."""
    return RedirectResponse(SIGN_IN, 303)


def back_to(path: str) -> Response:
    """After something was done: the page that shows it, by GET."""
    return RedirectResponse(path, 303)

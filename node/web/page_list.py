"""The triage list: the studies that were asked for, most urgent first."""

import asyncio
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from ledger.access import Principal
from ledger.audit import AuditKind
from ledger.ledger import Ledger
from ledger.worklist import WorklistEntry
from node.web.access import guard_of
from node.web.identities import Identities, Whose
from node.web.page_choice import PRIORITIES, SINCE, STATES, Choice, choose
from node.web.page_frame import Frame, Visit, back_to, seen
from node.web.page_rows import Asked, Line, Rows
from node.web.page_together import Parts, Reading, Together

ACCESSIONS_MAX: Final = 500  # studies whose headers one search may read


class TriageList:
    """Its handlers. Pages that renew themselves share what they read of the ledger (node/web/page_together.py); what is
    chosen of it, whose the studies are, what is recorded and the page itself are each visitor's own."""

    def __init__(self, ledger: Ledger, identities: Identities, frame: Frame) -> None:
        self._ledger, self._identities, self._frame = ledger, identities, frame
        self._rows = Rows(frame.templates)
        self._together = {since: Together[Reading]() for since in SINCE}

    async def shown(self, request: Request) -> Response:
        """The studies that were asked for, most urgent first."""
        visit = await self._frame.visit(request)
        return await self._shown(request, visit, Choice.of(request.query_params))

    async def search(self, request: Request) -> Response:
        """The list of what a form asks for: what is searched comes in its body."""
        form = QueryParams((await request.body()).decode("utf-8", "replace"))
        visit = await self._frame.visit(request)
        choice = Choice.of(form, form.get("q", ""))
        if not choice.search:
            return back_to(choice.address())
        return await self._shown(request, visit, choice)

    async def no_search(self, request: Request) -> Response:
        """Somebody came back to the address: what was searched is forgotten."""
        return back_to("/")

    async def _shown(self, request: Request, visit: Visit, choice: Choice) -> Response:
        reading, facts = await asyncio.gather(self._read(visit, choice.since), self._frame.facts(visit))
        context = await run_in_threadpool(self._context, visit, choice, reading)
        await seen(request, visit, "worklist")
        if choice.search and visit.principal:
            await _searched(request, visit.principal, visit.is_renewal)
        if visit.principal and context["names"].known:
            await guard_of(request).accessed(
                request, visit.principal, "identity", *context["names"].known, renewal=True
            )
        return await self._frame.page(request, visit, "list.html", context, facts=facts)

    async def _read(self, visit: Visit, since: str) -> Reading:
        """since: of SINCE."""
        read = partial(self._reading, since)
        return await (self._together[since].ask(read) if visit.is_renewal else run_in_threadpool(read))

    def _reading(self, since: str) -> Reading:
        return Reading(self._ledger, self._identities, Choice(since).began(datetime.now().astimezone()))

    def _context(self, visit: Visit, choice: Choice, reading: Reading) -> dict[str, Any]:
        by_accession, all_asked = _by_accession(visit, choice, reading)
        found = choose(choice, reading.entries, reading.models, by_accession)
        parts = reading.parts(found.entries)
        uids = [entry.study_instance_uid for entry in found.entries]
        return {
            "choice": choice,
            "chosen": found,
            "line_of": partial(self._line, visit, choice, parts),
            "names": reading.whose(uids) if visit.may_read and choice.names else Whose(),
            "all_asked": all_asked,
            "told": reading.told,
            "priorities": PRIORITIES,
            "states": STATES,
            "since": SINCE,
        }

    def _line(
        self, visit: Visit, choice: Choice, parts: Mapping[str, Parts], entry: WorklistEntry, now: datetime
    ) -> Line:
        uid = entry.study_instance_uid
        is_open = uid == choice.opened
        keep_open_at = "" if visit.is_renewal or choice.search else choice.address(opened="" if is_open else uid)
        return self._rows.line(entry, parts[uid], Asked(now, visit.may_read, is_open, keep_open_at))


async def _searched(request: Request, principal: Principal, is_renewal: bool) -> None:
    """What was searched is not kept: it could be an accession number."""
    if is_renewal:
        await guard_of(request).accessed(request, principal, "search", renewal=True)
    else:
        await guard_of(request).audit(request, principal, AuditKind.QUERY, what="search")


def _by_accession(visit: Visit, choice: Choice, reading: Reading) -> tuple[Collection[str], bool]:
    """Studies with exactly this accession number, and whether all that could have it were asked for it; strangers find
    none."""
    if not visit.may_read or not choice.search:
        return (), True
    whose = reading.whose([entry.study_instance_uid for entry in reading.entries[:ACCESSIONS_MAX]])
    found = {uid for uid, who in whose.known.items() if who.accession == choice.search}
    return found, not whose.not_now

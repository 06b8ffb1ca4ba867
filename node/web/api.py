"""The interface for programs. Every address needs a token; what each takes and answers stands in /docs.

No route declares a body to the framework, which would read it before anybody is asked who he is.
"""

import re
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query
from pydantic import AwareDatetime, BeforeValidator
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from config import Settings
from ledger.access import Principal, Role
from ledger.audit import AuditKind, Outcome
from ledger.ledger import Ledger
from ledger.trail import Asked
from node.commands.worklist import as_object as worklist_line
from node.telling.explain_output import plain, study_object
from node.telling.triage_list import began
from node.watching.stranded import parked_for
from node.web import api_docs as docs
from node.web.access import guard_of, needs
from node.web.api_looking import analysis_of
from node.web.problems import Problem
from node.web.stow import Stow
from node.web.uploads import Form, Upload, uploaded

SCHEMA_VERSION: Final = 1
PAGE, PAGE_MAX = 100, 500
DAYS_MAX: Final = 30
JOB_MAX: Final = 2**53
_WHOLE: Final = re.compile(r"-?[0-9]{1,20}")
_DATE_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:", re.ASCII)
Reader = Annotated[Principal, Depends(needs(Role.READ))]
Operator = Annotated[Principal, Depends(needs(Role.OPERATE))]
Administrator = Annotated[Principal, Depends(needs(Role.ADMIN))]
StudyUid = Annotated[str, Path(pattern=r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+$", max_length=64, examples=["2.25.1"])]
Moment = Annotated[AwareDatetime, BeforeValidator(lambda text: _written(text))]
IN_DIGITS: Final = BeforeValidator(lambda text: _in_digits(text))  # stands last: the document keeps its bounds
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Lines in a page."), IN_DIGITS]


def api_router(settings: Settings, ledger: Ledger, stow: Stow) -> APIRouter:
    """All of it but the documents that describe it (node/web/api_docs.py)."""
    router = APIRouter()
    _looking(router, settings)
    _asking(router, ledger)
    _operating(router, settings, ledger)
    _storing(router, stow)
    return router


def _looking(router: APIRouter, settings: Settings) -> None:
    @router.post("/analyze", **docs.ANALYZE)
    async def analyze(request: Request, principal: Reader) -> Response:
        async with uploaded(request, settings, 1) as form:
            analysis = await _analysed(request, principal, settings, form, form.files[0])
        return JSONResponse(analysis)

    @router.post("/batch_analyze", **docs.BATCH)
    async def batch_analyze(request: Request, principal: Reader) -> Response:
        items: list[dict[str, Any]] = []
        async with uploaded(request, settings, settings.web.max_uploads) as form:
            form.as_kind, form.age  # noqa: B018  wrong for one is wrong for all
            for index, upload in enumerate(form.files):
                try:
                    analysis = await _analysed(request, principal, settings, form, upload)
                    items.append({"index": index, "analysis": analysis})
                except Problem as problem:
                    items.append({"index": index, "problem": problem.body()})
                upload.path.unlink(missing_ok=True)
        failed = sum("problem" in item for item in items)
        return JSONResponse({"schema_version": SCHEMA_VERSION, "items": items, "failed": failed})


async def _analysed(
    request: Request, principal: Principal, settings: Settings, form: Form, upload: Upload
) -> dict[str, Any]:
    analysis = await run_in_threadpool(analysis_of, settings, upload, form.as_kind, form.age)
    studies = {line["study_instance_uid"] or "" for line in analysis["results"]}
    for study in studies:
        detail = {"what": "upload", "priority": analysis["priority"], "size_bytes": upload.size_bytes}
        await guard_of(request).audit(request, principal, AuditKind.ANALYSED, study, **detail)
    return analysis


def _asking(router: APIRouter, ledger: Ledger) -> None:
    @router.get("/worklist", **docs.WORKLIST)
    async def worklist(
        request: Request,
        principal: Reader,
        days: Annotated[
            int, Query(ge=0, le=DAYS_MAX, description="Also of so many days before the last 24 hours."), IN_DIGITS
        ] = 0,
        hidden: Annotated[bool, Query(description="Also the studies that no model is meant for.")] = False,
        limit: Limit = PAGE,
        offset: Annotated[int, Query(ge=0, le=1_000_000), IN_DIGITS] = 0,
    ) -> Response:
        await guard_of(request).accessed(request, principal, "worklist")
        since = began(days)
        entries = await run_in_threadpool(ledger.worklist, since, hidden)
        lines = [worklist_line(entry) for entry in entries[offset : offset + limit]]
        return _page(lines, offset + limit if len(entries) > offset + limit else None)

    @router.get("/studies/{study_uid}", **docs.STUDY)
    async def study(request: Request, study_uid: StudyUid, principal: Reader) -> Response:
        await guard_of(request).accessed(request, principal, "study", study_uid)
        found = await run_in_threadpool(study_object, ledger, study_uid)
        if found is None:
            raise Problem(404, "This node has never received that study.")
        return JSONResponse(found)

    @router.get("/audit_log", **docs.AUDIT_LOG)
    async def audit_log(
        request: Request,
        principal: Administrator,
        study_uid: Annotated[str, Query(max_length=64, pattern=r"^[0-9.]*$", description="Of this study.")] = "",
        kind: Annotated[AuditKind | None, Query(description="Of this kind.")] = None,
        actor: Annotated[str, Query(max_length=160, description="Such as user:NAME, ae:TITLE, node:ROLE.")] = "",
        since: Annotated[Moment | None, Query(description="From then on, with a zone.")] = None,
        until: Annotated[Moment | None, Query(description="Before then, with a zone.")] = None,
        failures: Annotated[bool, Query(description="Only what did not succeed.")] = False,
        limit: Limit = PAGE,
        before: Annotated[
            int | None, Query(ge=1, le=JOB_MAX, description="The `next` of the page before."), IN_DIGITS
        ] = None,
    ) -> Response:
        filters = {"of_kind": kind and kind.value, "of_actor": actor or None, "failures": failures or None}
        named = {name: value for name, value in filters.items() if value}
        await guard_of(request).audit(request, principal, AuditKind.LOG_USED, study_uid, Outcome.SUCCESS, **named)
        asked = Asked(study_uid=study_uid, kind=kind, actor=actor.replace("\0", ""), since=_bounded(since),
                      until=_bounded(until), failures_only=failures)  # fmt: skip
        lines = await run_in_threadpool(ledger.audit_log, asked, before, limit)
        return _page([plain(line) for line in lines], lines[-1].record_id if len(lines) == limit else None)


def _operating(router: APIRouter, settings: Settings, ledger: Ledger) -> None:
    @router.post("/jobs/{job_id}/release", **docs.RELEASE)
    async def release(
        request: Request, principal: Operator, job_id: Annotated[int, Path(ge=1, le=JOB_MAX), IN_DIGITS]
    ) -> Response:
        return JSONResponse(await run_in_threadpool(_release, settings, ledger, job_id, principal))


def _release(settings: Settings, ledger: Ledger, job_id: int, principal: Principal) -> dict[str, Any]:
    parked = next((one for one in ledger.parked() if one.job_id == job_id), None)
    if parked is None:
        raise Problem(404, "There is no such parked job.")
    whom = parked_for(parked)
    if whom and not whom.is_named(settings):
        raise Problem(409, f"The settings no longer name whom this job is for: {whom.cure}")
    if not ledger.release(job_id, principal.actor):
        raise Problem(404, "There is no such parked job.")
    return {"job_id": job_id, "stage": parked.stage.value}


def _storing(router: APIRouter, stow: Stow) -> None:
    async def stored(request: Request, principal: Principal, study_uid: str | None) -> Response:
        response, found = await stow.store(request, principal.name, study_uid)
        refused = sum(not one.answer.is_success for one in found)
        outcome = Outcome.MINOR_FAILURE if refused else Outcome.SUCCESS
        detail = {"what": "stow", "instances": len(found), "refused": refused}
        await guard_of(request).audit(request, principal, AuditKind.OPERATED, study_uid or "", outcome, **detail)
        return response

    @router.post("/studies", **docs.STOW)
    async def store(request: Request, principal: Operator) -> Response:
        return await stored(request, principal, None)

    @router.post("/studies/{study_uid}", **docs.STOW)
    async def store_study(request: Request, study_uid: StudyUid, principal: Operator) -> Response:
        return await stored(request, principal, study_uid)


def _written(text: Any) -> Any:
    """A date and a time as RFC 3339 writes them: pydantic would take a number for seconds too."""
    if isinstance(text, str) and not _DATE_TIME.match(text):
        raise ValueError("not a date and a time")
    return text


def _in_digits(text: Any) -> Any:
    """A whole number as everybody writes it: pydantic would take 1_0, +5 and 5.0 too."""
    if isinstance(text, str) and not _WHOLE.fullmatch(text):
        raise ValueError("not a whole number")
    return text


def _page(items: list[dict[str, Any]], following: int | None) -> Response:
    return JSONResponse({"schema_version": SCHEMA_VERSION, "items": items, "next": following})


def _bounded(at: datetime | None) -> datetime | None:
    """A time that the ledger can compare: years 1 and 9999 have seconds that some zones put outside."""
    if at is None:
        return None
    try:
        at.timestamp()
    except (OverflowError, ValueError):
        raise Problem(422, "A time is out of range.") from None
    return at

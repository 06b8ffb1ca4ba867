"""A study's image for a page: drawn by the analyse role, because this role decodes no pixels."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from config import Settings
from ledger.access import Role
from ledger.ledger import Ledger
from ledger.records import ImageResult, InstanceResults
from node.looking.wire import NoAnalyser, Refusal, ask
from node.web.access import guard_of
from node.web.page_study import mapped_finding, shown_first
from node.web.problems import Problem

WITHIN_S: Final = 15.0
SIDES: Final = {"512": 512, "1024": 1024}


async def picture(ledger: Ledger, settings: Settings, request: Request) -> Response:
    """image: which of the study, by its number, else the one that says most; side: 512 or 1024; heat=1: with the
    evidence over it. Nobody sees a picture without signing in: what is burned into it could name the patient."""
    principal = await guard_of(request).require(request, Role.READ)
    uid, query = request.path_params["uid"], request.query_params
    item = await run_in_threadpool(_chosen, ledger, uid, query.get("image", ""))
    if item is None:
        raise HTTPException(404)
    await guard_of(request).accessed(request, principal, "picture", uid, renewal=True)
    overlay = overlay_of(item.results, ledger) if query.get("heat") == "1" else None
    side = SIDES.get(query.get("side", ""), 512)
    path = str(ledger.store.path(item.instance.path).absolute())
    try:
        reply = await run_in_threadpool(ask, settings, "picture", WITHIN_S, path=path, side=side, overlay=overlay)
    except NoAnalyser as away:
        raise Problem(503, f"No picture now: {away}.", {"Retry-After": str(away.retry_s)}) from None
    except Refusal as refusal:
        raise Problem(404, f"No picture: {refusal}") from None
    return Response(reply.blob, media_type="image/png")


def _chosen(ledger: Ledger, uid: str, number: str) -> InstanceResults | None:
    looked = ledger.study_instances(uid)
    if not number:
        return shown_first(looked)
    return next((item for item in looked if str(item.instance.instance_id) == number), None)


def overlay_of(results: tuple[ImageResult, ...], ledger: Ledger) -> Mapping[str, Any] | None:
    """Plain values for whoever draws: the evidence for the finding that matters most, or what was marked."""
    found = mapped_finding(results)
    mask = next((mask.path for result in results for mask in result.masks if mask.path), "")
    if found is None and not mask:
        return None
    overlay: dict[str, Any] = {"mask": str(ledger.store.path(mask).absolute())} if mask else {}
    if found is not None:
        finding = found[1]
        overlay["regions"] = [{"box": one.box, "probability": one.probability} for one in finding.regions]
        if finding.activation and not finding.regions:
            rows = [[round(value, 4) for value in row] for row in finding.activation.values]
            overlay["map"] = {"values": rows, "box": finding.activation.box}
    return overlay

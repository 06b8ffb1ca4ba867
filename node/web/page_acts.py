"""What a person with the role operate does on a page: release a parked job, say what he thinks of a finding."""

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from config import Settings
from ledger.access import Role
from ledger.ledger import Ledger
from ledger.opinions import Judged
from node.watching.stranded import parked_for
from node.web.access import guard_of, peer_of
from node.web.page_frame import back_to
from node.web.problems import Problem


async def release(ledger: Ledger, settings: Settings, request: Request) -> Response:
    """Let a parked job run again, as `opentriage release JOB` does."""
    principal = await guard_of(request).require(request, Role.OPERATE)
    job_id = request.path_params["job"]
    await run_in_threadpool(_release, ledger, settings, job_id, principal.actor)
    return back_to(f"/parked?released={job_id}")


def _release(ledger: Ledger, settings: Settings, job_id: int, actor: str) -> None:
    parked = next((one for one in ledger.parked() if one.job_id == job_id), None)
    if parked is None:
        raise Problem(404, f"There is no parked job {job_id}; somebody may have released it.")
    whom = parked_for(parked)
    if whom and not whom.is_named(settings):
        raise Problem(409, f"Job {job_id} is for {whom.name}, which the settings do not name: {whom.cure}.")
    ledger.release(job_id, actor)


async def opinion(ledger: Ledger, request: Request) -> Response:
    """Keep whether the reader agrees with a finding."""
    principal = await guard_of(request).require(request, Role.OPERATE)
    form = await request.form()
    uid = request.path_params["uid"]
    said, instance = str(form.get("said", "")), str(form.get("instance", ""))
    if said not in ("agree", "disagree") or not (instance.isascii() and instance.isdecimal() and len(instance) < 19):
        raise Problem(422, "An opinion is “agree” or “disagree”, on a finding of an image of the study.")
    judged = Judged(uid, int(instance), *(str(form.get(name, ""))[:64] for name in ("model", "version", "label")))
    agrees = said == "agree"
    if not await run_in_threadpool(ledger.give_opinion, judged, agrees, principal.name, peer_of(request)):
        raise HTTPException(404)
    return back_to(f"/study/{uid}#image-{instance}")

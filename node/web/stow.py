"""DICOMweb STOW-RS (PS3.18 10.5): studies come in over HTTP and are admitted exactly as by C-STORE.

An instance counts as stored when it is durable and in the ledger, never before; every other one is named with the
reason. Files stream to the store; nothing is held in memory.
"""

import secrets
import threading
from collections.abc import Sequence
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from config import Settings
from ledger.ledger import Ledger
from ledger.peers import BY_STOW
from node.running.receivers import wanted
from node.web.access import peer_of
from node.web.parts import boundary_of, media_type, take_parts
from node.web.problems import Problem
from node.web.stow_parts import Stored, StowTaker
from scp.admission.admitter import Admitter
from scp.admission.quarantine import Quarantine
from scp.callers.arrivals import Arrivals
from scp.callers.newest import Newest
from scp.callers.observing import Observer
from scp.network.contexts import VERIFICATION, negotiation_table
from scp.network.engine import AssociationFacts, Ending
from scp.status import OUT_OF_RESOURCES

PARTS_MAX: Final = 10_000
DICOM_JSON: Final = "application/dicom+json"


class Stow:
    """Shared by all requests. Its threads and folders are made when the first study comes."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._lock = threading.Lock()
        self._made: tuple[Admitter, Observer] | None = None
        self._accepted = {
            uid: syntaxes for uid, syntaxes in negotiation_table(settings.receive).items() if uid != VERIFICATION
        }

    async def store(self, request: Request, name: str, study_uid: str | None) -> tuple[Response, list[Stored]]:
        """Take the request's files. name: the token's. Raises Problem, starlette's ClientDisconnect."""
        kind, options = media_type(request.headers.get("content-type", ""))
        if kind != "multipart/related" or options.get("type", "").lower() != "application/dicom":
            raise Problem(415, 'Send multipart/related; type="application/dicom", one DICOM file in each part.')
        if not accepts(request.headers.get("accept", "*/*")):
            raise Problem(406, f"The answer is {DICOM_JSON}.")
        admitter, observer = await run_in_threadpool(self._ready)
        facts = AssociationFacts(
            f"stow-{secrets.token_hex(12)}", (BY_STOW + name)[:16], self._settings.receive.ae_title, peer_of(request)
        )
        taker = StowTaker(admitter, self._accepted, facts, study_uid)
        ending = Ending.CUT
        observer.negotiated(facts, [])
        try:
            await take_parts(request, boundary_of(options), taker, PARTS_MAX)
            ending = Ending.RELEASED
        finally:
            await run_in_threadpool(self._end, taker, observer, facts, ending)
        if not taker.stored:
            raise Problem(400, "The request has no part.")
        return response_to(taker.stored), taker.stored

    def stop(self) -> None:
        """Hand over what was counted."""
        if self._made is not None:
            self._made[1].stop()

    def _end(self, taker: StowTaker, observer: Observer, facts: AssociationFacts, ending: Ending) -> None:
        taker.abort()
        observer.ended(facts, ending)

    def _ready(self) -> tuple[Admitter, Observer]:
        with self._lock:
            if self._made is None:
                state = self._settings.node.state_dir
                arrivals = Arrivals(self._settings.study, Newest(state / "newest"))
                admitter = Admitter(
                    self._settings,
                    self._ledger,
                    Quarantine(state / "quarantine"),
                    arrivals=arrivals,
                    receivers=wanted(self._settings.receive),
                )
                observer = Observer(self._ledger, arrivals)
                observer.start()
                self._made = admitter, observer
            return self._made


def accepts(header: str) -> bool:
    """Whether the caller reads DICOM JSON."""
    kinds = {part.partition(";")[0].strip().lower() for part in header.split(",")}
    return bool(kinds & {"*/*", "application/*", DICOM_JSON, "application/json"})


def response_to(stored: Sequence[Stored]) -> Response:
    """PS3.18 10.5.3: 200 when all are stored, 202 when some are, 409 when none is; 503 when there was no room."""
    good = [one for one in stored if one.answer.is_success]
    bad = [one for one in stored if not one.answer.is_success]
    headers = {}
    if not bad:
        status = 200
    elif good:
        status = 202
    elif all(one.answer.status == OUT_OF_RESOURCES for one in bad):
        status, headers = 503, {"Retry-After": "60"}
    else:
        status = 409
    return JSONResponse(data_set(good, bad), status, headers, DICOM_JSON)


def data_set(good: Sequence[Stored], bad: Sequence[Stored]) -> dict[str, Any]:
    """The Store Instances Response as DICOM JSON (PS3.18 F.2). No address to retrieve from: it is no archive."""
    named = [one for one in bad if one.sop_instance_uid]
    others = [one for one in bad if not one.sop_instance_uid]
    made: dict[str, Any] = {"00081190": {"vr": "UR"}}
    if named:
        made["00081198"] = _sequence([_names(one) | _reason(one) for one in named])  # Failed SOP Sequence
    if good:
        made["00081199"] = _sequence([_names(one) | {"00081190": {"vr": "UR"}} for one in good])
    if others:
        made["0008119A"] = _sequence([_reason(one) for one in others])  # Other Failures Sequence
    return made


def _sequence(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": items}


def _names(one: Stored) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [one.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [one.sop_instance_uid]},
    }


def _reason(one: Stored) -> dict[str, Any]:
    return {"00081197": {"vr": "US", "Value": [one.failure]}}

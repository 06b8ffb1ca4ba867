"""What goes wrong is said as problem details (RFC 9457): never a value of a request, so never a patient's."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Match

from node import log_events
from node.web.page_away import RETRY_S, away

MEDIA_TYPE: Final = "application/problem+json"


class Problem(Exception):
    """Ends a request. detail: a sentence that a person can act on; more: further members."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def body(self) -> dict[str, Any]:
        return {"type": "about:blank", "title": phrase(self.status), "status": self.status, "detail": self.detail,
                **self.more}  # fmt: skip

    def response(self) -> Response:
        return JSONResponse(self.body(), self.status, self.headers, MEDIA_TYPE)


def phrase(status: int) -> str:
    """The words of a status code."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def answer(request: Request, problem: Problem) -> Response:
    """For a program; who asks with a browser gets the sentence."""
    if "text/html" in request.headers.get("accept", ""):
        return PlainTextResponse(problem.detail + "\n", problem.status, problem.headers)
    return problem.response()


async def on_problem(request: Request, error: Problem) -> Response:
    return answer(request, error)


async def on_http(request: Request, error: HTTPException) -> Response:
    """What the framework itself refuses: no such path, no such method."""
    sentence = {404: "There is nothing at this address.", 405: "This address does not take this method."}
    detail = sentence.get(error.status_code, phrase(error.status_code) + ".")
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_allowed(request)))
    return answer(request, Problem(error.status_code, detail, headers))


def _allowed(request: Request) -> set[str]:
    """What the address takes, by all of its routes: the framework names those of the first."""
    found: set[str] = set()
    for route in request.app.state.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return found


async def on_invalid(request: Request, error: RequestValidationError) -> Response:
    """Which parameter is not what it should be; what was in it is not repeated."""
    wrong = [{"where": [str(part) for part in one["loc"][:2]], "type": one["type"]} for one in error.errors()]
    names = ", ".join(sorted({".".join(one["where"]) for one in wrong}))
    return answer(request, Problem(422, f"These parameters are not what they should be: {names}.", errors=wrong))


async def on_ledger_unavailable(request: Request, error: Exception) -> Response:
    """A browser gets a page that comes back by itself."""
    if "text/html" in request.headers.get("accept", ""):
        return away(request)
    detail = "The ledger cannot be read. The list will be back when it can."
    return answer(request, Problem(503, detail, {"Retry-After": str(RETRY_S)}))


async def on_gone(request: Request, error: Exception) -> Response:
    """The caller hung up before the body had come; nobody hears this."""
    return Problem(400, "The body was cut off.").response()


async def on_failure(request: Request, error: Exception) -> Response:
    """A fault of ours. The log has where, and no value."""
    route = getattr(request.scope.get("route"), "path", "") or "page"
    structlog.get_logger().error(log_events.PAGE_FAILED, page=route, exc_info=error)
    return answer(request, Problem(500, "This answer could not be made; the log says where."))

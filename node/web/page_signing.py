"""Signing in and out: a person shows a token once and gets a session."""

from typing import Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from node.web.access import guard_of
from node.web.page_frame import Frame, Visit, back_to
from node.web.problems import Problem

FORM_MAX: Final = 4096  # bytes: a token and a few names


async def sign_in_page(frame: Frame, request: Request) -> Response:
    """The form."""
    try:
        principal = await guard_of(request).principal(request)
    except Problem:
        principal = None
    return await _form(frame, request, Visit(principal, guard_of(request).csrf_token(request) if principal else ""))


async def sign_in(frame: Frame, request: Request) -> Response:
    """Open a session with the token of the form; the form again, with a sentence, when it is no good."""
    response = RedirectResponse("/", 303)
    try:
        await guard_of(request).sign_in(request, response, (await small_form(request)).get("token", ""))
    except Problem as problem:
        return await _form(frame, request, Visit(None), problem)
    return response


async def sign_out(request: Request) -> Response:
    """End the session."""
    response = back_to("/")
    await guard_of(request).sign_out(request, response)
    return response


async def small_form(request: Request) -> dict[str, str]:
    """The fields of a form that a stranger may send: read by no more than FORM_MAX. Raises Problem."""
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > FORM_MAX:
            raise Problem(413, "The form is longer than any of ours.")
    return {
        name: values[-1] for name, values in parse_qs(content.decode("utf-8", "replace"), max_num_fields=20).items()
    }


async def _form(frame: Frame, request: Request, visit: Visit, problem: Problem | None = None) -> Response:
    said = problem.detail if problem else ""
    answer = await frame.page(request, visit, "sign-in.html", {"problem": said}, problem.status if problem else 200)
    if problem:
        answer.headers.update(problem.headers)
    return answer

"""What a request may send, and how slowly: decided before anything is read, and held to while it is.

A body that is too long by its own account is refused at once. Where an answer leaves before the body has come, the
connection is closed behind it, after a moment in which the sender can notice. A body gets its place
(node/web/places.py) when somebody wants to read it: of uploads and studies that is after who sends it is known.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.web import WebSettings
from node.web import problems
from node.web.access import FORM
from node.web.places import Place, SmallBodies, Uploads
from node.web.problems import Problem

PLAIN_MAX: Final = 64 * 1024  # of a form, or of anything where no body is expected
PLAIN_S: Final = 10.0  # in which it must be whole
FRAME: Final = 1024 * 1024  # what multipart may add to the uploads themselves
HEADERS_MAX, HEAD_MAX_BYTES = 100, 32 * 1024
AT_ONCE_MAX: Final = 128  # requests of any kind, until their answer begins
ALWAYS: Final = frozenset({"/healthz", "/metrics"})
GRACE_S: Final = 10.0  # in which a body may be slower
LONGER_FOR_STUDIES: Final = 12.0  # times body_timeout_s: a study is many images
SEND_S: Final = 60.0
LINGER_S, LINGER_BYTES = 1.0, 256 * 1024
LINGERING_MAX: Final = 32  # answers at once; above it the connection closes without that moment
UPLOADS: Final = frozenset({"/analyze", "/batch_analyze"})
STUDIES: Final = "/studies"


class Bodies:
    """Guards the application from bodies, and from too many requests at once."""

    def __init__(self, app: ASGIApp, settings: WebSettings) -> None:
        self._app = app
        self._settings = settings
        self._uploads, self._small = Uploads(settings.max_at_once), SmallBodies()
        self.working = 0  # on requests
        self.lingering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        expected = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        limit, longest_s = self._limits(scope)
        rate = self._settings.min_bytes_per_s
        watched = Watched(self, receive, send, expected, limit, longest_s, rate, partial(self._enter, scope))
        try:
            self._check(scope, headers, limit)
        except Problem as problem:
            await problems.answer(Request(scope), problem)(scope, watched.receive, watched.send)
            return
        watched.begin()
        try:
            await self._app(scope, watched.receive, watched.send)
        finally:
            watched.end()

    def _limits(self, scope: Scope) -> tuple[int, float]:
        """Bytes, seconds."""
        settings = self._settings
        match _kind(scope):
            case "upload":
                return settings.max_upload_bytes + FRAME, settings.body_timeout_s
            case "study":
                return settings.max_stow_bytes, settings.body_timeout_s * LONGER_FOR_STUDIES
        return PLAIN_MAX, min(settings.body_timeout_s, PLAIN_S)

    async def _enter(self, scope: Scope) -> Place:
        """A place for the body. Raises Problem."""
        if _kind(scope) and scope.get("state", {}).get("principal") is not None:
            return await self._uploads.enter()
        return self._small.enter(scope["client"][0] if scope.get("client") else "")

    def _check(self, scope: Scope, headers: Headers, limit: int) -> None:
        raw = scope["headers"]
        if len(raw) > HEADERS_MAX or sum(len(name) + len(value) for name, value in raw) > HEAD_MAX_BYTES:
            raise Problem(431, "The request has more header fields than this node reads.")
        if headers.get("content-encoding", "identity") != "identity":
            raise Problem(415, "A body must not be compressed.", {"Accept-Encoding": "identity"})
        if "content-length" in headers and "transfer-encoding" in headers:  # two readers could see two requests
            raise Problem(400, "A request says in one way alone how long its body is.")
        declared = headers.get("content-length", "0")
        if not declared.isascii() or not declared.isdigit() or len(declared) > 18:
            raise Problem(400, "The Content-Length is no number of bytes.")
        if int(declared) > limit:
            raise _too_long(limit)
        if self.working >= AT_ONCE_MAX and scope["path"] not in ALWAYS:
            raise Problem(503, "Too many requests are in progress.", {"Retry-After": "5"})


class Watched:
    """The two ends of one request, held to limits. Raises Problem from `receive`."""

    def __init__(
        self,
        bodies: Bodies,
        receive: Receive,
        send: Send,
        expected: bool,
        limit: int,
        longest_s: float,
        min_bytes_per_s: int,
        enter: Callable[[], Awaitable[Place]],
    ) -> None:
        """enter: for a place, when the body is wanted."""
        self._bodies = bodies
        self._receive, self._send = receive, send
        self._enter = enter
        self._place: Place | None = None
        self._is_worked_on = False
        self._open = expected  # more of the body may come
        self._limit = limit
        self._ends_at = monotonic() + longest_s
        self._slowest = min_bytes_per_s
        self._size = 0
        self._waited_s = 0.0  # for the sender, not for us

    def begin(self) -> None:
        """The request is worked on."""
        self._bodies.working += 1
        self._is_worked_on = True

    def end(self) -> None:
        """It is over."""
        self._answered()
        if self._place is not None:
            self._place.leave()

    def _answered(self) -> None:
        """What still leaves waits for the caller, not for us."""
        self._bodies.working -= self._is_worked_on
        self._is_worked_on = False

    async def receive(self) -> Message:
        if not self._open:
            return await self._receive()  # the end of an empty body, or that the caller is gone
        if self._place is None:
            self._place = await self._enter()
        message = await self._next(self._place)
        if not self._open and not self._place.to_the_end:
            self._place.leave()
        return message

    async def _next(self, place: Place) -> Message:
        began = monotonic()
        try:
            async with place.waiting(max(0.0, self._patience_s())):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "The body did not come, or came too slowly.") from None
        self._waited_s += monotonic() - began
        if message["type"] != "http.request":
            self._open = False
            return message
        self._size += len(message.get("body", b""))
        self._open = message.get("more_body", False)
        if self._size > self._limit:
            raise _too_long(self._limit)
        return message

    def _patience_s(self) -> float:
        left_s = self._ends_at - monotonic()
        if not self._slowest:
            return left_s
        return min(left_s, GRACE_S + self._size / self._slowest - self._waited_s)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._answered()
            if self._open:
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_last and self._open:
            await self._send_in_time({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send_in_time(message)

    async def _send_in_time(self, message: Message) -> None:
        """A caller that does not read does not keep a place for ever: the error closes the connection."""
        await asyncio.wait_for(self._send(message), SEND_S)

    async def _linger(self) -> None:
        """What the sender has under way is thrown away, so that closing does not cost it the answer."""
        self._open = False
        if self._bodies.lingering >= LINGERING_MAX:
            return
        self._bodies.lingering += 1
        try:
            await self._throw_away()
        finally:
            self._bodies.lingering -= 1

    async def _throw_away(self) -> None:
        until, size = monotonic() + LINGER_S, 0
        while (left_s := until - monotonic()) > 0 and size < LINGER_BYTES:
            try:
                message: Any = await asyncio.wait_for(self._receive(), left_s)
            except TimeoutError:
                return
            size += len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body", False):
                return


def _kind(scope: Scope) -> str:
    """Of the address: "upload", "study", or "" where no body but a form is expected."""
    path = scope["path"]
    if Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower() == FORM:
        return ""  # none of theirs: it would be read whole
    if path in UPLOADS:
        return "upload"
    return "study" if path == STUDIES or path.startswith(STUDIES + "/") else ""


def _too_long(limit: int) -> Problem:
    return Problem(413, f"The body is longer than the {math.ceil(limit / 1024 / 1024)} MiB that this address takes.")

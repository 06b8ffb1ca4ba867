"""A multipart body as it comes (RFC 2046 5.1): each part goes to a taker piece by piece, never whole to memory."""

from collections.abc import Mapping
from typing import Final, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from node.web.problems import Problem

CHUNK_BYTES: Final = 256 * 1024  # handed to a thread at once
HEADERS_MAX: Final = 16
BROKEN: Final = "The multipart body is broken or cut off."


class Taker(Protocol):
    """Called by one thread at a time. May raise Problem."""

    def begin(self, headers: Mapping[str, str]) -> None:
        """A part; names of headers in small letters."""

    def data(self, chunk: bytes) -> None: ...

    def end(self) -> None: ...


async def take_parts(request: Request, boundary: str, taker: Taker, most: int) -> None:
    """Every part of the body, at most `most`. Raises Problem; starlette's ClientDisconnect."""
    parts = _Parts(taker, most)
    parser = MultipartParser(boundary.encode("latin-1"), parts.callbacks(), max_header_count=HEADERS_MAX)  # type: ignore[arg-type]
    held = bytearray()
    try:
        async for chunk in request.stream():
            held += chunk
            if len(held) >= CHUNK_BYTES:
                await run_in_threadpool(parser.write, bytes(held))
                held.clear()
        if held:
            await run_in_threadpool(parser.write, bytes(held))
    except FormParserError:
        raise Problem(400, BROKEN) from None
    if not parts.is_over:
        raise Problem(400, BROKEN)


def media_type(value: str) -> tuple[str, dict[str, str]]:
    """Of a Content-Type: type in small letters, parameters."""
    kind, options = parse_options_header(value)
    named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in options.items()}
    return kind.decode("latin-1").lower(), named


def boundary_of(options: Mapping[str, str]) -> str:
    """Raises Problem."""
    boundary = options.get("boundary", "")
    if not 1 <= len(boundary) <= 70:  # RFC 2046 5.1.1
        raise Problem(400, "The Content-Type of a multipart body needs a boundary of 1 to 70 characters.")
    return boundary


class _Parts:
    """The parser's callbacks."""

    def __init__(self, taker: Taker, most: int) -> None:
        self._taker = taker
        self._left = most
        self._headers: dict[str, str] = {}
        self._name, self._value = b"", b""
        self.is_over = False

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_name,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_headers_finished": lambda: self._taker.begin(self._headers),
            "on_part_data": lambda data, start, end: self._taker.data(data[start:end]),
            "on_part_end": self._taker.end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Problem(413, "The body has more parts than this address takes.")
        self._headers = {}

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("utf-8", "replace")
        self._name, self._value = b"", b""

    def _end(self) -> None:
        self.is_over = True

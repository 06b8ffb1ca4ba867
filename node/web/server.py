"""uvicorn, less patient: a head or a handshake that does not come to its end is cut off, and so is whoever only sits
there when there are too many (node/web/crowd.py)."""

import asyncio
import json
import logging
import math
import ssl
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from config.settings import TlsSettings
from config.web import WebSettings
from node.web import problems
from node.web.crowd import Crowd
from node.web.failures import key_of
from scp.network.tls import CannotSecure, Tls

HEAD_S: Final = 10.0  # from the first byte of a request, or from the connection, to the end of its head
HEAD_MAX_BYTES: Final = 32 * 1024
HANDSHAKE_S: Final = 10.0
KEEP_ALIVE_S: Final = 5
NOISE_MAX, NOISE_S = 10, 60.0


class Sparing(logging.Filter):
    """A stranger's noise is logged a few times a minute: it is not to fill the disk."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._began, self._count = -math.inf, 0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno > logging.WARNING:
            return True
        if self._clock() - self._began > NOISE_S:
            self._began, self._count = self._clock(), 0
        self._count += 1
        return self._count <= NOISE_MAX


class Impatient(H11Protocol):
    """One connection."""

    _late: asyncio.TimerHandle | None = None
    address = ""
    waits_since: float | None = None
    unread_since: float | None = None

    def __init__(self, *given: Any, crowd: Crowd, **named: Any) -> None:
        super().__init__(*given, **named)
        self._crowd = crowd

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = key_of(self.client[0]) if self.client else ""
        self.waits_since = monotonic()
        self._crowd.enter(self)
        self._expect()

    def data_received(self, data: bytes) -> None:
        self._expect()
        super().data_received(data)
        if not self._waits:
            self.waits_since = None
            self._stop_expecting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.waits_since = monotonic() if self._waits else None
        self._stop_expecting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.leave(self)
        self._stop_expecting()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self.unread_since = monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.unread_since = None
        super().resume_writing()

    def drop(self) -> None:
        """For others."""
        self.transport.abort()

    @property
    def _waits(self) -> bool:
        """Whether nothing is asked just now."""
        return self.cycle is None or self.cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or whose head is too long."""
        detail = "The request is not HTTP as this node reads it, or its head is too long."
        body = json.dumps(problems.Problem(400, detail).body()).encode()
        headers = [(b"content-type", problems.MEDIA_TYPE.encode()), (b"connection", b"close")]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _expect(self) -> None:
        if self._waits and self._late is None:
            self._late = self.loop.call_later(HEAD_S, self._cut)

    def _stop_expecting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _cut(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


class _Loop(asyncio.SelectorEventLoop):
    """The handshake has a deadline; it runs beside everything else, so nobody waits for it."""

    async def create_server(self, *args: Any, **options: Any) -> Any:
        if options.get("ssl") is not None:
            options["ssl_handshake_timeout"] = HANDSHAKE_S
        return await super().create_server(*args, **options)


class Server(uvicorn.Server):
    """Signals are whoever's who starts it."""

    def run(self, sockets: Any = None) -> None:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(self.serve(sockets=sockets))


def make_server(app: ASGIApp, settings: WebSettings) -> Server:
    """For `run(sockets=[...])` in a thread."""
    logger = logging.getLogger("uvicorn.error")
    if not any(isinstance(one, Sparing) for one in logger.filters):
        logger.addFilter(Sparing())
    return Server(
        uvicorn.Config(
            app,
            http=partial(Impatient, crowd=Crowd()),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,  # the address at the other end is the one that counts
            h11_max_incomplete_event_size=HEAD_MAX_BYTES,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=2,
            ssl_context_factory=partial(_context, secured(settings)) if settings.tls.enabled else None,
        )
    )


def tls_of(settings: WebSettings) -> TlsSettings:
    """[web.tls] as the receiver's own helper takes it: no certificates of clients."""
    tls = settings.tls
    return TlsSettings(enabled=tls.enabled, mutual=False, certificate_file=tls.certificate_file, key_file=tls.key_file)


def secured(settings: WebSettings) -> Tls:
    """The files of [web.tls], read again when they change. Raises CannotSecure."""
    try:
        return Tls(tls_of(settings))
    except CannotSecure as error:
        raise CannotSecure(str(error).replace("receive.tls", "web.tls")) from None


def _context(tls: Tls, config: uvicorn.Config, default: Any) -> ssl.SSLContext:
    """The first of its contexts, which hands each handshake to the newest."""

    def newest(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = tls.context()

    context = tls.context()
    context.sni_callback = newest
    return context

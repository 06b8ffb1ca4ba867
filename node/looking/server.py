"""The analyse role's end of the look socket: it looks at what was uploaded, and makes pictures for a page.

Each verb is a function of VERBS. One question is worked on at a time, beside the routed images (inference/aside.py):
those never wait for more than one image's run of a model. Beside both, `header` says whose an image is
(node/looking/header.py), which takes a millisecond and needs no pixels.
"""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final

import structlog

from config import Settings
from inference.analyser import Analyser, Looked, Source
from inference.aside import Aside
from inference.errors import CannotLook
from inference.opened import Session
from inference.sandbox import Decoded
from node import log_events
from node.looking.analysing import lines
from node.looking.header import Headers
from node.looking.picture import picture
from node.looking.turns import Busy, Turns
from node.looking.wire import (
    NAME,
    QUESTION_MAX,
    Listener,
    Refusal,
    Reply,
    is_ours,
    receive,
    send,
    serve_apart,
    uploads_dir,
)

CONNECTIONS_MAX: Final = 32  # that are served or wait; the next hear busy
WITHIN_MAX_S: Final = 600.0
HEADER: Final = "header"
QUESTION_S: Final = 10.0
AWAY_S: Final = 0.5


class Desk:
    """What a verb works with. Used by one thread at a time. again: see Aside."""

    def __init__(
        self, settings: Settings, analyser: Analyser, turns: Turns, again: Mapping[str, Session] | None = None
    ) -> None:
        self.settings = settings
        self.until = 0.0  # of the question that is being answered
        self._aside = Aside(analyser, settings, lambda: turns.other(self.until), again)
        store = settings.node.state_dir / "store"
        self._folders = [folder.resolve() for folder in (uploads_dir(settings), store / "instances", store / "masks")]

    def path(self, question: Mapping[str, Any]) -> Path:
        """The image of a question. Raises Refusal: it does not lie where images lie."""
        path = Path(str(question.get("path", ""))).resolve()
        if not any(path.is_relative_to(folder) for folder in self._folders) or not path.is_file():
            raise Refusal("no_such_image", "There is no such image.")
        return path

    def analyse(self, source: Source) -> Looked:
        """As the node would judge it. Nothing is kept. Raises Busy."""
        (looked,) = self._aside.analyse([source])
        return looked

    def display(self, path: Path, side: int) -> Decoded:
        """Its pixels as a person sees them (see Aside.display). Raises Refusal."""
        try:
            return self._aside.display(path, side)
        except CannotLook as refusal:
            raise Refusal(refusal.reason_code, refusal.reason) from None

    def close(self) -> None:
        self._aside.close()


def look(desk: Desk, question: Mapping[str, Any]) -> Reply:
    """path, as_kind, age: one object for each model, as `opentriage analyse --json` prints."""
    path = desk.path(question)
    looked = desk.analyse(Source(path, question.get("as_kind"), question.get("age")))
    said = lines(path, looked)
    return Reply({"lines": [{name: value for name, value in line.items() if name != "path"} for line in said]})


Verb = Callable[[Desk, Mapping[str, Any]], Reply]
VERBS: Final[dict[str, Verb]] = {"look": look, "picture": picture}


class LookServer:
    """Listens from `start` to `stop`. again: see Aside."""

    def __init__(
        self, settings: Settings, analyser: Analyser, turns: Turns, again: Mapping[str, Session] | None = None
    ) -> None:
        self._desk = Desk(settings, analyser, turns, again)
        self._headers = Headers(settings)
        self._at_desk = threading.Lock()
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._listener = Listener(settings, NAME, CONNECTIONS_MAX)

    def start(self) -> None:
        """Raises OSError."""
        self._listener.start(self._accept)

    def stop(self) -> None:
        """Answer nobody any more; what is being looked at ends by itself."""
        self._listener.stop()
        if self._at_desk.acquire(timeout=1.0):
            self._desk.close()
        self._headers.close()

    def _accept(self, callers: Iterator[socket.socket]) -> None:
        for connection in callers:
            if not is_ours(connection):
                structlog.get_logger().error(log_events.LOOK_REFUSED)
                connection.close()
            elif self._places.acquire(blocking=False):
                serve_apart(self._serve, connection, self._places)
            else:
                self._turn_away(connection)

    @staticmethod
    def _turn_away(connection: socket.socket) -> None:
        with connection, suppress(OSError, ValueError, EOFError):
            receive(connection, QUESTION_MAX, monotonic() + AWAY_S)  # unread, it would cost the answer its way
            send(connection, {"outcome": "busy", "reason": "too many images wait to be looked at"})

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                said, blob = self._answer(receive(connection, QUESTION_MAX, monotonic() + QUESTION_S))
                connection.settimeout(QUESTION_S)
                send(connection, said, blob)
            except (OSError, ValueError, EOFError):
                pass  # whoever asked is gone
            finally:
                self._places.release()

    def _answer(self, question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        try:
            until = monotonic() + min(float(question.get("within_s", 0.0)), WITHIN_MAX_S)
            reply = self._reply(str(question.get("verb")), question, until)
        except Busy as busy:
            return {"outcome": "busy", "reason": str(busy)}, b""
        except Refusal as refusal:
            return {"outcome": "refused", "code": refusal.code, "reason": str(refusal)}, b""
        except Exception:  # noqa: BLE001  top of a connection: the next one may do better
            structlog.get_logger().error(log_events.LOOK_FAILED, exc_info=True)
            return {"outcome": "failed"}, b""
        return {"outcome": "done", "said": dict(reply.said)}, reply.blob

    def _reply(self, verb: str, question: Mapping[str, Any], until: float) -> Reply:
        if verb == HEADER:
            return self._headers.answer(question, until)
        answer = VERBS[verb]
        with self._my_turn(until):
            return answer(self._desk, question)

    @contextmanager
    def _my_turn(self, until: float) -> Iterator[None]:
        if not self._at_desk.acquire(timeout=max(0.0, until - monotonic())):
            raise Busy("other images are being looked at")
        try:
            self._desk.until = until
            yield
        finally:
            self._at_desk.release()

"""How the report role, which has no network, has an archive asked how many instances of a study it has.

One question and one answer over a Unix socket of the deliver role of this machine, in the frames of
node/looking/wire.py. Who may ask: this user. What can be asked: that one archive of the settings, by a UID.
"""

import re
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from time import monotonic
from typing import Any, Final

import structlog

from config import Settings
from config.settings import DeliverSettings, Destination
from ledger.errors import OpenTriageError
from node import log_events
from node.looking.wire import Listener, address, is_ours, receive, send, serve_apart
from sr_writer.association import NotOffered
from sr_writer.errors import Unreachable
from sr_writer.study_count import Listed, ListedSeries, listed

NAME: Final = "count.sock"
CONNECT_MAX_S, WITHIN_MAX_S = 5.0, 10.0
AT_ONCE: Final = 8  # the next hear that there is no room
QUESTION_MAX, ANSWER_MAX = 4096, 4 << 20
_UID: Final = re.compile(r"[0-9.]{1,64}")


def archive_of(settings: Settings) -> Destination | None:
    """Which destination is asked, if any is."""
    return next((one for one in settings.destinations if one.key == settings.study.count_at), None)


def limits_of(settings: Settings) -> DeliverSettings:
    """How long a connection and an answer are waited for: no report waits long."""
    limited = {
        "connect_timeout_s": min(settings.deliver.connect_timeout_s, CONNECT_MAX_S),
        "response_timeout_s": min(settings.deliver.response_timeout_s, WITHIN_MAX_S),
    }
    return settings.deliver.model_copy(update=limited)


def ask(settings: Settings, study_uid: str, here: int) -> Listed:
    """What the archive lists (sr_writer/study_count.py), within `limits_of(settings)` in all. Raises NotOffered,
    Unreachable."""
    answer = _exchange(settings, {"study": study_uid, "here": here})
    if "reason" in answer:
        raise (NotOffered if answer.get("for_good") else Unreachable)(str(answer["reason"]))
    try:
        series = tuple(ListedSeries(**one) for one in answer["series"])
        return Listed(answer["instances"], series)
    except (KeyError, TypeError):
        raise Unreachable("the deliver role gave no answer that can be used.") from None


def is_open(settings: Settings) -> bool:
    """Whether the deliver role of this machine takes questions; the archive is not asked."""
    try:
        return bool(_exchange(settings, {}).get("open"))
    except Unreachable:
        return False


def _exchange(settings: Settings, question: Mapping[str, Any]) -> dict[str, Any]:
    until = monotonic() + limits_of(settings).response_timeout_s
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(until - monotonic())
            with address(settings, NAME) as where:
                connection.connect(where)
            send(connection, question)
            return receive(connection, ANSWER_MAX, until)
    except TimeoutError:
        raise Unreachable(f"{settings.study.count_at} did not answer in time.") from None
    except (OSError, ValueError, EOFError):
        raise Unreachable("the deliver role of this machine, which asks, takes no question now.") from None


class CountDesk:
    """Of the deliver role: takes questions from `start` to `stop`."""

    def __init__(self, settings: Settings, archive: Destination) -> None:
        self._archive = archive
        self._limits = limits_of(settings)
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._listener = Listener(settings, NAME, AT_ONCE)

    def start(self) -> None:
        """Raises OSError."""
        self._listener.start(self._accept)

    def stop(self) -> None:
        """Take no question any more; what is being asked ends by itself."""
        self._listener.stop()

    def _accept(self, callers: Iterator[socket.socket]) -> None:
        for connection in callers:
            if is_ours(connection) and self._places.acquire(blocking=False):
                serve_apart(self._serve, connection, self._places)
            else:
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                question = receive(connection, QUESTION_MAX, monotonic() + CONNECT_MAX_S)
                answer = self._answer(question)
                connection.settimeout(CONNECT_MAX_S)
                send(connection, answer)
            except (OSError, ValueError, EOFError):
                pass  # whoever asked is gone
            except Exception:  # noqa: BLE001  top of a connection: the next one may do better
                structlog.get_logger().error(log_events.LOOP_FAILED, exc_info=True)
            finally:
                self._places.release()

    def _answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        if not question:
            return {"open": True}
        study_uid, here = str(question.get("study")), int(question.get("here", 0))
        if not _UID.fullmatch(study_uid):
            return {"reason": "this is no Study Instance UID.", "for_good": True}
        try:
            return asdict(listed(self._archive, self._limits, study_uid, here))
        except OpenTriageError as error:
            return {"reason": str(error), "for_good": isinstance(error, NotOffered)}

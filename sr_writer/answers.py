"""Whose answer is whose, on an association that we opened.

pynetdicom takes the next answer that comes for the answer to what was asked last, and numbers every request 1. A peer
that answers once twice would so shift all that follows: a refused object would be given the success of the one before.
"""

import queue
import time
from typing import Any, Final

import structlog
from pynetdicom.association import Association

from sr_writer.bounded_socket import Limits

_LAST_ID: Final = 65535  # Message ID is of the VR US (PS3.7 E.1)
log = structlog.get_logger()


def keep_answers(association: Association, destination: str, timeout_s: float, limits: Limits) -> None:
    """Number what is asked on it, and give each question its own answers alone. timeout_s: to wait for one answer."""
    answers = _Answers(association, destination, timeout_s, limits)
    association.dimse.send_msg = answers.send  # type: ignore[method-assign]
    association.dimse.get_msg = answers.get  # type: ignore[method-assign]


class _Answers:
    """In place of the association's sending and receiving of messages. One question is outstanding at a time."""

    def __init__(self, association: Association, destination: str, timeout_s: float, limits: Limits) -> None:
        self._messages: Any = association.dimse.msg_queue
        self._send = association.dimse.send_msg
        self._destination = destination
        self._timeout_s = timeout_s
        self._limits = limits
        self._asked = 0
        self._said = False

    def send(self, primitive: Any, context_id: int) -> None:
        """A request gets the next Message ID; what answers a request of the peer keeps the peer's."""
        if primitive.MessageIDBeingRespondedTo is None:
            self._asked = primitive.MessageID = 1 + self._asked % _LAST_ID
            self._limits.asks()
        self._send(primitive, context_id)

    def get(self, block: bool = False) -> Any:
        """block: for whoever asked; else for the thread that serves the peer's requests."""
        return self._answer() if block else self._request()

    def _answer(self) -> Any:
        """The time is one for all that comes: a peer that says other things without end is as one that says nothing."""
        until = time.monotonic() + self._timeout_s
        while (left := until - time.monotonic()) > 0:
            try:
                found = self._messages.get(timeout=left)
            except queue.Empty:
                break
            if not self._is_surplus(found[1]):
                return found
            self._say(found[1])
        self._limits.give_up()
        return None, None

    def _request(self) -> Any:
        """Answers are left to whoever waits for them.

        pynetdicom stops the thread before it asks, and may take it for stopped just before it goes on: then the thread
        would throw the answer away as unexpected, and an object that was stored would seem to have met with silence.
        """
        surplus = []
        with self._messages.mutex:
            waiting = self._messages.queue
            while waiting and self._is_surplus(waiting[0][1]):
                surplus.append(waiting.popleft()[1])
            first = waiting[0][1] if waiting else None
            found = waiting.popleft() if first is not None and first.is_valid_request else (None, None)
        for message in surplus:
            self._say(message)
        return found

    def _is_surplus(self, message: Any) -> bool:
        """It answers something else than what was asked last."""
        answered = getattr(message, "MessageIDBeingRespondedTo", None)
        return answered is not None and answered != self._asked

    def _say(self, message: Any) -> None:
        """Once for an association, and nothing of what it holds."""
        if not self._said:
            self._said = True
            ids = {"answered": message.MessageIDBeingRespondedTo, "asked": self._asked}
            log.warning("answer_not_asked_for", destination=self._destination, kind=type(message).__name__, **ids)

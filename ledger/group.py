"""Group commit: what many threads hand in at once is done once for all of them (leader and followers, no delay).

Whoever finds nobody at work leads: it takes everything that is queued, does it, and wakes the others with their own
outcome each. What comes meanwhile queues for the next leader, the first in that queue: nobody works for ever for
others, and under load a group is as large as what came during the one before.

Who is about to hand in may say so, and a leader waits for those who have said so before it begins, for as long as the
work took the last time: those whose files one commit of the disk's journal made durable arrive together, and the first
of them would otherwise work for itself alone while the others wait for it.
"""

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

LARGEST: Final = 64
PATIENCE_MAX_S: Final = 0.02


class LeaderLost(RuntimeError):
    """The thread that did the work for a group ended before it could say what became of it."""


class Coming:
    """Somebody who is about to hand in, for as long as the block runs or until it has."""

    __slots__ = ("_group",)

    def __init__(self, group: "Group[Any, Any]") -> None:
        self._group = group

    def __enter__(self) -> Self:
        self._group.comes(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._group.comes_not(self)


class _Turn(Generic[Item, Outcome]):
    """One caller's item, and what became of it. `gate` is held until it is answered or leads."""

    __slots__ = ("error", "gate", "item", "leads", "outcome")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.gate = threading.Lock()
        self.gate.acquire()
        self.leads = False
        self.outcome: Outcome | None = None
        self.error: Exception | None = None

    def answer(self) -> Outcome:
        if self.error is not None:
            raise self.error
        assert self.outcome is not None
        return self.outcome


class Group(Generic[Item, Outcome]):
    """work: takes what was handed in, in that order, and returns for each its outcome or its error, an object of its
    own; what it raises is everybody's. Only one thread works at a time."""

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Outcome | Exception]], largest: int = LARGEST) -> None:
        self._work = work
        self._largest = largest
        self._lock = threading.Lock()
        self._queue: deque[_Turn[Item, Outcome]] = deque()
        self._is_led = False
        self._coming: set[Coming] = set()
        self._awaited: set[Coming] = set()  # by the leader; its gate is opened when nobody is left
        self._gate = threading.Lock()
        self._gate.acquire()
        self._took_s = 0.0  # the last time

    def hand_in(self, item: Item, coming: Coming | None = None) -> Outcome:
        """Returns, or raises, what `work` said of this item, in the caller's thread."""
        turn: _Turn[Item, Outcome] = _Turn(item)
        with self._lock:
            self._queue.append(turn)
            self._is_here(coming)
            if not self._is_led:
                self._is_led = turn.leads = True
        if not turn.leads:
            turn.gate.acquire()
        if turn.leads:
            self._lead()
        return turn.answer()

    def comes(self, coming: Coming) -> None:
        with self._lock:
            self._coming.add(coming)

    def comes_not(self, coming: Coming) -> None:
        """Or has come already."""
        with self._lock:
            self._is_here(coming)

    def _is_here(self, coming: Coming | None) -> None:
        if coming is None:
            return
        self._coming.discard(coming)
        if coming in self._awaited:
            self._awaited.discard(coming)
            if not self._awaited:
                self._gate.release()

    def _lead(self) -> None:
        """The caller's own turn is the first in the queue."""
        try:
            self._wait_for_who_comes()
        finally:  # whatever went wrong, others wait
            began = time.monotonic()
            self._work_off()
            self._took_s = time.monotonic() - began

    def _wait_for_who_comes(self) -> None:
        """Never for who says so only now, or a stream of them would keep everybody waiting."""
        with self._lock:
            if not self._coming or len(self._queue) >= self._largest:
                return
            self._awaited = self._coming.copy()
        if not self._gate.acquire(timeout=min(self._took_s, PATIENCE_MAX_S)):
            with self._lock:
                if not self._awaited:
                    self._gate.acquire()  # opened since
                self._awaited = set()

    def _work_off(self) -> None:
        with self._lock:
            turns = [self._queue.popleft() for _ in range(min(self._largest, len(self._queue)))]
        try:
            self._do(turns)
        finally:
            self._hand_over()
            for turn in turns[1:]:
                turn.gate.release()

    def _do(self, turns: Sequence[_Turn[Item, Outcome]]) -> None:
        for turn in turns:  # stands unless the work gets as far as to say otherwise
            turn.error = LeaderLost("what became of it is not known")
        try:
            outcomes = self._work([turn.item for turn in turns])
        except Exception as error:  # noqa: BLE001 - raised again, in every thread of the group
            outcomes = [error, *(copy_of(error) for _ in turns[1:])]
        for turn, outcome in zip(turns, outcomes, strict=True):
            if isinstance(outcome, Exception):
                turn.error = outcome
            else:
                turn.outcome, turn.error = outcome, None

    def _hand_over(self) -> None:
        with self._lock:
            if self._queue:
                self._queue[0].leads = True
                self._queue[0].gate.release()
            else:
                self._is_led = False


def copy_of(error: Exception) -> Exception:
    """The same error for another thread: raised in two, one object would gather the frames of both."""
    return copy.copy(error).with_traceback(error.__traceback__)

"""Who may send a body now. Uploads and studies have places that only those get who may send them. Small bodies, which
strangers send too (to sign in), have others, and nobody is refused one: whoever has kept us waiting longest goes.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from node.web.failures import key_of
from node.web.problems import Problem

WAIT_S: Final = 5.0  # for an upload's place, before its sender is asked to come back
SMALL_MAX: Final = 32  # small bodies that are waited for
SMALL_SHARE: Final = 8  # of one address


class Place:
    """Of one body. address: whose share it counts in; to_the_end: also when the body has come."""

    def __init__(self, address: str, leave: Callable[["Place"], None], to_the_end: bool) -> None:
        self.address = address
        self.to_the_end = to_the_end
        self._leave: Callable[[Place], None] | None = leave
        self._timer: asyncio.Timeout | None = None
        self._is_lost = False

    @asynccontextmanager
    async def waiting(self, longest_s: float) -> AsyncIterator[None]:
        """While more of the body is waited for. Raises TimeoutError."""
        async with asyncio.timeout(0.0 if self._is_lost else longest_s) as self._timer:
            try:
                yield
            finally:
                self._timer = None

    def lose(self) -> None:
        """To somebody else: what is waited for is not waited for any longer."""
        self.leave()
        self._is_lost = True
        if self._timer is not None and not self._timer.expired():
            self._timer.reschedule(asyncio.get_running_loop().time())

    def leave(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave(self)


class Uploads:
    """From when the sender is known until it is answered."""

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)

    async def enter(self) -> Place:
        """In the order in which they came. Raises Problem: there was none in time."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self._free.acquire()
        except TimeoutError:
            raise Problem(503, "Too many uploads are in progress.", {"Retry-After": "5"}) from None
        return Place("", lambda place: self._free.release(), to_the_end=True)


class SmallBodies:
    """Until the body has come."""

    def __init__(self) -> None:
        self._waiting: dict[Place, None] = {}  # the longest first

    def enter(self, address: str) -> Place:
        key = key_of(address)
        shares = Counter(place.address for place in self._waiting)
        if shares[key] >= SMALL_SHARE:
            self._longest_of(key).lose()
        elif len(self._waiting) >= SMALL_MAX:
            self._longest_of(max(shares, key=lambda one: shares[one])).lose()
        place = Place(key, lambda left: self._waiting.pop(left, None), to_the_end=False)
        self._waiting[place] = None
        return place

    def _longest_of(self, address: str) -> Place:
        return next(place for place in self._waiting if place.address == address)

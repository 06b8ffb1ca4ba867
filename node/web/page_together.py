"""What many open pages ask at the same time is read once: a page that renews itself can wait for a moment.

Nobody is answered with what was read before he asked: whoever asks while a reading runs waits for the next one, and so
nothing is shown later than if each had read alone. A person who asks for a page himself is never made to wait.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from threading import Lock
from time import monotonic
from typing import Final, Generic, TypeVar

from starlette.concurrency import run_in_threadpool

from ledger.ledger import Ledger
from ledger.notifications import Notification
from ledger.worklist import WorklistEntry
from node.telling.places import Made, made_of
from node.web.identities import Identities, Identity, Whose
from node.web.page_words import signature

APART_S: Final = (
    1.0  # readings of one kind begin so far apart at least; page.js takes it off the time to its next question
)
T = TypeVar("T")


class Together(Generic[T]):
    """Readings of one kind, one at a time. For the handlers of one event loop."""

    def __init__(self) -> None:
        self._next: asyncio.Task[T] | None = None
        self._running: asyncio.Event | None = None
        self._began = -inf

    async def ask(self, read: Callable[[], T]) -> T:
        """What one reading found that began after this was called. read: the same for everybody who asks."""
        if self._next is None:
            self._next = asyncio.create_task(self._read(read, self._running))
        return await asyncio.shield(self._next)

    async def _read(self, read: Callable[[], T], before: asyncio.Event | None) -> T:
        try:
            if before is not None:
                await before.wait()
            await asyncio.sleep(max(0.0, self._began + APART_S - monotonic()))
        finally:
            self._next = None  # who asks from now on waits for another
        self._began, done = monotonic(), asyncio.Event()
        self._running = done
        try:
            return await run_in_threadpool(read)
        finally:
            done.set()
            self._running = None


@dataclass(frozen=True)
class Parts:
    """What goes with a study's line. heard: what adapters were told. mark: changes when what the line says does."""

    made: list[Made]
    heard: list[Notification]
    mark: str


class Reading:
    """The studies of one span as they were at one moment; what goes with each is asked for when it is first wanted.

    Shared by whoever asked at that moment. Whose the studies are is asked apart, for those alone who may know.
    """

    def __init__(self, ledger: Ledger, identities: Identities, since: datetime) -> None:
        self._ledger, self._identities = ledger, identities
        self.entries = ledger.worklist(since)
        self.models = ledger.models_by_study([entry.study_instance_uid for entry in self.entries])
        self.told = ledger.told_so_far()
        self._parts: dict[str, Parts] = {}
        self._whose: dict[str, Identity | None] = {}
        self._not_now: set[str] = set()
        self._parts_lock, self._whose_lock = Lock(), Lock()

    def parts(self, entries: Sequence[WorklistEntry]) -> Mapping[str, Parts]:
        """Of these, and maybe of others; by study."""
        with self._parts_lock:
            new = [entry for entry in entries if entry.study_instance_uid not in self._parts]
            if new:
                self._parts |= self._asked([entry.study_instance_uid for entry in new], new)
            return self._parts

    def whose(self, study_uids: Collection[str]) -> Whose:
        """Of these alone. For who may know it."""
        with self._whose_lock:
            if new := [uid for uid in study_uids if uid not in self._whose]:
                found = self._identities.of_studies(new)
                self._whose |= {uid: found.known.get(uid) for uid in new}
                self._not_now |= found.not_now
            known = {uid: who for uid in study_uids if (who := self._whose[uid])}
            return Whose(known, frozenset(uid for uid in study_uids if uid in self._not_now))

    def _asked(self, uids: list[str], entries: list[WorklistEntry]) -> dict[str, Parts]:
        objects, heard = self._ledger.objects_of(uids), self._ledger.told_of(uids)
        found: dict[str, Parts] = {}
        for entry in entries:
            uid = entry.study_instance_uid
            made, told = made_of(objects.get(uid, [])), heard.get(uid, [])
            found[uid] = Parts(made, told, signature(entry, made, told))
        return found

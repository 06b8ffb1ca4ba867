"""How many associations are open in all receiver processes together: one small file that each of them maps.

A place is the process that holds it and the calling AE title, so that limits hold in sum and what a killed process held
can be given back. Counting and taking a place are one step under a lock of the file. A process that is stopped
(SIGSTOP) in that step, which takes microseconds, is waited for no longer than PATIENCE_S: then a limit may be passed by
one, which is better than receivers that wait for somebody who never comes.
"""

import fcntl
import mmap
import os
import threading
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

from scp.network.policy import Refusal

log = structlog.get_logger()

PATIENCE_S: Final = 0.25
_PID, _TITLE = 4, 16
_ROW: Final = 1 + _TITLE  # a zero before each title, and none in it: a title is found only where one begins


class SharedOccupancy:
    """scp.network.engine.Occupancy over a file: the process of each place, then the AE title of each."""

    def __init__(self, path: Path, places: int) -> None:
        """A file that is not there is made, with every place free; places: the same in every process."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = places * (_PID + _ROW)
        if os.fstat(self._file).st_size < size:
            os.posix_fallocate(self._file, 0, size)  # or a full disk would kill who takes a place (SIGBUS)
        self._map = mmap.mmap(self._file, size)
        self._titles_at = places * _PID
        self._lock = threading.Lock()
        self._mine: dict[bytes, list[int]] = defaultdict(list)

    def enter(self, calling_ae_title: str, refusal: Callable[[int, int], Refusal | None]) -> Refusal | None:
        title = _row(calling_ae_title)
        with self._alone():
            refused = self._ask(title, refusal)
            if refused is Refusal.LOCAL_LIMIT and self._free_dead():
                refused = self._ask(title, refusal)
            if refused is None and not self._take(title):
                refused = Refusal.LOCAL_LIMIT
        return refused

    def leave(self, calling_ae_title: str) -> None:
        title = _row(calling_ae_title)
        with self._lock:  # only its owner frees a place: the others need not be waited for
            self._clear(self._mine[title].pop())
            if not self._mine[title]:
                del self._mine[title]

    def forget(self, pid: int) -> None:
        """A process is gone: its places are free."""
        with self._alone():
            for place, holder in enumerate(self._holders()):
                if holder == pid:
                    self._clear(place)

    def close(self) -> None:
        """Free what this process holds, and let go of the file."""
        with self._lock:
            for place in (place for places in self._mine.values() for place in places):
                self._clear(place)
            self._mine.clear()
            self._map.close()
            os.close(self._file)

    def _ask(self, title: bytes, refusal: Callable[[int, int], Refusal | None]) -> Refusal | None:
        holders = self._holders()
        return refusal(len(holders) - holders.count(0), self._map[self._titles_at :].count(title))

    def _take(self, title: bytes) -> bool:
        try:
            place = self._holders().index(0)
        except ValueError:
            return False
        self._write(place, os.getpid(), title)
        self._mine[title].append(place)
        return True

    def _free_dead(self) -> bool:
        """Whether somebody was gone: who noticed frees the places, where nobody else could (the supervisor is gone)."""
        gone = {pid for pid in set(self._holders()) if pid and not _alive(pid)}
        for place, holder in enumerate(self._holders()):
            if holder in gone:
                self._clear(place)
        return bool(gone)

    def _holders(self) -> "array[int]":
        return array("I", self._map[: self._titles_at])

    def _clear(self, place: int) -> None:
        at = self._titles_at + place * _ROW
        self._map[at : at + _ROW] = bytes(_ROW)
        self._map[place * _PID : (place + 1) * _PID] = bytes(_PID)

    def _write(self, place: int, pid: int, title: bytes) -> None:
        self._map[place * _PID : (place + 1) * _PID] = array("I", [pid]).tobytes()
        at = self._titles_at + place * _ROW
        self._map[at : at + _ROW] = title

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Among threads by a lock, among processes by the file's, which the kernel takes from one that is killed."""
        with self._lock:
            locked = self._lock_file()
            try:
                yield
            finally:
                if locked:
                    fcntl.flock(self._file, fcntl.LOCK_UN)

    def _lock_file(self) -> bool:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    log.warning("occupancy_not_locked", waited_s=PATIENCE_S)
                    return False
                time.sleep(0.0005)
            else:
                return True


def _row(ae_title: str) -> bytes:
    """Always of _ROW bytes."""
    title = ae_title.encode("utf-8", "replace")[:_TITLE].replace(b"\0", b" ")
    return b"\0" + title.ljust(_TITLE)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no process has such a number: the file is damaged
        return False
    except PermissionError:
        return True
    return True

"""Looks beside an analyser that works for the clinic: a decode child of its own, at the lowest priority of the
processor, so that a file which takes long to decode keeps nothing else waiting.

Aside looks at what is not routed, uploads and pictures for a page. It shares the analyser's models, and before one runs
it asks for a turn. Apart looks at what was routed and lost before, by models of its own.
"""

import copy
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from config.settings import Settings
from inference.analyser import Analyser, Source, _Prepared
from inference.errors import CannotLook, LostInModel, ModelsGone
from inference.opened import Session
from inference.outputs import Outputs
from inference.package import Package
from inference.sandbox import DecodeChild, Decoded, DecodePool, Wanted

NICEST: Final = 19
EYE: Final = Wanted("header", 16, 16, "squash")  # the child shows what it has rendered for somebody: here for nobody
Turn = Callable[[], AbstractContextManager[None]]


class _Beside(Analyser):
    """Use from one thread at a time."""

    def __init__(self, analyser: Analyser, settings: Settings, sessions: Mapping[str, Session]) -> None:
        self._settings = settings
        self._store = analyser._store
        self._results = analyser._results
        self._sessions = sessions
        self._packages = analyser._packages
        self.refused = analyser.refused
        self.provider, self.degraded = analyser.provider, analyser.degraded
        self._child = _twin(analyser._pool.children[0])
        self._pool = DecodePool(settings.look, 0)
        self._pool.children.append(self._child)
        self._pool.give_back(self._child)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="aside")

    def _prepare(self, source: Source) -> _Prepared:
        self._humble()
        return super()._prepare(source)

    def _humble(self) -> None:
        """Before each use: a child that died is replaced by a new one."""
        self._child.start()
        if self._child.pid is not None:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._child.pid, NICEST)


class Apart(_Beside):
    """What it finds of an image is kept as an analyser keeps it. sessions: as the analyser's, in another process."""

    def rest(self) -> None:
        """Nothing is left to look at: end the child, which the next image starts again."""
        self._child.close()


class Aside(_Beside):
    """Nothing is stored. turn: held while a model runs; its errors end `analyse`. again: as the analyser's sessions, in
    another process, for what was lost in the first."""

    def __init__(
        self, analyser: Analyser, settings: Settings, turn: Turn, again: Mapping[str, Session] | None = None
    ) -> None:
        super().__init__(analyser, settings, analyser._sessions)
        self._store = None
        self._turn, self._again = turn, again or {}

    def display(self, path: Path, side: int) -> Decoded:
        """A DICOM file as a person sees it: `display` of it is (h, w) uint8, its longest side at most `side`.

        Raises CannotLook.
        """
        self._humble()
        self._child.look(path, None, None)
        decoded = self._child.decode((EYE,), side)
        if isinstance(decoded.pictures[0], CannotLook):
            raise decoded.pictures[0]
        return decoded

    def _computed(self, package: Package, images: NDArray[np.float32]) -> Outputs:
        try:
            with self._turn():
                return super()._computed(package, images)
        except LostInModel:
            if package.digest not in self._again:
                raise
            with suppress(ModelsGone):
                return self._again[package.digest].run(images)
            raise


def _twin(child: DecodeChild) -> DecodeChild:
    """A child under the same limits that is not started yet."""
    twin = copy.copy(child)
    twin._process, twin.starts = None, 0
    return twin

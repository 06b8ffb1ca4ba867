"""The verb `header` of the look socket: whose stored images are and when they were taken, for the web role's pages.

A child of its own reads them, so that nobody who waits for a name waits for somebody's pixels; it is started by the
first question. The web role takes no header apart, and may read no image.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any, ClassVar, Final, Literal

from config import Settings
from inference.errors import CannotLook
from inference.sandbox import PROGRAM, DecodeChild
from node.looking.turns import Busy
from node.looking.wire import HEADERS_MAX, NOT_NOW, Reply
from sr_writer.whose import SAID, is_whose

UNREADABLE: Final = "unreadable"  # of the child: the file itself is to blame
CPU_S, WALL_S = 1.0, 2.0  # for one header: a thousand times what an ordinary one takes
GRACE_S: Final = 0.2  # for the last one that is begun: whoever asked waits a little longer (web.identities.SLACK_S)
_STORED: Final = re.compile(r"instances/[0-9a-f]{2}/[^/]+")


class HeaderChild(DecodeChild):
    """Used by one thread at a time."""

    program: ClassVar[str] = PROGRAM.replace("inference.decode_child", "node.looking.header_child")

    def header(self, path: Path, within_s: float) -> dict[str, str]:
        """SAID. Raises CannotLook for what the file is to blame for, OSError when there is no child."""
        self._settings = self._settings.model_copy(update={"decode_wall_s": within_s})
        answer, _ = self._ask({"op": "header", "path": str(path)}, 0)
        if not is_whose(answer.get("header")):
            raise self._distrusted()
        return {keyword: answer["header"][keyword] for keyword in SAID}


class Headers:
    """Answers one question after another."""

    def __init__(self, settings: Settings) -> None:
        store = settings.node.state_dir / "store"
        self._store, self._folder = store, (store / "instances").resolve()
        limits = {"decode_cpu_s": CPU_S}
        self._child = HeaderChild(settings.look.model_copy(update=limits), below=(self._folder,))
        self._lock = Lock()

    def answer(self, question: Mapping[str, Any], until: float) -> Reply:
        """images: names in the store. The answer's headers: one each, None where it cannot be read, NOT_NOW where it
        could not be read this time, and fewer than images where time was up. until: time.monotonic(). Raises Busy."""
        if not self._lock.acquire(timeout=max(0.0, until - monotonic())):
            raise Busy("other headers are being read")
        try:
            found: list[dict[str, str] | Literal[False] | None] = []
            for name in list(question.get("images", ()))[:HEADERS_MAX]:
                if not self._is_ready(until):
                    break
                found.append(self._read(str(name), min(WALL_S, until + GRACE_S - monotonic())))
        finally:
            self._lock.release()
        return Reply({"headers": found})

    def close(self) -> None:
        if self._lock.acquire(timeout=WALL_S):
            self._child.close()

    def _is_ready(self, until: float) -> bool:
        """Whether there is time for one more: what the start of a child takes is not the file's."""
        if monotonic() < until:
            self._child.start()
        return monotonic() < until

    def _read(self, name: str, within_s: float) -> dict[str, str] | Literal[False] | None:
        """A child that is gone, or did not answer in time, says nothing of the file: a cold or busy disk does that."""
        path = (self._store / name).resolve() if _STORED.fullmatch(name) else self._store
        if not path.is_relative_to(self._folder) or not path.is_file():
            return None
        try:
            return self._child.header(path, within_s)
        except CannotLook as refusal:
            return None if refusal.reason_code == UNREADABLE else NOT_NOW

"""What one role of this machine lets the others know: small JSON files, replaced in one step, hints and not state.

Nobody works less for want of a hint: what cannot be written, on a full disk say, is written as soon as it can be.
"""

import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog

from config import Settings
from node import log_events
from node.periodic import Periodically
from node.wiring import run_dir

AGAIN_S: Final = 1.0
SAY_EVERY_S: Final = 60.0


def publish(settings: Settings, role: str, **facts: Any) -> None:
    """Say that this process is `role`, with `facts` (address, provider, degraded, ...). Raises nothing for a disk that
    takes nothing: it is said later, from a thread of its own."""
    _UNSAID.say(_path(settings, role), json.dumps({"pid": os.getpid(), **facts}))


def read(settings: Settings, role: str) -> dict[str, Any]:
    """What `role` last said, or {} when it never did or its process is gone."""
    facts = _said(settings, role)
    return facts if _alive(int(facts.get("pid", 0))) else {}


def last_words(settings: Settings, role: str, pid: int) -> str:
    """Why the process `pid`, now gone, could not be `role`; empty when it did not say."""
    facts = _said(settings, _end_of(role))
    return str(facts.get("why", "")) if facts.get("pid") == pid else ""


def say_why(settings: Settings, role: str, why: str) -> None:
    """Leave word, before this process ends, why it cannot be `role`."""
    publish(settings, _end_of(role), why=why)


def clear(settings: Settings) -> None:
    """Forget what an earlier run said."""
    for path in run_dir(settings).glob("*.json"):
        path.unlink(missing_ok=True)


class _Unsaid:
    """The newest word for each file that could not be written yet. Used by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._words: dict[Path, str] = {}
        self._is_trying = False
        self._say = Periodically(SAY_EVERY_S)

    def say(self, path: Path, words: str) -> None:
        with self._lock:
            self._words[path] = words
            if (error := self._write(path)) is None:
                return
            if self._say.due():
                structlog.get_logger().error(log_events.NOTICE_NOT_WRITTEN, notice=path.stem, error=error.strerror)
            if not self._is_trying:
                self._is_trying = True
                threading.Thread(target=self._try_on, name="notices", daemon=True).start()

    def _try_on(self) -> None:
        while self._is_trying:
            time.sleep(AGAIN_S)
            with self._lock:
                for path in list(self._words):
                    self._write(path)
                self._is_trying = bool(self._words)

    def _write(self, path: Path) -> OSError | None:
        """What is waiting for it; why not. Nothing waits for a folder that is gone."""
        part = path.with_suffix(f".{os.getpid()}")
        try:
            part.write_text(self._words[path], encoding="utf-8")
            part.replace(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            with suppress(OSError):  # a volume that became read-only refuses even this, be it there or not
                part.unlink(missing_ok=True)
            return error
        del self._words[path]
        return None


_UNSAID: Final = _Unsaid()


def _end_of(role: str) -> str:
    return f"{role}-ended"


def _said(settings: Settings, role: str) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(_path(settings, role).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts


def _path(settings: Settings, role: str) -> Path:
    return run_dir(settings) / f"{role}.json"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0

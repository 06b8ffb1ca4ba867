"""What `opentriage doctor` says: lines of ok, warning or failure, each with what was found and what to do.

Every check runs in a thread of its own under one deadline: what does not answer is a failure of its own and holds up
nobody else.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from node.logging import describe


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Line:
    """One thing that was looked at. do: what to do about it, a sentence; empty where nothing is to be done."""

    what: str
    level: Level
    found: str
    do: str = ""


Check = Callable[[], Iterator[Line]]


def ok(what: str, found: str) -> Line:
    return Line(what, Level.OK, found)


def warning(what: str, found: str, do: str) -> Line:
    return Line(what, Level.WARNING, found, do)


def failure(what: str, found: str, do: str) -> Line:
    return Line(what, Level.FAILURE, found, do)


def run(checks: Mapping[str, Check], within_s: float) -> Iterator[Line]:
    """All at once; the lines in the order of `checks`, each as soon as those before it are known."""
    found: dict[str, queue.SimpleQueue[list[Line]]] = {}
    for name, check in checks.items():
        found[name] = queue.SimpleQueue()
        threading.Thread(target=_do, args=(name, check, found[name]), name=f"check {name}", daemon=True).start()
    until = time.monotonic() + within_s
    for name, answer in found.items():
        try:
            yield from answer.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            yield failure(name, f"no answer within {within_s:.0f} s", "`--within` gives it longer.")


def _do(name: str, check: Check, answer: "queue.SimpleQueue[list[Line]]") -> None:
    try:
        answer.put(list(check()))
    except Exception as error:  # noqa: BLE001  a check's top: the others go on
        answer.put([failure(name, f"could not be looked at: {describe(error)}", "A fault of the doctor: report it.")])

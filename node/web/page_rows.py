"""The lines of the triage list, each made once for as long as it says the same. Nobody's identity is in what is kept:
the template puts names between the two halves of a line, anew for each visitor."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any, Final

from jinja2 import Environment
from markupsafe import Markup

from ledger.worklist import WorklistEntry
from node.telling.triage_list import priority_word
from node.web.page_together import Parts
from node.web.page_words import clock, duration

KEPT_MAX: Final = 4_096  # lines, of some 3 KB


@dataclass(frozen=True)
class Line:
    """One study's, without whose it is. before, after: what stands on either side of that."""

    word: str
    kind: str
    mark: str
    before: Markup
    after: Markup


@dataclass(frozen=True)
class Asked:
    """All that a line depends on besides its study. keep_open_at: the address that keeps its objects shown where no
    script does; empty where one does. may_read: pictures are offered."""

    now: datetime
    may_read: bool = False
    is_open: bool = False
    keep_open_at: str = ""


class Rows:
    """Makes lines, and keeps the last one of each study for each kind of visitor."""

    def __init__(self, templates: Environment) -> None:
        self._templates = templates
        self._kept: OrderedDict[tuple[object, ...], tuple[tuple[object, ...], Line]] = OrderedDict()
        self._lock = Lock()

    def line(self, entry: WorklistEntry, parts: Parts, asked: Asked) -> Line:
        """The same that would be made anew."""
        whose = (entry.study_instance_uid, asked.may_read, asked.is_open, asked.keep_open_at)
        waits = duration((asked.now - entry.last_image_at).total_seconds())
        age = duration((asked.now - entry.first_received_at).total_seconds())
        says = (parts.mark, waits, age, clock(entry.first_received_at, asked.now))
        with self._lock:
            kept = self._kept.get(whose)
            if kept is not None and kept[0] == says:
                self._kept.move_to_end(whose)
                return kept[1]
        line = self._made(entry, parts, asked, waits, age)
        if not asked.keep_open_at:  # there are as many as there are addresses
            self._keep(whose, says, line)
        return line

    def _made(self, entry: WorklistEntry, parts: Parts, asked: Asked, waits: str, age: str) -> Line:
        halves: Any = self._templates.get_template("line.html").module
        word = priority_word(entry)
        kind = word.lower().replace(" ", "-")
        before = halves.before(entry, word)
        after = halves.after(entry, parts.made, parts.heard, kind, asked, waits, age)
        return Line(word, kind, parts.mark, before, after)

    def _keep(self, whose: tuple[object, ...], says: tuple[object, ...], line: Line) -> None:
        with self._lock:
            self._kept[whose] = says, line
            self._kept.move_to_end(whose)
            while len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)

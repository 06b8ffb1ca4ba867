"""What the triage list shows: which studies a person chose to see, and in how many pages."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from ledger.worklist import WorklistEntry
from node.telling.triage_list import delivery_states, priority_word

PAGE_SIZE: Final = 100
SEARCH_MAX: Final = 64
SINCE: Final = {"24h": "last 24 hours", "1h": "last hour", "day": "today", "7d": "last 7 days", "30d": "last 30 days"}
USUAL: Final = "24h"  # not "day": at midnight whatever nobody had read yet would be gone from the list
_AGES: Final = {"1h": 1, "24h": 24, "7d": 7 * 24, "30d": 30 * 24}
PRIORITIES: Final = ("HIGH", "MEDIUM", "NOT ASSESSED", "unflagged", "waiting", "prior", "no model")
STATES: Final = {
    "looking": "still being looked at",
    "growing": "may still grow",
    "unsent": "not everything delivered",
    "delivered": "delivered",
    "trouble": "needs a person",
}
_TROUBLE: Final = frozenset({"refused", "stopped here"})
_SENT: Final = frozenset({"delivered", "proven", "unproven"})


@dataclass(frozen=True)
class Choice:
    """What the address of the page asks for. Whatever is not known is as if it were not there."""

    since: str = USUAL
    priorities: tuple[str, ...] = ()
    state: str = ""
    model: str = ""
    destination: str = ""
    search: str = ""
    names: bool = False
    opened: str = ""  # the study whose objects are shown, where no script keeps them open
    page: int = 1

    @classmethod
    def of(cls, query: QueryParams, search: str = "") -> "Choice":
        """search: of a form alone. It may be an accession number, which no address, history or log is to keep."""
        page = query.get("page", "1")
        return cls(
            since=_known(query.get("since", ""), SINCE) or USUAL,
            priorities=tuple(one for one in PRIORITIES if one in query.getlist("priority")),
            state=_known(query.get("state", ""), STATES),
            model=query.get("model", "")[:100],
            destination=query.get("destination", "")[:160],
            search=search.strip()[:SEARCH_MAX],
            names=query.get("names", "") == "1",
            opened=query.get("open", "")[:SEARCH_MAX],
            page=int(page) if page.isascii() and page.isdecimal() and len(page) < 6 and int(page) else 1,
        )

    @property
    def is_plain(self) -> bool:
        return not (self.priorities or self.state or self.model or self.destination or self.search)

    def began(self, now: datetime) -> datetime:
        """Since when studies are shown."""
        hours = _AGES.get(self.since)
        return _midnight() if hours is None else now - timedelta(hours=hours)

    def address(self, **changes: object) -> str:
        """Of the page that differs in this; what is searched is in no address."""
        said = {**vars(self), **changes}
        pairs = [("since", said["since"])] if said["since"] != USUAL else []
        pairs += [("priority", one) for one in said["priorities"]]
        pairs += [(name, said[name]) for name in ("state", "model", "destination") if said[name]]
        pairs += [("names", "1")] if said["names"] else []
        pairs += [("open", said["opened"])] if said["opened"] else []
        pairs += [("page", said["page"])] if said["page"] != 1 else []
        return "/?" + urlencode(pairs) if pairs else "/"


@dataclass(frozen=True)
class Chosen:
    """entries: of the page asked for. counts: by word of priority, before priorities were chosen. found: in all."""

    entries: tuple[WorklistEntry, ...]
    found: int
    pages: int
    counts: Mapping[str, int]
    models: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    page: int = 1
    matched: Collection[str] = field(default_factory=tuple)


def choose(
    choice: Choice,
    entries: Sequence[WorklistEntry],
    models: Mapping[str, Collection[str]],
    by_accession: Collection[str] = (),
) -> Chosen:
    """models: by study, as "name/version". by_accession: the studies with the accession number that was searched."""
    destinations = tuple(sorted({name for entry in entries for name, _ in entry.deliveries}))
    every_model = tuple(sorted({name for names in models.values() for name in names}))
    left = [entry for entry in entries if _fits(entry, choice, models, by_accession)]
    counts = Counter(priority_word(entry) for entry in left)
    if choice.priorities:
        left = [entry for entry in left if priority_word(entry) in choice.priorities]
    pages = max(1, -(-len(left) // PAGE_SIZE))
    page = min(choice.page, pages)
    shown = tuple(left[(page - 1) * PAGE_SIZE : page * PAGE_SIZE])
    return Chosen(shown, len(left), pages, counts, every_model, destinations, page)


def _fits(
    entry: WorklistEntry, choice: Choice, models: Mapping[str, Collection[str]], by_accession: Collection[str]
) -> bool:
    uid = entry.study_instance_uid
    if choice.search and choice.search not in uid and uid not in by_accession:
        return False
    if choice.model and choice.model not in models.get(uid, ()):
        return False
    if choice.destination and choice.destination not in dict(entry.deliveries):
        return False
    return not choice.state or _is_in(entry, choice.state)


def _is_in(entry: WorklistEntry, state: str) -> bool:
    words = {word for _, word, _ in delivery_states(entry)}
    return {
        "looking": bool(entry.pending),
        "growing": not entry.is_complete,
        "unsent": bool(words - _SENT),
        "delivered": bool(words) and words <= _SENT,
        "trouble": bool(words & _TROUBLE or entry.hold or entry.report_parked),
    }[state]


def _known(word: str, table: Mapping[str, str]) -> str:
    return word if word in table else ""


def _midnight() -> datetime:
    """Of this machine's day."""
    return datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)

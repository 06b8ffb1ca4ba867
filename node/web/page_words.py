"""Times, durations and short names as the pages write them."""

import hashlib
import re
from datetime import datetime

from ledger.worklist import WorklistEntry

_LOWEST = re.compile(r"\bLOW\b")
_HEALTHY = re.compile(r"\b(?i:normal(?:ly|ity)?)\b")


def duration(seconds: float) -> str:
    """ "0.4 s", "12 s", "3 min", "2 h 05", "4 d": as much as a tired reader needs."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d}"
    return f"{minutes // (24 * 60)} d"


def short_uid(uid: str) -> str:
    """The end of it, by which people tell two apart."""
    return uid if len(uid) <= 14 else f"…{uid[-12:]}"


def local(moment: datetime | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    return f"{moment.astimezone():{form}}" if moment else ""


def clock(moment: datetime, now: datetime) -> str:
    """The time of day; with the day where it is not today's."""
    here = moment.astimezone(now.tzinfo)
    return f"{here:%H:%M}" if here.date() == now.date() else f"{here:%d %b %H:%M}"


def seemly(text: str) -> str:
    """Without the words that no page says: the lowest priority's name, and the one that calls a study healthy."""
    return _HEALTHY.sub("…", _LOWEST.sub("unflagged", text.replace("Normal priority", "routine priority")))


def signature(entry: WorklistEntry, *more: object) -> str:
    """Changes when what the line says changes, and not because time passes."""
    return hashlib.sha256(repr((entry, more)).encode()).hexdigest()[:16]

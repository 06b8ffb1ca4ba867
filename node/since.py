"""How commands are told from when on: "30d", "12h", or a day."""

import re
from datetime import datetime, timedelta

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([hdw])")
_HOURS = {"h": 1.0, "d": 24.0, "w": 168.0}
HELP = "From when on: a span back from now (12h, 30d, 4w), or a day (2026-11-01)."


def since(text: str, now: datetime | None = None) -> datetime:
    """Raises ValueError with a sentence."""
    now = now or datetime.now().astimezone()
    if found := _SPAN.fullmatch(text.strip()):
        return now - timedelta(hours=float(found[1]) * _HOURS[found[2]])
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except ValueError:
        raise ValueError(f"{text!r} is neither a span such as 12h, 30d or 4w, nor a day such as 2026-11-01") from None

"""The charts of the last day: how many studies came each hour, and how soon their reports were delivered."""

from typing import Any, Final

from ledger.pace import Pace
from ledger.records import TriagePriority
from node.web import charts
from node.web.charts import Series
from node.web.page_words import duration

NAMES: Final = {
    TriagePriority.HIGH: ("HIGH", "high"),
    TriagePriority.MEDIUM: ("MEDIUM", "medium"),
    TriagePriority.NOT_ASSESSED: ("NOT ASSESSED", "not-assessed"),
    TriagePriority.LOW: ("unflagged", "unflagged"),
}


def drawn(pace: Pace) -> dict[str, Any]:
    """For the template."""
    labels = [f"{hour.begins_at.astimezone():%H:00}" for hour in pace.hours]
    counts = [hour.studies for hour in pace.hours]
    series = [Series(*NAMES[one.priority], one.by_hour) for one in pace.promptness]
    said = "; ".join(
        f"{NAMES[one.priority][0]} {duration(one.p95_s)} for {one.deliveries} deliveries"
        for one in pace.promptness
        if one.p95_s is not None
    )
    busiest = max(counts, default=0)
    return {
        "total": sum(counts),
        "busiest": busiest,
        "busiest_at": labels[counts.index(busiest)] if busiest else "",
        "received": charts.bars(
            "Studies received, by hour", f"{sum(counts)} in 24 hours, at most {busiest} in one hour.", labels, counts
        ),
        "waits": charts.lines(
            "Last image to delivered, 95th percentile, by hour", said or "No report was delivered.", labels, series,
            duration,
        ),
        "legend": charts.legend(series),
        "rows": [(*NAMES[one.priority], one) for one in pace.promptness],
        "hours": list(zip(labels, counts, strict=True)),
    }  # fmt: skip

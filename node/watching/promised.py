"""How long each report took from the last byte to its destination's yes; counted where it is heard."""

from prometheus_client import Histogram

from ledger.ledger import Ledger
from ledger.records import Job

SECONDS = Histogram(
    "opentriage_delivery_seconds",
    "From the last byte of the newest image to the report accepted by a destination, of reports that a clock runs for",
    ["kind", "priority"],
    buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 180, 300, 600, 1800, 3600),
)


def observe(ledger: Ledger, job: Job) -> None:
    """A delivery has just ended well."""
    if (took := ledger.took(job)) is not None:
        SECONDS.labels(took.kind.value, took.priority.value).observe(took.seconds)

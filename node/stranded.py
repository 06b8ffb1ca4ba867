"""Reports whose destination the settings no longer name: nobody would ever send them, so somebody must be told."""

from config import Settings
from ledger.ledger import Ledger
from ledger.records import Stage


def stranded_destinations(ledger: Ledger, settings: Settings) -> list[str]:
    """Destinations that reports still wait for, or were parked for, and that the settings no longer name."""
    waiting = set(ledger.oldest_delivery_ages_s()) | {
        job.destination for job in ledger.parked() if job.destination and job.stage is not Stage.NOTIFY
    }
    return sorted(waiting - {destination.key for destination in settings.destinations})


def redirect_words(stranded: str) -> str:
    return f"opentriage release --from '{stranded}' --to NAME sends what waits for it to a destination of the settings"

"""How long to wait before a destination is tried again."""

import random

from config.settings import DeliverSettings


def delay_s(attempt: int, settings: DeliverSettings, rng: random.Random | None = None) -> float:
    """Seconds before the next try after `attempt` failed ones (from 1): doubling, capped, half of it by chance.

    The chance spreads many studies that failed together, so that they do not come back together.
    """
    doublings = min(max(attempt, 1) - 1, 62)
    longest = min(settings.retry_first_s * 2.0**doublings, settings.retry_max_s)
    return longest * (0.5 + 0.5 * (rng or random).random())

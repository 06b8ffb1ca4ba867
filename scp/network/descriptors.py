"""How many associations the process has file descriptors for."""

import resource
from typing import NamedTuple

import structlog

log = structlog.get_logger()

PER_ASSOCIATION = 3  # its socket, its part file, and the second handle by which the part file is walked
RESERVE_MAX, RESERVE_MIN = 128, 32  # ledger, logs, metrics, folders that are synced; an idle receiver has about 15 open
PENDING_MAX, PENDING_MIN = 64, 8  # connections that did not associate yet


class Room(NamedTuple):
    """How many may be open at once."""

    associations: int
    pending: int


def room_in(limit: int, wanted: int) -> Room:
    """What a limit of descriptors has room for: of a small one a quarter is kept back, and an eighth is for those who
    did not associate yet."""
    reserve = min(max(limit // 4, RESERVE_MIN), RESERVE_MAX)
    pending = min(max(limit // 8, PENDING_MIN), PENDING_MAX)
    return Room(min(wanted, max((limit - reserve - pending) // PER_ASSOCIATION, 1)), pending)


def room(wanted: int) -> Room:
    """As many associations as wanted, or fewer: one that was accepted must never want for a descriptor."""
    limit = raise_limit()
    found = room_in(limit, wanted)
    if found.associations < wanted:
        log.warning("associations_clamped", wanted=wanted, possible=found.associations, descriptors=limit)
    return found


def raise_limit() -> int:
    """Raise the soft limit to the hard one; what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            log.warning("descriptor_limit_not_raised", soft=soft, hard=hard)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30

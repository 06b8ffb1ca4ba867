"""How often an address has shown a token that is no good. Above the limit it is told to wait.

Whoever shows a good token is never turned away for what others behind the same address did.
"""

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable
from time import monotonic
from typing import Final

WINDOW_S: Final = 60.0
MOST: Final = 10  # failures of one address in a window
ADDRESSES_MAX: Final = 4096


class Failures:
    """Of one process. Bounded; the address that has failed the longest ago is forgotten first."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    def add(self, address: str) -> tuple[int, float]:
        """Count one; how many there were in the window with this one, and for how many seconds to wait (0: none)."""
        now = self._clock()
        times = self._seen.setdefault(key_of(address), deque(maxlen=MOST + 2))
        self._seen.move_to_end(key_of(address))
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        times.append(now)
        while len(self._seen) > ADDRESSES_MAX:
            self._seen.popitem(last=False)
        return len(times), times[0] + WINDOW_S - now if len(times) > MOST else 0.0


def key_of(address: str) -> str:
    """An IPv6 network of 64 bits is one customer's."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return address

"""The connections of the server: how many there may be, and which one goes when there are more.

Where a place is wanted, whoever has waited longest without asking anything goes, first of the address that has most
such connections; never one whose request is being answered. So nobody who only sits there keeps others out. A newcomer
has a moment to ask before anything is counted: what came with its connection is read by then.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from time import monotonic
from typing import Final, Protocol

import structlog

from node import log_events

CONNECTIONS_MAX: Final = 256
ALL_OF_THEM: Final = 2 * CONNECTIONS_MAX  # with those that came this moment
SHARE: Final = 64  # of one address: those that wait without having asked. A proxy's requests do not count
MOMENT_S: Final = 0.1
SAID_EVERY_S: Final = 60.0


class Connection(Protocol):
    """address: whose share it counts in. waits_since, unread_since: monotonic; for a head, and for somebody to read the
    answer; None: it does not."""

    address: str
    waits_since: float | None
    unread_since: float | None

    def drop(self) -> None: ...


class Crowd:
    """Of one server; used in its event loop."""

    def __init__(self) -> None:
        self._all: set[Connection] = set()
        self._soon: asyncio.TimerHandle | None = None
        self._dropped, self._last = 0, ""  # since it was said; the address of the last
        self._said_at = -SAID_EVERY_S

    def enter(self, connection: Connection) -> None:
        self._all.add(connection)
        if len(self._all) > ALL_OF_THEM:
            self._thin_out()
        elif self._soon is None and self._is_too_many(connection.address):
            self._soon = asyncio.get_running_loop().call_later(MOMENT_S, self._thin_out)

    def leave(self, connection: Connection) -> None:
        self._all.discard(connection)

    def _is_too_many(self, address: str) -> bool:
        share = sum(one.address == address and one.waits_since is not None for one in self._all)
        return len(self._all) > CONNECTIONS_MAX or share > SHARE

    def _thin_out(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._drop_some()
        if self._dropped and monotonic() - self._said_at >= SAID_EVERY_S:
            structlog.get_logger().warning(
                log_events.CONNECTIONS_DROPPED, peer=self._last, dropped=self._dropped, open=len(self._all)
            )
            self._said_at, self._dropped = monotonic(), 0

    def _drop_some(self) -> None:
        lines = _by_address(self._all)
        for line in lines.values():
            while len(line) > SHARE:
                self._drop(line.popleft())
        unread = deque(sorted((one for one in self._all if one.unread_since is not None), key=_unread_since))
        while len(self._all) > CONNECTIONS_MAX:
            line = max(lines.values(), key=len, default=unread) or unread
            if not line:
                return  # all of them are being answered
            self._drop(line.popleft())

    def _drop(self, connection: Connection) -> None:
        self.leave(connection)
        connection.drop()
        self._dropped += 1
        self._last = connection.address


def _by_address(connections: Iterable[Connection]) -> dict[str, deque[Connection]]:
    """Those that wait for a head, the longest first."""
    lines: dict[str, deque[Connection]] = {}
    for one in sorted((one for one in connections if one.waits_since is not None), key=_waits_since):
        lines.setdefault(one.address, deque()).append(one)
    return lines


def _waits_since(connection: Connection) -> float:
    return connection.waits_since or 0.0


def _unread_since(connection: Connection) -> float:
    return connection.unread_since or 0.0

"""Tells an audit record repository what the trail holds (PS3.15 A.6): in order, none lost, some perhaps twice.

The sealed chain in the ledger is the spool, and a cursor in it says how far the repository has heard. The cursor moves
only once a connection has ended in good order; whatever came before that is told again. Nothing else waits for this.
"""

import socket
import threading
import time

import structlog

from config import Settings
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from node import log_events
from node.logging import describe
from node.periodic import Periodically
from node.trail.message import Sender, syslog
from node.trail.syslog import Connection, Unheard, frame
from node.wiring import owner

EVERY_S = 1.0
LEASE_S = 180.0  # longer than any one connection lives
AT_ONCE = 100  # records of one read
CONNECTION_MAX = 2_000  # records of one connection: as many would be told again
CONNECTION_S = 10.0  # and for so long one is kept open for what comes meanwhile
RETRY_MAX_S = 60.0
SAY_EVERY_S = 60.0


def run(settings: Settings, ledger: Ledger, stop: threading.Event) -> None:
    """Until `stop` is set; nothing is done where no repository is named."""
    if settings.audit.is_told:
        Teller(settings, ledger, stop).run()
    else:
        stop.wait()


class Teller:
    """connection_s: how long one connection is kept open for what comes meanwhile."""

    def __init__(
        self, settings: Settings, ledger: Ledger, stop: threading.Event, connection_s: float = CONNECTION_S
    ) -> None:
        self._audit = settings.audit
        self._ledger = ledger
        self._stop = stop
        self._connection_s = connection_s
        self._holder = owner("keep")
        self._sender = sender_of(settings)
        self._say = Periodically(SAY_EVERY_S)
        self._most = CONNECTION_MAX  # records of the next connection: few for a repository that is slow to read

    def run(self) -> None:
        wait_s = EVERY_S
        while not self._stop.wait(wait_s):
            try:
                self.once()
                wait_s = EVERY_S
            except (Unheard, LedgerUnavailable) as error:
                wait_s = min(RETRY_MAX_S, wait_s * 2)
                if self._say.due():
                    event = log_events.AUDIT_REPOSITORY_UNREACHABLE
                    structlog.get_logger().warning(event, repository=self._audit.repository, reason=describe(error))

    def once(self) -> int:
        """One connection, when there is something to tell; how many records were told. Raises Unheard."""
        repository = self._audit.repository
        if not self._ledger.untold(repository, limit=1):
            return 0
        if not self._ledger.take_telling(repository, self._holder, LEASE_S):
            return 0
        connection = Connection(self._audit)
        try:
            count, sequence = self._tell(connection)
            connection.end(self._audit.confirm)
        except Unheard:
            self._most = max(1, self._most // 4)
            raise
        finally:
            connection.drop()
        self._most = min(CONNECTION_MAX, self._most * 2)
        self._ledger.told_audit(repository, self._holder, sequence)
        structlog.get_logger().info(
            log_events.AUDIT_REPOSITORY_TOLD, repository=repository, records=count, sequence=sequence
        )
        return count

    def _tell(self, connection: Connection) -> tuple[int, int]:
        """What waits, and what comes while the connection is open: how many records, up to which seal."""
        count, sequence, until = 0, None, time.monotonic() + self._connection_s
        while count < self._most:
            lines = self._ledger.untold(self._audit.repository, sequence, min(AT_ONCE, self._most - count))
            for line in lines:
                connection.send(frame(syslog(line, self._sender)))
            if lines:
                count, sequence = count + len(lines), lines[-1].sequence
            elif self._stop.wait(min(EVERY_S, self._connection_s)) or time.monotonic() > until:
                break
        return count, sequence or 0


def sender_of(settings: Settings) -> Sender:
    source = settings.audit.source_id or settings.receive.ae_title.strip()
    return Sender(source, settings.audit.enterprise_site_id, socket.gethostname())

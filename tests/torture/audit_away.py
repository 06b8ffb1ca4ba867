"""38: the audit repository is away, is slow, or dies of a full disk with records it has taken and not read.

Senders never notice; afterwards it has heard every record, in order.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from config.audit import AuditSettings
from config.settings import NodeSettings, Settings
from ledger.database import transaction
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.store import Store
from node.chores.seal import Sealer
from node.chores.tell_repository import Teller
from node.trail import syslog
from node.trail.message import syslog as message
from node.trail.syslog import Connection, Unheard, frame
from tests.support.audit_repository import Repository
from tests.support.certificates import Authority, Pair
from tests.support.peers import free_port
from tests.torture.audit import audit
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.journal import Journal
from tests.torture.senders import Line, instance

EACH = 40  # instances sent in each state that the repository is in
ACK_WITHIN_S = 5.0  # of the slowest, on shared cores; what waits for a stuck repository takes longer
UNREAD = 25  # records that it reads of those that it has taken, before it dies
SLOW_S = 0.02  # for each record, where it is slow
DYING_S = 0.06  # and where it dies: all was sent to it by then, on a busy machine too
STUCK_S = 60.0

MakeTeller = Callable[[Settings, Ledger, threading.Event], Any]


class CountsAsToldWhenSent(Teller):
    """What many a syslog sender does: what was written to the socket counts as heard."""

    def once(self) -> int:
        repository = self._audit.repository
        if not self._ledger.untold(repository, limit=1) or not self._ledger.take_telling(
            repository, self._holder, 60.0
        ):
            return 0
        connection = Connection(self._audit)
        count, sequence = self._tell(connection)
        self._ledger.told_audit(repository, self._holder, sequence)
        connection.drop()
        return count


class HoldsTheLedgerMeanwhile(Teller):
    """As if the record left in the transaction that wrote it: who writes waits for the repository."""

    def once(self) -> int:
        lines = self._ledger.untold(self._audit.repository)
        if not lines:
            return 0
        with transaction(self._ledger._engine, write=True):
            connection = Connection(self._audit)
            for line in lines:
                connection.send(frame(message(line, self._sender)))
            connection.end("close")
        return len(lines)


def away(context: Context, make: MakeTeller = Teller, *, stuck_s: float = SLOW_S, left_s: float = 120.0) -> Arm:
    """left_s: how long the repository is waited for at the end; a control need not wait long."""
    arm, journal, state = Arm(), Journal(), context.folder / "state"
    authority, port = Authority(context.folder), free_port()
    pair = authority.issue("repository")
    heard: list[int] = []
    with context.receiver(state) as victim, keeping(state, authority, port, make) as ledger:
        _send(context, victim.address, journal, arm)  # nobody is there
        with listening(pair, port, heard, read_pause_s=stuck_s) as slow:
            _wait(lambda: slow.connections > 0, 60)
            _send(context, victim.address, journal, arm)
        _send(context, victim.address, journal, arm)
        with listening(pair, port, heard, read_pause_s=DYING_S, dies_after=UNREAD) as dying:
            _wait(lambda: len(dying.messages) >= UNREAD, 60)
        with listening(pair, port, heard):
            _send(context, victim.address, journal, arm)
            victim.stop()
            _wait(lambda: not _left(ledger, port), left_s)
        _judge(arm, ledger, heard, port)
    audit(context, arm, journal, state)
    arm.require(not journal.refused() and not journal.counts()["unknown"], "a sender was refused or got no answer")
    arm.counts["rounds"] += 1
    return arm


@contextlib.contextmanager
def keeping(state: Path, authority: Authority, port: int, make: MakeTeller) -> Iterator[Ledger]:
    """A sealer and a teller over the receiver's ledger, as the role keep has them."""
    ledger = Ledger.open(f"sqlite:///{state / 'ledger.sqlite'}", Store(state / "store"))
    told = AuditSettings(repository_host="127.0.0.1", repository_port=port, ca_file=authority.certificate)
    settings = Settings(node=NodeSettings(state_dir=state), audit=told)
    stop, sealer = threading.Event(), Sealer(ledger, state / "audit" / "heads.jsonl")
    teller = make(settings, ledger, stop)
    teller._connection_s = 0.2

    def tell() -> None:
        while not stop.wait(0.1):
            with contextlib.suppress(Unheard, LedgerUnavailable):
                teller.once()

    def seal() -> None:
        while not stop.wait(0.1):
            sealer.once()

    threads = [threading.Thread(target=work, daemon=True) for work in (tell, seal)]
    for thread in threads:
        thread.start()
    try:
        yield ledger
    finally:
        stop.set()
        for thread in threads:
            thread.join(syslog.CLOSE_S + 5)
        ledger.close()


@contextlib.contextmanager
def listening(pair: Pair, port: int, heard: list[int], **how: Any) -> Iterator[Repository]:
    there = Repository(pair, port=port, **how)
    try:
        yield there
    finally:
        there.close()
        heard += there.sequences


def _send(context: Context, address: tuple[str, int], journal: Journal, arm: Arm) -> None:
    slowest = 0.0
    for _ in range(2):
        with Line(address, journal) as line:
            for _ in range(EACH // 2):
                began = time.monotonic()
                line.send(*instance(context.rng, 2_000))
                slowest = max(slowest, time.monotonic() - began)
                if slowest > ACK_WITHIN_S:
                    break
    arm.figures["slowest answer"] = f"{max(slowest, float(arm.figures.get('slowest answer', '0 s').split()[0])):.2f} s"
    arm.in_time(slowest < ACK_WITHIN_S, f"a sender waited {slowest:.1f} s for its answer while the repository was ill")


def _left(ledger: Ledger, port: int) -> int:
    return ledger.audit_backlog(f"127.0.0.1:{port}")[0] or int(ledger.audit_unsealed_s() > 0)


def _wait(true: Callable[[], bool], within_s: float) -> None:
    give_up = time.monotonic() + within_s
    while not true() and time.monotonic() < give_up:
        time.sleep(0.05)


def _judge(arm: Arm, ledger: Ledger, heard: list[int], port: int) -> None:
    """Every record was heard, and none for the first time before one that precedes it."""
    head = ledger.audit_head()
    sealed = head.sequence if head else 0
    first = list(dict.fromkeys(heard))
    missing = sorted(set(range(1, sealed + 1)) - set(heard))
    arm.counts["records"] += sealed
    arm.counts["told twice"] += len(heard) - len(first)
    arm.counts["records lost"] += len(missing)
    arm.require(sealed >= 3 * EACH, f"only {sealed} records were sealed")
    arm.require(not missing, f"{len(missing)} records were never heard, such as {missing[:3]}")
    arm.require(first == sorted(first), "records were heard out of order")
    arm.require(
        not _left(ledger, port) or bool(missing), "the ledger still keeps records for a repository that has all"
    )
    arm.require(not ledger.verify_audit({}).problems, "the chain does not verify")


register(
    38,
    "Audit server down, slow, dying with what it has not read",
    away,
    suite="hospital",
    what_was_sent_counts_as_told=Control(
        r"records were never heard", lambda context: away(context, CountsAsToldWhenSent)
    ),
    the_ledger_waits_for_the_server=Control(
        r"a sender waited", lambda context: away(context, HoldsTheLedgerMeanwhile, stuck_s=STUCK_S, left_s=1.0)
    ),
)

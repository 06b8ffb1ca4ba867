"""26: several receivers on one listener; one stalls, or dies, with connections in the queue: none of them is lost."""

import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.waiting import wait_until
from tests.torture.audit import audit
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.journal import Fate, Journal
from tests.torture.nursery_client import Victim
from tests.torture.senders import Senders, instance, send_one

QUEUED = 40
WITHIN_S = 60.0  # a deadline, on a machine that does much else
STALL_AT_MOST_S = 0.5
RECOVERED_WITHIN_S = 5.0
ESTABLISHED = "01"  # of /proc/net/tcp


def connected_to(port: int) -> int:
    """How many connections of peers to a port of loopback are established, accepted or queued."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[2].endswith(f":{port:04X}") and line[3] == ESTABLISHED for line in lines)


class Pair:
    """Two receivers over one folder and one port. shared: one listener for both; else each has its own."""

    def __init__(self, context: Context, shared: bool) -> None:
        self.context, self.shared = context, shared
        self.state = context.scratch() / "state"
        self.listener, self.port = context.nursery.listen(reuse_port=not shared)
        self.arm, self.journal = Arm(), Journal()

    def bear(self, reconcile: bool = False) -> Victim:
        if self.shared:
            return self.context.receiver(self.state, listener=self.listener, reconcile=reconcile)
        own, _ = self.context.nursery.listen(self.port, reuse_port=True)
        try:
            return self.context.receiver(self.state, listener=own, reconcile=reconcile)
        finally:
            self.context.nursery.forget(own)

    def queue(self, stalled: Sequence[Victim], then: Sequence[tuple[Victim, signal.Signals]], what: str) -> None:
        """Stop the stalled, let forty senders connect, then send the signals; every sender must be answered."""
        for victim in stalled:
            victim.halt()
        made = [instance(self.context.rng, 5_000) for _ in range(QUEUED)]
        threads = [
            threading.Thread(
                target=send_one, args=(("127.0.0.1", self.port), self.journal, *one), kwargs={"timeout_s": WITHIN_S}
            )
            for one in made
        ]
        for thread in threads:
            thread.start()
        if len(stalled) > 1:  # nobody accepts: all of them stand in the queue
            wait_until(lambda: connected_to(self.port) >= QUEUED, WITHIN_S)
        else:
            wait_until(lambda: self._sent() >= QUEUED, WITHIN_S)
        for victim, number in then:
            victim.signal(number)
            if number == signal.SIGKILL:
                victim.wait()
        for thread in threads:
            thread.join(WITHIN_S)
        uids = {uid for uid, _ in made}
        mine = [entry for entry in self.journal.entries if entry.sop_instance_uid in uids]
        served = sum(entry.fate is Fate.ACKED for entry in mine)
        self.arm.figures[what] = f"{served}/{QUEUED} served"
        self.arm.require(served == QUEUED, f"{what}: {QUEUED - served} of {QUEUED} queued connections are lost")
        self.arm.counts["rounds"] += 1

    def _sent(self) -> int:
        return min(QUEUED, connected_to(self.port) + len(self.journal.acked()))


def stall(context: Context, shared: bool) -> Arm:
    pair = Pair(context, shared)
    first, second = pair.bear(reconcile=True), pair.bear()
    if not shared:
        context.nursery.forget(pair.listener)  # only theirs are left
    with first, second:
        pair.queue([first], [(first, signal.SIGKILL)], "one stalled, then killed")
        if not shared:
            return _ended(context, pair)
        with pair.bear() as third:
            pair.queue([second, third], [(second, signal.SIGKILL), (third, signal.SIGCONT)], "all stalled, one killed")
            third.kill()
    _all_killed(context, pair)
    _under_load(context, pair)
    context.nursery.forget(pair.listener)
    return _ended(context, pair)


def _all_killed(context: Context, pair: Pair) -> None:
    """Nobody is left: who holds the listener keeps the queue, and the next receiver serves it."""
    with pair.bear() as last:
        last.halt()
        born: list[Victim] = []
        heir = threading.Thread(target=lambda: born.append(_after(pair, last)))
        heir.start()
        pair.queue([], [], "all killed, one restarted")
        heir.join()
        born[0].kill()


def _after(pair: Pair, last: Victim) -> Victim:
    wait_until(lambda: connected_to(pair.port) >= QUEUED, WITHIN_S)
    last.kill()
    return pair.bear()


def _under_load(context: Context, pair: Pair) -> None:
    """Senders without pause while one of two is stalled, then killed and replaced, again and again.

    One that is stopped inside a transaction holds the write lock of SQLite, so the other may have to wait.
    """
    workers = [pair.bear(), pair.bear()]
    address = ("127.0.0.1", pair.port)
    longest = 0.0
    with Senders(lambda: address, pair.journal, context.rng.randrange(1 << 30), 8) as senders:
        for number in range(context.rounds(6, 200)):
            context.progress(f"under load, kill {number + 1}, {len(pair.journal)} sent")
            goal = len(pair.journal) + context.rng.randint(5, 40)
            wait_until(lambda goal=goal: len(pair.journal) >= goal, WITHIN_S, 0.001)  # type: ignore[misc]
            victim = workers.pop(0)
            victim.signal(signal.SIGSTOP)
            senders.stop.wait(context.rng.random() * STALL_AT_MOST_S)
            victim.kill()
            died, goal = time.monotonic(), len(pair.journal.acked()) + 1
            wait_until(lambda goal=goal: len(pair.journal.acked()) >= goal, WITHIN_S, 0.001)  # type: ignore[misc]
            longest = max(longest, time.monotonic() - died)
            workers.append(pair.bear())
            pair.arm.counts["rounds"] += 1
    for worker in workers:
        worker.kill()
    pair.arm.figures["acknowledging again after a death"] = f"at most {longest * 1000:.0f} ms"
    pair.arm.in_time(longest < RECOVERED_WITHIN_S, f"nothing was acknowledged for {longest:.1f} s after a death")


def _ended(context: Context, pair: Pair) -> Arm:
    audit(context, pair.arm, pair.journal, pair.state)
    return pair.arm


register(
    26,
    "a receiver stalls, or is killed, with connections queued; two share a listener",
    lambda context: stall(context, shared=True),
    each_has_a_listener_of_its_own=Control(
        r"queued connections are lost", lambda context: stall(context, shared=False)
    ),
)

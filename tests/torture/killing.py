"""1: SIGKILL of the receiver at random instants. The page cache survives, so this proves order, not durability."""

from collections.abc import Sequence

from tests.support.waiting import wait_until
from tests.torture.audit import audit
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.journal import Journal
from tests.torture.senders import Senders

SENDERS = 8


def kill(context: Context, rounds: int, faults: Sequence[str] = ()) -> Arm:
    """Eight senders without pause; the receiver dies at a random moment, a new one takes its place."""
    arm, journal = Arm(), Journal()
    for number in range(rounds):
        context.progress(f"round {number + 1} of {rounds}, {len(journal):,} sent")
        with context.receiver(faults=faults) as victim:
            arm.require(not victim.reconciled["lost"], "a restart found acknowledged instances lost")
            arm.counts["parts swept"] += victim.reconciled["parts"]
            arm.counts["orphans"] += victim.reconciled["orphans"]
            goal = len(journal) + context.rng.randint(1, 60)
            seed = context.rng.randrange(1 << 30)
            with Senders(lambda address=victim.address: address, journal, seed, SENDERS) as senders:  # type: ignore[misc]
                wait_until(lambda goal=goal: len(journal) >= goal, 120, 0.0005)  # type: ignore[misc]
                senders.stop.wait(context.rng.random() * 0.02)
                victim.kill()
                senders.stop.set()
        arm.counts["rounds"] += 1
    audit(context, arm, journal)
    return arm


register(
    1,
    "SIGKILL at random instants, 8 senders",
    lambda context: kill(context, context.rounds(30, 1_000)),
    answer_before_the_work_is_done=Control(
        r"acknowledged instances are missing", lambda context: kill(context, context.rounds(4, 20), ["answer_early"])
    ),
)

"""22: many idle associations; 23: a storm of associations; 24: a sender with Nagle's algorithm on."""

import os
import resource
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from scp import part10
from tests.support.encoded import CT
from tests.support.peers import FOLDERS
from tests.support.rawscu import EXPLICIT_LITTLE, IMPLICIT_LITTLE, VERIFICATION, Aborted, RawScu, Rejected
from tests.torture.attackers import Bear, Healthy, Stock, Uses, many_files, percentile, require_back
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.journal import Journal
from tests.torture.nursery_client import Victim
from tests.torture.senders import CONTEXTS, instance

MEMORY_MORE_BYTES = 32 << 20
ECHO = [(VERIFICATION, (IMPLICIT_LITTLE,))]


# --- 22 ---

WATCHED_S = 2.0
CPU_SHARE_MAX = 0.03  # the bound, on cores that others use; a receiver that looks at each in turn takes half of one
CPU_SHARE_GOAL = 0.01
OPENS_WITHIN_S = 0.1  # the median of a new association: the bound, on cores that others use
OPENS_GOAL_S = 0.02
MEDIAN_OF = 20
IDLE_GOAL = 1_200
SPARE_FILES = 200  # of what the system allows a process, for everything but these associations


def idle(context: Context, bear: Bear, count: int) -> Arm:
    arm = Arm()
    many_files()
    count = min(count, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES)  # the goal tells how many
    with bear(context) as victim, ExitStack() as stack:
        before = Healthy(victim.address, context.rng).send_for(1.0, MEDIAN_OF)
        uses = Uses.of(victim)
        watched_s = WATCHED_S * (10 if context.long else 1)
        alone = _processor(victim, watched_s)
        for _ in range(count):
            stack.enter_context(RawScu(victim.address, ECHO, calling="IDLE"))
        each = (victim.resident_bytes() - uses.resident_bytes) / count
        share = _processor(victim, watched_s) - alone
        loaded = Healthy(victim.address, context.rng).send_for(watched_s / 2, MEDIAN_OF)
        stack.close()
        opening, before_s = percentile(loaded.associations_s, 0.5), percentile(before.associations_s, 0.5)
        arm.counts.update(idle=count, acked=len(loaded.images_s) - loaded.failed)
        arm.figures["processor, idle"] = f"{share:+.2%} ({alone:.2%} without)"
        arm.figures["memory of each"] = f"{each / 1024:.0f} KB"
        arm.figures["new association"] = (
            f"p50 {1e3 * opening:.1f} ms, p99 {1e3 * percentile(loaded.associations_s, 0.99):.1f} ms"
        )
        arm.figures["image"] = f"p50 {1e3 * percentile(loaded.images_s, 0.5):.1f} ms"
        arm.in_time(share < CPU_SHARE_MAX, f"{count} idle associations take {share:.1%} of a processor")
        arm.done = f"{count:,} idle"
        arm.goal(count >= IDLE_GOAL, f"{count:,} idle associations, wanted {IDLE_GOAL:,}")
        arm.goal(share < CPU_SHARE_GOAL, f"{share:.2%} of a processor, wanted < {CPU_SHARE_GOAL:.0%}")
        arm.goal(
            opening < OPENS_GOAL_S, f"new association {1e3 * opening:.1f} ms, wanted < {1e3 * OPENS_GOAL_S:.0f} ms"
        )
        said = f"a new association takes {opening:.2f} s beside {count} idle ones, {before_s:.2f} s without them"
        arm.in_time(opening < max(OPENS_WITHIN_S, 4 * before_s), said)
        arm.require(not loaded.failed, f"{loaded.failed} attempts of a healthy sender failed")
        require_back(arm, victim, uses, MEMORY_MORE_BYTES)
    return arm


def _processor(victim: Victim, seconds: float) -> float:
    """The share of one processor that it uses; the nursery's own look at its state included."""
    before, began = victim.cpu_seconds(), time.monotonic()
    time.sleep(seconds)  # what is measured is that nothing happens
    return (victim.cpu_seconds() - before) / (time.monotonic() - began)


def _roomy(context: Context) -> Victim:
    return context.receiver(max_associations=2000)


# --- 23 ---

LIMIT = 8
RATE = 500
RATE_REACHED = 0.95  # the last one is answered a little after it was offered
AT_ONCE = 24
LOCAL_LIMIT = (2, 3, 2)
HUNG_S = 60.0  # what hangs does so for ever
ANSWERED_WITHIN_S = 10.0


def storm(context: Context, bear: Bear, seconds: float) -> Arm:
    """Associations at 500 a second as far as this machine can offer them, one image each.

    Every place is taken for the first quarter: a fast receiver would else never be at its limit.
    """
    arm, journal, taken_s = Arm(), Journal(), list[float]()
    many_files()
    offered = int(RATE * seconds)
    images = [instance(context.rng, 5_000) for _ in range(offered)]
    with bear(context) as victim, ExitStack() as places:
        uses = Uses.of(victim)
        for _ in range(LIMIT):
            places.enter_context(RawScu(victim.address, CONTEXTS, timeout_s=HUNG_S))
        began = time.monotonic()

        def knock(number: int) -> str:
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            if number == offered // 4:
                places.close()
            start = time.monotonic()
            outcome = _one(victim.address, journal, *images[number])
            taken_s.append(time.monotonic() - start)
            return outcome

        with ThreadPoolExecutor(AT_ONCE) as pool:
            outcomes = Counter(pool.map(knock, range(offered)))
        rate = offered / (time.monotonic() - began)
        require_back(arm, victim, uses, MEMORY_MORE_BYTES)
        after = Healthy(victim.address, context.rng).send_for(0.2)
        arm.require(not after.failed, "a healthy sender fails afterwards")
    arm.counts.update({"offered": offered, **outcomes, **journal.counts()})
    arm.done = f"{rate:.0f} a second reached, {RATE} tried"
    arm.goal(rate >= RATE_REACHED * RATE, f"{rate:.0f} associations a second offered, wanted {RATE}")
    arm.figures["longest"] = f"{max(taken_s):.2f} s"
    others = offered - outcomes["accepted"] - outcomes["rejected"]
    arm.require(not others, f"{others} of {offered} were neither accepted nor rejected with 2/3/2")
    arm.require(outcomes["accepted"] > 0 and outcomes["accepted"] < offered, "the limit was never met, or never left")
    arm.in_time(max(taken_s) < ANSWERED_WITHIN_S, f"the longest took {max(taken_s):.1f} s")
    arm.require(outcomes["accepted"] == journal.counts()["acked"], "an association was accepted and its image was not")
    return arm


def _one(address: tuple[str, int], journal: Journal, uid: str, data: bytes) -> str:
    """What became of one association; an image is only sent, and written down, where it was accepted."""
    try:
        with RawScu(address, CONTEXTS, timeout_s=HUNG_S) as scu:
            entry = journal.sent(uid, data)
            response = scu.store(CT, uid, data)
            journal.answered(entry, response.status, response.comment)
            scu.release()
            return "accepted"
    except Rejected as rejected:
        return "rejected" if rejected.triple == LOCAL_LIMIT else f"rejected {rejected.triple}"
    except TimeoutError:
        return "hung"
    except (OSError, Aborted, AssertionError):
        return "broken off"


def _small(context: Context, fault: str = "") -> Victim:
    return context.receiver(max_associations=LIMIT, faults=[f"network_faults:{fault}"] if fault else [])


# --- 24 ---

PER_SECOND_GOAL = 300
PER_SECOND_MIN = 50  # without TCP_QUICKACK it is about 21; no more on a slow disk, but then nothing is put off
SMALL_BYTES = 500


def nagle(context: Context, bear: Bear, count: int) -> Arm:
    """DCMTK's storescu as Debian ships it, with Nagle's algorithm on."""
    arm = Arm()
    program = next((folder / "storescu" for folder in FOLDERS if (folder / "storescu").is_file()), None)
    if program is None:
        return Arm(not_run="storescu is not installed (Debian package dcmtk)")
    folder = context.folder / "sent"
    folder.mkdir()
    for number in range(count):
        uid, data = instance(context.rng, SMALL_BYTES)
        (folder / f"{number:05}.dcm").write_bytes(part10.header(CT, uid, EXPLICIT_LITTLE) + data)
    environment = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}
    with bear(context) as victim:
        delayed, cpu, began = _delayed_acknowledgements(), victim.cpu_seconds(), time.monotonic()
        host, port = victim.address
        done = subprocess.run(
            [program, "-aec", "OPENTRIAGE", "-xe", "+sd", host, str(port), folder],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        seconds, delayed = time.monotonic() - began, _delayed_acknowledgements() - delayed
        each = (victim.cpu_seconds() - cpu) / count
    rate = count / seconds
    arm.counts.update(sent=count, acked=count if done.returncode == 0 else 0)
    arm.done = f"{rate:.0f} images a second"
    arm.goal(rate >= PER_SECOND_GOAL, f"{rate:.0f} images a second, wanted >= {PER_SECOND_GOAL}")
    arm.figures["receiver's processor time"] = f"{1e3 * each:.2f} ms each"
    arm.figures["acknowledgements of TCP that were put off"] = str(delayed)
    arm.require(done.returncode == 0, f"storescu ended with {done.returncode}: {done.stderr[-200:]}")
    late = rate < PER_SECOND_MIN and delayed > count / 2
    arm.require(not late, f"{rate:.0f} small instances a second, {delayed} acknowledgements put off by the kernel")
    return arm


def _delayed_acknowledgements() -> int:
    """How many acknowledgements the kernel has put off until a timer sent them, of all connections here."""
    heads, values = (
        line.split()
        for line in Path("/proc/net/netstat").read_text(encoding="ascii").splitlines()
        if line.startswith("TcpExt:")
    )
    return int(values[heads.index("DelayedACKs")])


def _any(context: Context, fault: str = "") -> Victim:
    return context.receiver(faults=[f"network_faults:{fault}"] if fault else [])


register(
    22,
    "many idle associations, a normal load",
    lambda context: idle(context, _roomy, IDLE_GOAL),
    pynetdicom_as_shipped=Control(
        r"idle associations take .* of a processor",
        lambda context: idle(context, lambda one: Stock(one, "--associations", "60"), 30),
    ),
)
register(
    23,
    "a storm of associations, one image each",
    lambda context: storm(context, _small, 30.0 if context.long else 2.0),
    rejected_for_another_reason=Control(
        r"neither accepted nor rejected with 2/3/2",
        lambda context: storm(context, partial(_small, fault="wrong_reason"), 0.5),
    ),
    rejected_without_a_word=Control(
        r"neither accepted nor rejected with 2/3/2",
        lambda context: storm(context, partial(_small, fault="say_nothing"), 0.5),
    ),
)
register(
    24,
    "a sender with Nagle's algorithm on",
    lambda context: nagle(context, _any, 20_000 if context.long else 1_500),
    acknowledged_late=Control(
        r"acknowledgements put off by the kernel",
        lambda context: nagle(context, partial(_any, fault="acknowledge_late"), 50),
    ),
)

"""28: the wall clock steps by an hour and back: no timeout fires, no association ends, no duration is negative."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.support.encoded import CT
from tests.support.rawscu import VERIFICATION, Aborted, RawScu, p_data
from tests.support.realdata import ROOT
from tests.support.waiting import wait_until
from tests.torture.audit import audit
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.journal import Journal
from tests.torture.nursery_client import Victim
from tests.torture.senders import CONTEXTS, Senders, fresh_uid, instance, send_one
from tests.torture.shim import NoCompiler, Shim

HOUR_NS = 3_600 * 10**9
QUIET_S, LOOK_EVERY_S = 1.0, 0.1
GIVE_UP_S = 30.0  # what the clock has put off comes in an hour
CONTROL_GIVES_UP_S = 5.0
QUIET_SETTINGS = ("complete_after_s", "complete_after_min_s", "complete_after_max_s", "complete_after_release_s")
PAST_2038_H = int(2**31 - time.time()) // 3_600 + 2  # more seconds since 1970 than 32 bits with a sign hold
STEPS_H = (1, -1, PAST_2038_H, 0)  # forward, back beyond where it was, to the year 2038, and right again
SETTLE_S = 0.6  # every timer of the receiver has looked at its clock by then
SAMPLE = re.compile(r"^(\w+)(?:\{[^}]*\})? (-[\d.e+-]+)$", re.MULTILINE)


def step(context: Context, faults: Sequence[str] = ()) -> Arm:
    if context.nursery.preload is None:
        raise NoCompiler("no C compiler: run `make peers`")
    arm, journal = Arm(), Journal()
    state = context.folder / "state"
    shim = Shim(context.folder, state, traced=False)
    with context.receiver(shim=shim.request(), faults=faults) as victim:
        idle = RawScu(victim.address, [*CONTEXTS, (VERIFICATION, ("1.2.840.10008.1.2",))])
        halves = [_half_sent(context, victim, journal) for _ in STEPS_H]
        with Senders(lambda: victim.address, journal, context.rng.randrange(1 << 30), 2) as senders:
            for hours, half in zip(STEPS_H, halves, strict=True):
                shim.set(clock_offset_ns=hours * HOUR_NS)
                began = len(journal)
                senders.stop.wait(SETTLE_S)
                wait_until(lambda began=began: len(journal) > began + 5, 60)  # type: ignore[misc]
                _still_there(idle, half, journal, arm, f"{hours:+d} h")
                arm.counts["rounds"] += 1
            broke = sum(entry.status == -1 for entry in journal.entries) - len(senders.threads)
            arm.require(broke <= 0, f"{broke} transfers of healthy senders broke off")
        idle.socket.close()
        senders.stop.wait(0.5)
        victim.stop()
        _no_negatives(victim, arm)
    audit(context, arm, journal)
    return study_timers(context, arm) if not faults else arm


def study_timers(context: Context, arm: Arm, *worker: str, patience_s: float = GIVE_UP_S) -> Arm:
    """A study's report falls due after its quiet time, whatever the wall clock does in between; ADR 0018."""
    state = context.scratch() / "state"
    shim = Shim(context.scratch(), state, traced=False)
    quiet = {"study": dict.fromkeys(QUIET_SETTINGS, QUIET_S)}
    journal = Journal()
    with (
        context.receiver(state, shim=shim.request(), sections=quiet) as victim,
        Claimer(context, shim, state, *worker) as claimer,
    ):
        for hours in (0, 1, -1):
            began = time.monotonic()  # the quiet time begins after this, however long the answer takes
            entry = send_one(victim.address, journal, *instance(context.rng, 2_000, StudyInstanceUID=fresh_uid()))
            arm.require(entry.status == 0, "a healthy receiver refuses")
            shim.set(clock_offset_ns=hours * HOUR_NS)
            due = claimer.due_after(began, patience_s)
            shim.set(clock_offset_ns=0)
            claimer.look()  # the step back is noticed before anything else comes
            said = ", ".join(f"{stage} after {seconds:.1f} s" for stage, seconds in due.items()) or "nothing"
            arm.figures[f"due when the clock steps {hours:+d} h"] = said
            right = "analysis" in due and due.get("report", 0.0) >= QUIET_S * 0.9
            arm.require(right, f"the clock steps {hours:+d} h, quiet time {QUIET_S:.0f} s: due is {said}")
            arm.counts["rounds"] += 1
    return arm


class Claimer:
    """A worker who waits for final reports, in a process of its own under the same clock."""

    def __init__(self, context: Context, shim: Shim, state: Path, *options: str) -> None:
        assert context.nursery.preload is not None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.claimer", str(state), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | shim.environment(context.nursery.preload),
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == "ready"

    def __enter__(self) -> "Claimer":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def look(self) -> list[str]:
        """What fell due: the stages. It looks at its clock and at the ledger now, and at no other time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("look\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().split()

    def due_after(self, since: float, within_s: float) -> dict[str, float]:
        """Stage -> seconds from `since` on the monotonic clock, until a report is due or `within_s` have passed."""
        due: dict[str, float] = {}
        while "report" not in due and time.monotonic() - since < within_s:
            for stage in self.look():
                due.setdefault(stage, time.monotonic() - since)
            time.sleep(LOOK_EVERY_S)
        return due


def _half_sent(context: Context, victim: Victim, journal: Journal) -> tuple[RawScu, str, bytes]:
    """A healthy sender in the middle of a data set when the clock steps."""
    uid, data = instance(context.rng, 30_000)
    scu = RawScu(victim.address, CONTEXTS)
    scu.send_command(CT, uid)
    scu.socket.sendall(p_data(1, 0, data[:10_000]))
    return scu, uid, data


def _still_there(idle: RawScu, half: tuple[RawScu, str, bytes], journal: Journal, arm: Arm, what: str) -> None:
    with suppress(Aborted, OSError, AssertionError):
        if idle.echo(3) == 0:
            arm.counts["idle associations alive"] += 1
    scu, uid, data = half
    entry = journal.sent(uid, data)
    with suppress(Aborted, OSError, AssertionError):
        scu.socket.sendall(p_data(1, 2, data[10_000:]))
        response = scu.read_response()
        journal.answered(entry, response.status, response.comment)
        scu.release()
    arm.require(
        arm.counts["idle associations alive"] == arm.counts["rounds"] + 1, f"{what}: the idle association ended"
    )
    arm.require(entry.status == 0, f"{what}: the transfer under way ended")


def _no_negatives(victim: Victim, arm: Arm) -> None:
    """Neither a metric nor a logged duration is below nought."""
    samples = SAMPLE.findall(victim.log.with_suffix(".metrics").read_text())
    logged = re.findall(r'"\w+_s": -[\d.]+', victim.log.read_text())
    arm.counts["negative durations"] += len(samples) + len(logged)
    arm.require(not samples and not logged, f"negative: {[*samples, *logged][:3]}")


def wall_clock() -> None:
    """Fault: deadlines by the wall clock."""
    time.monotonic = time.time


register(
    28,
    "the clock steps +1 h, -2 h, to the year 2038 and back under load",
    step,
    deadlines_by_the_wall_clock=Control(
        r"(idle association|transfer under way) ended|transfers of healthy senders broke off",
        lambda context: step(context, ["clocks:wall_clock"]),
    ),
    nobody_notices_the_step=Control(
        r"due is (nothing|analysis)",
        lambda context: study_timers(context, Arm(), "no-watch", patience_s=CONTROL_GIVES_UP_S),
    ),
)

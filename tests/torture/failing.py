"""3: the n-th call fails, for every n and every errno: nothing is acknowledged that a disk does not hold.

What a disk holds is judged by the model of power cuts: a sync that failed made nothing durable, then or later.
"""

import errno
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.journal import Entry, Fate, Journal
from tests.torture.nursery_client import Died, Victim
from tests.torture.power.replay import Disk, read_trace
from tests.torture.power_cuts import LOST, after_cut
from tests.torture.senders import Line, instance
from tests.torture.shim import CALLS, SHORT_WRITE, NoCompiler, Shim

ERRORS = {
    "EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EDQUOT": errno.EDQUOT, "EINTR": errno.EINTR, "half a write": SHORT_WRITE,
}  # fmt: skip
AT_MOST = 200  # calls for one instance; there are about forty
SIZE = 40_000
OUT_OF_RESOURCES = 0xA700


class Failing:
    """One receiver after another over one folder, and one sender."""

    def __init__(self, context: Context, faults: Sequence[str], calls: Sequence[str]) -> None:
        if context.nursery.preload is None:
            raise NoCompiler("no C compiler: run `make peers`")
        self.context, self.faults, self.arm = context, faults, Arm()
        self.arm.counts["leftovers"] = 0
        self.state = context.folder / "state"
        self.state.mkdir(mode=0o700)
        self.shim = Shim(context.folder, self.state, calls_mask=sum(1 << CALLS.index(call) for call in calls))
        self.journal = Journal(on_ack=self.shim.ack)
        self.statuses: Counter[str] = Counter()
        self.victim: Victim | None = None
        self.line = Line(("", 0), self.journal)

    def start(self) -> None:
        """A receiver that reconciles and has taken one instance."""
        self.end()
        self.victim = self.context.receiver(self.state, shim=self.shim.request(), faults=self.faults, stays=True)
        self.arm.require(not self.victim.reconciled["lost"], "a restart found acknowledged instances lost")
        self.line.address = self.victim.address
        first = self.line.send(*instance(self.context.rng, SIZE))
        self.arm.require(first.status == 0, "a receiver that has just started refuses")
        self.arm.counts["restarts"] += 1

    def end(self) -> None:
        self.line.hang_up()
        if self.victim is not None:
            with self.shim.halted():
                self.victim.kill()
        self.victim = None
        self.shim.set(inside=0)  # of one that died at its start, in the middle of a call

    def one(self, name: str, number: int, n: int) -> bool:
        """Let the n-th call fail with this errno; False when there is no n-th call."""
        sent = instance(self.context.rng, SIZE)
        self.shim.set(count=0, hits=0, syncs_failed=0, fail_errno=number, fail_at=n)
        entry = self.line.send(*sent)
        self.shim.set(fail_at=0)
        if not self.shim.get("hits"):
            return False
        self.arm.counts["rounds"] += 1
        what = f"{name} at {self.shim.hit}"
        self.statuses[_said(entry)] += 1
        self.arm.require(entry.status in (-1, 0, OUT_OF_RESOURCES), f"{what}: status 0x{entry.status:04X}")
        self._look_for_parts(what)
        if self.shim.get("syncs_failed"):
            self._no_more(what)
        elif name == "EINTR" and self.shim.hit.split()[0] == "fsync":
            self._may_give_up(what)
        else:
            self._recovers(what, sent if entry.status else instance(self.context.rng, SIZE))
        return True

    def _look_for_parts(self, what: str) -> None:
        parts = list((self.state / "store" / "parts").iterdir())
        if parts and "unlink" not in what:  # what cannot be removed stays until the restart
            self.arm.counts["leftovers"] += len(parts)
            self.arm.broken.append(f"{what}: a part file is left")
        if parts:
            self.start()

    def _no_more(self, what: str) -> None:
        """After a sync that failed nothing is acknowledged until a restart."""
        for _ in range(2):
            after = self.line.send(*instance(self.context.rng, SIZE))
            self.statuses[f"then {_said(after)}"] += 1
            if after.status == 0:
                self.arm.counts["acked after a failed sync"] += 1
                self.arm.broken.append(f"{what}: acknowledged again without a restart")
        self.start()

    def _may_give_up(self, what: str) -> None:
        """A sync that a signal interrupted has failed for SQLite, and is done again by Python: both are right."""
        after = self.line.send(*instance(self.context.rng, SIZE))
        self.statuses[f"then {_said(after)}"] += 1
        self.arm.require(after.status in (0, OUT_OF_RESOURCES), f"{what}: then {_said(after)}")
        if after.status != 0:
            self.start()

    def _recovers(self, what: str, sent: tuple[str, bytes]) -> None:
        after = self.line.send(*sent)
        if after.status != 0:
            self.arm.counts["not taken again"] += 1
            self.arm.broken.append(f"{what}: the next one, with nothing wrong, is answered {_said(after)}")
            self.start()

    def start_failing(self, number: int, n: int) -> bool:
        """The same while a receiver starts: it may die; the next one must start and miss nothing."""
        self.end()
        self.shim.set(count=0, hits=0, fail_errno=number, fail_at=n)
        try:
            self.victim = self.context.receiver(self.state, shim=self.shim.request(), faults=self.faults, stays=True)
        except Died:
            self.arm.counts["died at start"] += 1
        self.shim.set(fail_at=0)
        hit = bool(self.shim.get("hits"))
        self.arm.counts["rounds"] += hit
        return hit


def _said(entry: Entry) -> str:
    return "no answer" if entry.fate is Fate.SENT else f"0x{entry.status:04X}"


def fail(context: Context, every: Mapping[str, int], faults: Sequence[str] = (), calls: Sequence[str] = ()) -> Arm:
    """every: by the error's name, 1 for each n, 2 for each second one, and so on. calls: only these may fail."""
    failing = Failing(context, faults, calls)
    try:
        failing.start()
        for name, step in every.items():
            for n in range(context.rng.randint(1, step), AT_MOST, step):
                context.progress(f"{name}, call {n}")
                if not failing.one(name, ERRORS[name], n):
                    break
        for n in range(1, AT_MOST, 4 * every["EIO"]):
            if not failing.start_failing(errno.EIO, n):
                break
        failing.start()
    finally:
        failing.end()
        failing.shim.close()
    arm = failing.arm
    _hold_against_disk(context, failing.shim.trace_path, failing.state, arm)
    arm.counts.update(failing.journal.counts())
    arm.figures["answers"] = ", ".join(f"{status} x {count}" for status, count in sorted(failing.statuses.items()))
    return arm


def _hold_against_disk(context: Context, trace: Path, state: Path, arm: Arm) -> None:
    """What only the syncs that succeeded made durable must hold everything that was acknowledged."""
    disk = Disk(state)
    for record in read_trace(trace):
        disk.feed(record)
    disk.rebuild(context.folder / "after", context.rng, 0.0)
    after_cut(context.folder / "after", disk.acked, arm)


ALL = dict.fromkeys(ERRORS, 1)
SHORT = {"EIO": 1, "ENOSPC": 2, "EDQUOT": 4, "EINTR": 2, "half a write": 2}
SYNCS = ("fsync", "folder fsync")

register(
    3,
    "every call fails once: EIO, ENOSPC, EDQUOT, EINTR, half a write",
    lambda context: fail(context, ALL if context.long else SHORT),
    success_whatever_went_wrong=Control(LOST, lambda context: fail(context, {"EIO": 3}, ["shrug_at_errors"])),
    a_failed_sync_is_tried_again=Control(LOST, lambda context: fail(context, {"EIO": 1}, ["sync_again"], SYNCS)),
    part_files_stay=Control(r"a part file is left", lambda context: fail(context, {"EIO": 4}, ["leave_parts"])),
)

"""5: the disk fills up during transfers, and is freed: 0xA700 to each sender, nothing left behind, and on it goes. Also
that of a whole node, filled by something beside it until not one byte is left, while a role of it dies."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import httpx

from scp.admission import admitter
from tests.support.packages import write_package
from tests.support.realdata import ROOT
from tests.support.running import RunningNode
from tests.support.waiting import wait_until
from tests.torture.audit import audit
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.journal import Journal
from tests.torture.nursery_client import Victim
from tests.torture.senders import Line, instance
from tests.torture.shim import NoCompiler, Shim

MIB = 1 << 20
DISK, BALLAST = 24 * MIB, 8 * MIB
SENDERS, SIZE, TOO_MANY = 4, MIB // 2, 200
OUT_OF_RESOURCES = 0xA700
PARTS_GO_WITHIN_S, PARTS_STAY_S = 30.0, 2.0  # a control need not wait long
AGAIN_WITHIN_S, AGAIN_GOAL_S = 10.0, 1.0  # the bound, on cores that others use, and what is wanted with room
WATERMARK, LOOKS_EACH = 6 * MIB, MIB
BELOW = DISK - BALLAST - WATERMARK + 2 * MIB  # there is room for so much, and less than the watermark would be left
KILLED = "report"
NODE_DISK, NODE_ROUNDS, NODE_PAUSE_S, WELL_WITHIN_S, HEARTBEAT_S = 64 * MIB, 5, 3.0, 90.0, 4.0
# As it was: the role that sends heartbeats ended with the first that it had no room to make.
NO_ROOM_ENDS_KEEP = """
from pathlib import Path
if b"keep" in Path("/proc/self/cmdline").read_bytes().split(b"\\0"):
    from node.chores import heartbeat
    from node.roles import keep
    heartbeat.Heart.beat = heartbeat.Heart._beat
    keep.SYSTEM_SHORT = frozenset()
"""


@contextmanager
def small_disk(context: Context) -> Iterator[tuple[Path, dict[str, str], Callable[[], None]]]:
    """(state folder, shim request, how to free space): a small tmpfs for root; else the shim counts what is left."""
    disk = context.scratch()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "torture", str(disk)]
    if os.geteuid() == 0 and shutil.which("mount") and subprocess.run(mount, stderr=subprocess.DEVNULL).returncode == 0:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(BALLAST))
        try:
            yield disk / "state", {}, ballast.unlink
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)
        return
    if context.nursery.preload is None:
        raise NoCompiler("no small disk without root, and no shim without a C compiler: run `make peers`")
    state = disk / "state"
    state.mkdir(mode=0o700)
    shim = Shim(context.folder, state, traced=False, space_limited=1, space_left=DISK - BALLAST)
    yield state, shim.request(), lambda: shim.set(space_limited=0)


def fill(context: Context, faults: Sequence[str] = (), watermark: int = 0, looks: str = "look_often") -> Arm:
    arm, journal, how = Arm(), Journal(), [*faults, f"disk_full:{looks}"]
    with small_disk(context) as (state, shim, free):
        arm.figures["disk"] = "shim" if shim else "tmpfs"
        with context.receiver(state, shim=shim, faults=how, free_disk_min_bytes=watermark) as victim:
            if watermark and not shim:  # which fills no disk
                _below_the_watermark(context, victim, journal, arm)
            _until_refused(context, victim, journal, arm)
            arm.require(len(journal.refused()) >= SENDERS or bool(faults), "a sender was not refused on a full disk")
            wrong = [e for e in journal.refused() if e.status != OUT_OF_RESOURCES]
            arm.require(not wrong, f"{len(wrong)} refusals on a full disk are not 0xA700")
            _too_large(context, victim, journal, arm)
            _no_parts(state, arm, PARTS_STAY_S if faults else PARTS_GO_WITHIN_S)
            _again(context, victim, journal, arm, free)
            arm.require(victim.alive(), "the receiver died of a full disk")
            victim.stop()
        arm.counts["rounds"] += 1
        audit(context, arm, journal, state)
    return arm


def _until_refused(context: Context, victim: Victim, journal: Journal, arm: Arm) -> None:
    """Four senders at once, each until it is refused three times."""
    work = [[instance(context.rng, SIZE) for _ in range(TOO_MANY // SENDERS)] for _ in range(SENDERS)]

    def send(mine: list[tuple[str, bytes]]) -> None:
        refused = 0
        with Line(victim.address, journal) as line:
            for sent in mine:
                refused += line.send(*sent).status != 0
                if refused == 3:
                    return

    threads = [threading.Thread(target=send, args=(mine,)) for mine in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _too_large(context: Context, victim: Victim, journal: Journal, arm: Arm) -> None:
    """One instance that the disk could never hold: it runs into the end of it in the middle of the transfer."""
    with Line(victim.address, journal) as line:
        entry = line.send(*instance(context.rng, DISK + MIB))
    arm.require(entry.status in (-1, OUT_OF_RESOURCES), f"an instance larger than the disk: 0x{entry.status:04X}")


def _below_the_watermark(context: Context, victim: Victim, journal: Journal, arm: Arm) -> None:
    """One instance that the disk could hold: the watermark is met in the middle of the transfer."""
    with Line(victim.address, journal) as line:
        status = line.send(*instance(context.rng, BELOW)).status
    arm.require(status == OUT_OF_RESOURCES, f"an instance that leaves less than the watermark: 0x{status:04X}")


def look_often() -> None:
    """Not a fault: room is looked for each MiB of a transfer, on a disk that is small."""
    admitter.__dict__["FREE_SPACE_CHECK_BYTES"] = LOOKS_EACH


def look_once() -> None:
    """Fault: room is looked for before a transfer alone."""
    admitter.__dict__["FREE_SPACE_CHECK_BYTES"] = 1 << 60


def _no_parts(state: Path, arm: Arm, within_s: float) -> None:
    def none() -> bool:
        return not list((state / "store" / "parts").iterdir())

    try:
        wait_until(none, within_s)
    except TimeoutError:
        arm.broken.append("part files are left on a full disk")


def _again(context: Context, victim: Victim, journal: Journal, arm: Arm, free: Callable[[], None]) -> None:
    began = time.monotonic()
    free()
    with Line(victim.address, journal) as line:
        while (
            answer := line.send(*instance(context.rng, SIZE)).status
        ) != 0 and time.monotonic() - began < AGAIN_WITHIN_S:
            pass
    took = time.monotonic() - began
    arm.goal(took < AGAIN_GOAL_S, f"accepts {took:.2f} s after space was freed, wanted < {AGAIN_GOAL_S:.0f} s")
    arm.figures["accepts again after"] = f"{took * 1000:.0f} ms"
    arm.in_time(answer == 0, f"not accepting {took:.1f} s after space was freed")


def to_the_last_byte(context: Context, does: str = "") -> Arm:
    """A whole node. Neither it nor a role that nobody killed may end, every instance is refused, health answers; and
    afterwards it is well again without a restart."""
    arm, disk = Arm(done="one role killed on the full disk"), context.scratch()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={NODE_DISK}", "torture", str(disk)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        arm.forbidden = "a small disk needs root, and the right to mount"
        return arm
    hook, models = context.scratch(), context.scratch()
    (hook / "sitecustomize.py").write_text(does)
    write_package(models, "good")
    look = f"[look]\nmodels_dir = {json.dumps(str(models))}\nthreads = 1\n"
    node = RunningNode(disk, extra=look, heartbeat_s=HEARTBEAT_S)
    node.log = context.folder / "node.log"  # elsewhere, so that nothing of it is lost
    try:
        with patch.dict(os.environ, {"PYTHONPATH": f"{hook}:{ROOT}"}):
            node.start()
        _filled(context, node, disk, arm)
    finally:
        node.stop()
        subprocess.run(["umount", "-l", str(disk)], check=True)
    return arm


def _filled(context: Context, node: RunningNode, disk: Path, arm: Arm) -> None:
    assert node.process is not None
    journal, address = Journal(), ("127.0.0.1", node.port)
    _fill_up(disk)
    node.kill_role(KILLED)
    for _ in range(NODE_ROUNDS):
        time.sleep(NODE_PAUSE_S)
        _fill_up(disk)  # what was deleted meanwhile is no room
        arm.counts["rounds"] += 1
        arm.require(node.process.poll() is None, "the node ended")
        died = {line["died"] for line in node.logged() if line["event"] == "role_died"} - {KILLED}
        arm.require(not died, f"died for want of room: {', '.join(sorted(died))}")
        if arm.broken:
            return
        with Line(address, journal) as line:
            answer = line.send(*instance(context.rng, SIZE)).status
        arm.require(answer == OUT_OF_RESOURCES, f"answered 0x{answer:04X} without a byte on the disk")
        arm.require(_health(node) == 503, "health was not red without a byte on the disk")
    (disk / "ballast").unlink()
    began = time.monotonic()
    with Line(address, journal) as line:
        while (answer := line.send(*instance(context.rng, SIZE)).status) and time.monotonic() - began < AGAIN_WITHIN_S:
            time.sleep(NODE_PAUSE_S / 10)
    arm.in_time(answer == 0, f"not accepting {AGAIN_WITHIN_S:.0f} s after there was room")
    with suppress(TimeoutError):
        wait_until(lambda: not _late(node), WELL_WITHIN_S)
    took = time.monotonic() - began
    arm.require(not _late(node), f"no heartbeat arrived within {took:.0f} s after there was room")
    arm.figures["well again after"] = f"{took:.1f} s"
    arm.counts["sent"], arm.counts["refused"] = NODE_ROUNDS + 1, len(journal.refused())


def _fill_up(disk: Path) -> None:
    with (disk / "ballast").open("ab", buffering=0) as ballast:
        for size in (MIB, 1):
            with suppress(OSError):
                while True:
                    ballast.write(bytes(size))


def _health(node: RunningNode) -> int:
    try:
        return node.get("/healthz").status_code
    except httpx.HTTPError:
        return 0


def _reasons(node: RunningNode) -> str:
    try:
        return "; ".join(node.get("/healthz").json()["reasons"])
    except httpx.HTTPError:
        return "nobody answers"


def _late(node: RunningNode) -> bool:
    """A role that I killed is remembered for minutes: what counts is that a study goes the whole path again."""
    return "heartbeat" in _reasons(node) or "nobody answers" in _reasons(node)


def _both(context: Context) -> Arm:
    arm = fill(context)
    below = fill(context, watermark=WATERMARK)
    arm.counts.update(below.counts)
    arm.goals += below.goals
    arm.broken += [f"with a watermark: {text}" for text in below.broken]
    arm.figures["with a watermark, after"] = below.figures["accepts again after"]
    return arm


register(
    5,
    "disk full during transfer, then freed; with and without the watermark",
    _both,
    success_whatever_went_wrong=Control(
        r"acknowledged instances are missing", lambda context: fill(context, ["shrug_at_errors"])
    ),
    part_files_stay=Control(r"part files are left on a full disk", lambda context: fill(context, ["leave_parts"])),
    room_is_looked_for_once=Control(
        r"^an instance that leaves less than the watermark: 0x0000",
        lambda context: fill(context, watermark=WATERMARK, looks="look_once"),
    ),
)
register(
    5,
    "the disk of a whole node filled to the last byte, then freed",
    to_the_last_byte,
    part="last byte",
    suite="hospital",
    a_heartbeat_without_room_ends_its_role=Control(
        r"died for want of room: .*keep", lambda context: to_the_last_byte(context, NO_ROOM_ENDS_KEEP)
    ),
)

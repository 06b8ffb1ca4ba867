"""2: the power fails. What was not synced is forgotten, or survives in pieces; what was acknowledged must be there.

Receivers run under a shim that writes down every change and every sync. The cuts are made afterwards, in that trace: at
random instants, and right after random acknowledgements. The node then starts on what a disk would have held.
"""

import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ledger import reconcile
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.reconcile import is_whole
from ledger.store import Store
from tests.support.waiting import wait_until
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.journal import Journal
from tests.torture.nursery_client import Victim
from tests.torture.power.replay import DIRECTORY, RENAME, Disk, Record, read_trace
from tests.torture.senders import Senders
from tests.torture.shim import ACK, NoCompiler, Shim

SENDERS = 8
SYNC_AT_MOST_US = 3_000
LIVES = 3  # receivers in one recording: killed, started again, killed
SURVIVALS = (0.0, 0.5, 1.0)
Recording = tuple[Journal, list[Record], Path]
Cut = tuple[int, float]  # after which record of the trace, and the chance that each thing survives that was not synced
_recordings: dict[tuple[int, str, str], Recording] = {}


def live(
    context: Context, shim: Shim, journal: Journal, instances: int, lives: int, begin: Callable[[], Victim]
) -> None:
    """Receivers under load, one after the other, each killed when it has had its share of the instances."""
    for life in range(lives):
        with begin() as victim:
            goal = len(journal) + instances // lives
            seed = context.rng.randrange(1 << 30)
            with Senders(lambda a=victim.address: a, journal, seed, SENDERS) as senders:  # type: ignore[misc]
                wait_until(lambda g=goal: len(journal) >= g, 180, 0.001)  # type: ignore[misc]
                context.progress(f"recording, life {life + 1} of {lives}, {len(journal)} sent")
                with shim.halted():
                    victim.kill()
                senders.stop.set()


def record(context: Context, instances: int, faults: Sequence[str] = ()) -> Recording:
    """From an empty folder: receivers under load, killed and started again, all in one trace."""
    if context.nursery.preload is None:
        raise NoCompiler("no C compiler: run `make peers`")
    folder = context.scratch()
    state = folder / "state"
    state.mkdir(mode=0o700)
    shim = Shim(folder, state, sync_delay_us=SYNC_AT_MOST_US)
    journal = Journal(on_ack=shim.ack)
    live(context, shim, journal, instances, LIVES, lambda: context.receiver(state, shim=shim.request(), faults=faults))
    shim.close()
    return journal, read_trace(shim.trace_path), state


def recorded(context: Context, instances: int, faults: Sequence[str] = ()) -> Recording:
    """The same recording for every arm that only forgets another sync."""
    key = (id(context.nursery), context.engine, ",".join(faults))
    if key not in _recordings:
        _recordings[key] = record(context, instances, faults)
    return _recordings[key]


def cuts_of(trace: list[Record], count: int, rng: random.Random) -> list[Cut]:
    """Half of them anywhere, half right after an acknowledgement: that is when most is at stake."""
    acks = [position for position, one in enumerate(trace) if one.kind == ACK] or [len(trace) - 1]
    anywhere = [rng.randrange(len(trace)) for _ in range(count // 2)]
    places = sorted(anywhere + [rng.choice(acks) for _ in range(count - count // 2)])
    return [(position, rng.choice([*SURVIVALS, rng.random()])) for position in places]


def at_the_last_answer(trace: list[Record]) -> Cut:
    """After the last acknowledgement, and nothing survives but what was synced: whoever leaves out a sync that matters
    has lost something then, whatever chance makes of the other cuts. Each control has this one."""
    return max(position for position, one in enumerate(trace) if one.kind == ACK), 0.0


def after_cut(folder: Path, acked: Sequence[tuple[str, str]], arm: Arm) -> None:
    """As `look_after`, with the ledger in SQLite."""
    look_after(folder, f"sqlite:///{folder / 'ledger.sqlite'}", acked, arm)


def look_after(folder: Path, url: str, acked: Sequence[tuple[str, str]], arm: Arm) -> None:
    """Start on what is there, as a node does, and look for everything that was acknowledged."""
    try:
        ledger = Ledger.open(url, Store(folder / "store"))
    except (LedgerUnavailable, OSError) as error:
        arm.counts["ledgers unreadable"] += 1
        arm.broken.append(f"the ledger does not open after a cut: {type(error).__name__}")
        return
    try:
        _look_for(acked, ledger, folder, arm)
    except LedgerUnavailable as error:  # pages that are torn are found when they are read
        arm.counts["ledgers unreadable"] += 1
        arm.broken.append(f"the ledger cannot be read after a cut: {type(error).__name__}")
    finally:
        ledger.close()


def _look_for(acked: Sequence[tuple[str, str]], ledger: Ledger, folder: Path, arm: Arm) -> None:
    found = ledger.reconcile()
    arm.counts["orphans"] += found.orphans_moved
    arm.require(not found.lost, f"rows without their files after a cut: {len(found.lost)}")
    missing = corrupt = 0
    for uid, sha256 in acked:
        ref = ledger.find_instance(uid, sha256)
        if ref is None or not ledger.store.path(ref.path).exists():
            missing += 1
        elif not is_whole(ledger.store.path(ref.path), sha256):
            corrupt += 1
    arm.counts["missing"] += missing
    arm.counts["corrupt"] += corrupt
    arm.require(not missing, f"{missing} of {len(acked)} acknowledged instances are missing after a cut")
    arm.require(not corrupt, f"{corrupt} of {len(acked)} acknowledged instances are corrupt after a cut")
    left = len(list((folder / "store" / "parts").iterdir()))
    arm.counts["leftovers"] += left
    arm.require(not left, "part files are left after a cut")
    torn = [path for path in (folder / "store").glob("orphans/*") if not is_whole(path, path.name[:64])]
    arm.require(not torn, f"{len(torn)} torn files are set aside as whole ones after a cut")


def cut(
    context: Context, recording: Recording, cuts: Sequence[Cut], forgotten: Callable[[Record], bool] | None = None
) -> Arm:
    """Cut the power so in one recording. forgotten: the syncs that the node is to have left out."""
    journal, trace, state = recording
    arm = Arm(counts=journal.counts())
    arm.counts.update(missing=0, corrupt=0, leftovers=0)
    arm.figures["trace records"] = f"{len(trace):,}"
    disk = Disk(state, forgotten or (lambda one: False))
    fed = 0
    for number, (position, survival) in enumerate(sorted(cuts)):
        context.progress(f"cut {number + 1} of {len(cuts)}, {arm.counts['missing']} missing")
        for one in trace[fed : position + 1]:
            disk.feed(one)
        fed = position + 1
        target = context.folder / "after"
        disk.rebuild(target, context.rng, survival)
        after_cut(target, disk.acked, arm)
        arm.counts["held against the journal"] += len(disk.acked)
        shutil.rmtree(target)
        arm.counts["rounds"] += 1
    return arm


def _takes_torn_for_whole(context: Context) -> Arm:
    """What a cut leaves under a final name is believed to be what the name says."""
    recording = recorded(context, INSTANCES)
    looks = reconcile._is_torn
    reconcile._is_torn = lambda path: False
    try:
        return cut(context, recording, _between_name_and_bytes(recording[1], 2 * CONTROL_CUTS, context.rng))
    finally:
        reconcile._is_torn = looks


def _between_name_and_bytes(trace: list[Record], count: int, rng: random.Random) -> list[Cut]:
    """Right after an instance got its final name, before its bytes are synced: every second such cut leaves the name,
    over bytes of which some are lost."""
    named = [position for position, one in enumerate(trace) if one.kind == RENAME and "/instances/" in one.path2]
    return [(rng.choice(named), 0.5) for _ in range(count)]


def _syncs(of_folder: bool, pattern: str) -> Callable[[Record], bool]:
    found = re.compile(pattern)
    return lambda one: bool(one.flags & DIRECTORY) is of_folder and found.search(one.path) is not None


INSTANCES, CONTROL_CUTS = 240, 12
LOST = r"acknowledged instances are (missing|corrupt) after a cut"
UNREADABLE = r"|the ledger (does not open|cannot be read) after a cut"
FORGOTTEN = {
    "no_sync_of_the_file": _syncs(False, r"/store/"),
    "no_sync_of_the_shard_folder": _syncs(True, r"/store/instances/\w\w$"),
    "no_sync_of_the_new_shard_folder's_parent": _syncs(True, r"/store/instances$"),
    "no_sync_of_the_store_folder": _syncs(True, r"/store$"),
    "SQLite_synchronous_OFF": _syncs(False, r"/ledger\.sqlite"),
}


def _holds(context: Context) -> Arm:
    arms = []
    total = context.rounds(80, 1_000)
    per_recording = 40
    for number in range(max(1, total // per_recording)):
        make = recorded if number == 0 else record
        recording = make(context, INSTANCES)
        arms.append(cut(context, recording, cuts_of(recording[1], min(total, per_recording), context.rng)))
    whole = Arm()
    for arm in arms:
        whole.counts.update(arm.counts)
        whole.broken += arm.broken
        whole.figures["trace records"] = arm.figures["trace records"]
    return whole


def _control(context: Context, recording: Recording, which: Callable[[Record], bool] | None = None) -> Arm:
    trace = recording[1]
    return cut(context, recording, [*cuts_of(trace, CONTROL_CUTS - 1, context.rng), at_the_last_answer(trace)], which)


def _forgets(which: Callable[[Record], bool]) -> Callable[[Context], Arm]:
    return lambda context: _control(context, recorded(context, INSTANCES), which)


register(
    2,
    "power cut, SQLite: what was not synced is forgotten or torn",
    _holds,
    **{
        name: Control(LOST + (UNREADABLE if "SQLite" in name else ""), _forgets(which))
        for name, which in FORGOTTEN.items()
    },
    a_torn_file_is_taken_for_a_whole_one=Control(r"torn files are set aside as whole ones", _takes_torn_for_whole),
    answer_before_the_work_is_done=Control(
        r"acknowledged instances are missing after a cut",
        lambda context: _control(context, record(context, INSTANCES, ["answer_early"])),
    ),
)

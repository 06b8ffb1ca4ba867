"""35: UIDs, AE titles and symbolic links that point elsewhere: no file appears or changes outside the state folder."""

import hashlib
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ledger.store import Store
from scp.admission import admitter as admission
from scp.admission.admitter import AdmissionSink
from tests.support.encoded import CT
from tests.support.rawscu import Aborted, RawScu, Rejected
from tests.torture.audit import audit
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.journal import Journal
from tests.torture.nursery_client import Victim
from tests.torture.senders import CONTEXTS, Line, fresh_uid, instance

LONGEST = "1.2." + "3" * 60
UIDS = (
    "../../../../../escape", "../../escape",
    "../escape", "..", ".", "/", "/tmp/escape", "/etc/cron.d/escape", "1.2/../../../escape", "1.2/3",
    "1.2.\0.3", "1.2.3\n", "1.2.3 4", "1.2.03", "1..2", "1.2.", "~root", "$(id)", "`id`", "%2e%2e%2fescape",
    "..\\..\\escape", "con", "1.2.3;id", LONGEST + "4", "1" * 300, "1.2.\u00e9", "",
)  # fmt: skip
FINE = ("1.2.826.4711.9.1", LONGEST)
TITLES = ("../..", "/etc/passwd", "/", "..", "A" * 16, "A\0B", "A\nB", "..\\..", "$(id)", "%2e%2e%2f", " ", "\u00e9")
Listing = dict[str, str]


def listing(world: Path, state: Path) -> Listing:
    """Everything below `world` that is not the node's own, with what it holds."""
    found = {}
    for path in sorted(world.rglob("*")):
        if path.is_relative_to(state) and not path.is_symlink():
            continue
        if path.is_symlink():
            found[str(path)] = f"-> {path.readlink()}"
        else:
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def attack(context: Context, faults: Sequence[str] = ()) -> Arm:
    arm, journal, answers = Arm(), Journal(), Counter[str]()
    world = context.folder / "world"
    state = world / "node" / "state"
    _furnish(world)
    before = listing(world, state)
    with context.receiver(state, faults=faults) as victim:
        for uid in UIDS:
            _hostile(context, victim, journal, arm, answers, uid)
        for uid in FINE:
            entry = _as_every_uid(context, victim, journal, uid, uid)
            arm.require(entry == 0, f"a valid UID of {len(uid)} characters is refused: 0x{entry:04X}")
        _titles(context, victim, journal, answers)
        arm.require(victim.alive(), "the receiver died")
        victim.kill()
    linked = world / "linked" / "state"
    _links(context, world, linked, Journal(), arm, faults)
    after = {path: what for path, what in listing(world, state).items() if not Path(path).is_relative_to(linked.parent)}
    escaped = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    arm.counts["files outside"] += len(escaped)
    arm.require(not escaped, f"{len(escaped)} files outside the state folder, such as {sorted(escaped)[:1]}")
    arm.figures["answers"] = ", ".join(f"{what} x {n}" for what, n in sorted(answers.items()))
    if arm.broken:  # the node's own folders may be past reading
        arm.counts.update(journal.counts())
    else:
        audit(context, arm, journal, state)
    return arm


def _furnish(world: Path) -> None:
    for folder in ("node", "outside", "tmp"):
        (world / folder).mkdir(parents=True)
    (world / "outside" / "bait").write_bytes(b"nobody may touch this")


def _hostile(context: Context, victim: Victim, journal: Journal, arm: Arm, answers: Counter[str], uid: str) -> None:
    """The UID in the command and the data set, in the data set alone, and as study and series."""
    good = fresh_uid()
    for announced, changes in (
        (uid, {"SOPInstanceUID": uid}),
        (good, {"SOPInstanceUID": uid}),
        (good, {"StudyInstanceUID": uid}),
        (good, {"SeriesInstanceUID": uid}),
    ):
        status = _as_every_uid(context, victim, journal, announced, good, **changes)
        answers["aborted" if status < 0 else f"0x{status:04X}"] += 1
        arm.require(status != 0, f"{next(iter(changes))} {uid!r} is accepted")
        arm.counts["rounds"] += 1


def _as_every_uid(context: Context, victim: Victim, journal: Journal, announced: str, uid: str, **changes: str) -> int:
    _, data = instance(context.rng, 500, uid, **changes)
    with Line(victim.address, journal) as line:
        return line.send(announced, data).status


def _titles(context: Context, victim: Victim, journal: Journal, answers: Counter[str]) -> None:
    for title in TITLES:
        uid, data = instance(context.rng, 500)
        entry = journal.sent(uid, data)
        what = "title closed"
        try:
            with RawScu(victim.address, CONTEXTS, calling=title[:16]) as scu:
                response = scu.store(CT, uid, data)
                journal.answered(entry, response.status, response.comment)
                what = f"title stored 0x{response.status:04X}"
        except Rejected:
            what = "title rejected"
        except (Aborted, OSError):
            pass
        answers[what] += 1


def _links(context: Context, world: Path, state: Path, journal: Journal, arm: Arm, faults: Sequence[str]) -> None:
    """Somebody has put links where the store makes its folders."""
    instances = state / "store" / "instances"
    with context.receiver(state) as victim:  # makes the folders, and no shard yet
        victim.kill()
    for number in range(256):
        (instances / f"{number:02x}").symlink_to(world / "outside", target_is_directory=True)
    with context.receiver(state, faults=faults, reconcile=False) as victim, Line(victim.address, journal) as line:
        for _ in range(4):
            status = line.send(*instance(context.rng, 500)).status
            arm.counts["through a link: acked" if status == 0 else "through a link: refused"] += 1
        victim.kill()


def _path(self: Store, relative: str) -> Path:
    (self.root / "instances" / "00").mkdir(parents=True, exist_ok=True)
    return self.root / relative


def name_from_the_wire() -> None:
    """Fault: any UID is a UID, and a file is called after it, in a folder that is there."""
    here = threading.local()
    real = AdmissionSink._admit

    def admit(self: AdmissionSink) -> object:
        here.uid = self._request.sop_instance_uid
        return real(self)

    AdmissionSink._admit = admit  # type: ignore[method-assign, assignment]
    Store.name = staticmethod(lambda kind, sha256, suffix: f"{kind}/00/{here.uid}")  # type: ignore[method-assign]
    Store.path = _path  # type: ignore[method-assign]
    admission.__dict__["is_valid_uid"] = lambda uid: True


register(
    35,
    "paths in UIDs and AE titles, links planted in the store",
    attack,
    files_named_after_the_UID=Control(
        r"files outside the state folder", lambda context: attack(context, ["names:name_from_the_wire"])
    ),
)

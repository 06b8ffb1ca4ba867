"""33: no descriptors, no threads, no memory: refused or rejected, never acknowledged in vain; then well again."""

import errno
import os
import resource
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scp.admission.admitter import AdmissionSink
from scp.network.native_engine import NativeEngine
from tests.support.rawscu import Aborted, RawScu, Rejected
from tests.support.waiting import wait_until
from tests.torture.audit import audit
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.journal import Entry, Journal
from tests.torture.nursery_client import Victim
from tests.torture.senders import CONTEXTS, Line, instance, send_one
from tests.torture.shim import NoCompiler, Shim

FILES = 192
STORM = 300
OUT_OF_RESOURCES = 0xA700
ROOM_BYTES = 2 << 20


@dataclass(frozen=True)
class How:
    """A receiver's faults. A control need not wait long for what it makes sure never comes."""

    faults: tuple[str, ...] = ()
    storm: int = STORM
    hears_within_s: float = 20.0
    recovers_within_s: float = 30.0


Ordeal = Callable[[Context, Arm, Journal, How], None]


def exhaust(context: Context, *ordeals: Ordeal, how: How = How()) -> Arm:
    arm, journal = Arm(), Journal()
    for ordeal in ordeals:
        context.progress(ordeal.__name__.strip("_").replace("_", " "))
        ordeal(context, arm, journal, how)
        arm.counts["rounds"] += 1
    wrong = [entry for entry in journal.refused() if entry.status != OUT_OF_RESOURCES]
    arm.require(not wrong, f"{len(wrong)} refusals are not 0xA700")
    audit(context, arm, journal)
    return arm


def _recovers(context: Context, victim: Victim, journal: Journal, arm: Arm, what: str, within_s: float) -> None:
    last: list[Entry] = []

    def taken() -> bool:
        last[:] = [send_one(victim.address, journal, *instance(context.rng, 20_000))]
        return last[0].status == 0

    try:
        wait_until(taken, within_s)
    except TimeoutError:
        said = f"{last[0].fate} {last[0].status:#x} {last[0].comment!r}; its log ends: {victim.log.read_text()[-1500:]}"
        arm.broken.append(f"{what}: nothing is accepted {within_s:.0f} s afterwards, last {said}")
    arm.require(victim.alive(), f"{what}: the receiver died")


def _few_files(context: Context, arm: Arm, journal: Journal, how: How) -> None:
    """More connections than descriptors, each of which then stores."""
    with context.receiver(
        faults=how.faults, limits={"NOFILE": FILES}, max_associations=500, acse_timeout_s=5.0
    ) as victim:
        before = victim.cpu_seconds()
        outcomes: Counter[str] = Counter()
        held: list[RawScu] = []
        sockets: list[socket.socket] = []
        for _ in range(how.storm // 2):
            sockets.append(socket.create_connection(victim.address, timeout=20))  # says nothing
        for _ in range(how.storm // 2):
            try:
                held.append(RawScu(victim.address, CONTEXTS, timeout_s=how.hears_within_s))
                outcomes["accepted"] += 1
            except Rejected:
                outcomes["rejected"] += 1
            except (Aborted, OSError):
                outcomes["closed"] += 1
        for scu in held:
            uid, data = instance(context.rng, 5_000)
            entry = journal.sent(uid, data)
            with suppress(Aborted, OSError):
                response = scu.store("1.2.840.10008.5.1.4.1.1.2", uid, data)
                journal.answered(entry, response.status, response.comment)
        arm.figures[f"{how.storm} connections, {FILES} descriptors"] = ", ".join(
            f"{n} {k}" for k, n in outcomes.items()
        )
        arm.figures["CPU s meanwhile"] = f"{victim.cpu_seconds() - before:.1f}"
        for open_one in [*sockets, *(scu.socket for scu in held)]:
            open_one.close()
        _recovers(context, victim, journal, arm, "few descriptors", how.recovers_within_s)


def _no_more_files(context: Context, arm: Arm, journal: Journal, how: How) -> None:
    """The last descriptor is taken while associations are open: their instances cannot be opened."""
    with context.receiver(faults=how.faults) as victim, Line(victim.address, journal) as line:
        arm.require(line.send(*instance(context.rng, 5_000)).status == 0, "a healthy receiver refuses")
        _, hard = resource.prlimit(victim.pid, resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in (path.name for path in Path(f"/proc/{victim.pid}/fd").iterdir()))
        resource.prlimit(victim.pid, resource.RLIMIT_NOFILE, (min(highest, 3), hard))
        for _ in range(5):
            status = line.send(*instance(context.rng, 5_000)).status
            arm.counts["refused for want of descriptors"] += status == OUT_OF_RESOURCES
        resource.prlimit(victim.pid, resource.RLIMIT_NOFILE, (hard, hard))
        _recovers(context, victim, journal, arm, "no descriptors", how.recovers_within_s)


def _no_threads(context: Context, arm: Arm, journal: Journal, how: How) -> None:
    """No thread can be started: who connects is not served, and is told so at once."""
    if context.nursery.preload is None:
        raise NoCompiler("no C compiler: run `make peers`")
    shim = Shim(context.folder, context.folder / "state", traced=False)
    with context.receiver(faults=how.faults, shim=shim.request()) as victim:
        shim.set(fail_threads=1)
        hung = 0
        for _ in range(10):
            with socket.create_connection(victim.address, timeout=how.hears_within_s) as probe:
                try:
                    hung += bool(probe.recv(1))
                except TimeoutError:
                    hung += 1
                except OSError:
                    pass
        shim.set(fail_threads=0)
        arm.figures["connections while no thread starts"] = f"{10 - hung} closed at once, {hung} left hanging"
        arm.require(not hung, f"{hung} connections hang when no thread can be started")
        _recovers(context, victim, journal, arm, "no threads", how.recovers_within_s)


def _no_memory(context: Context, arm: Arm, journal: Journal, how: How) -> None:
    """Address space for little more than what is in use; eight senders of large instances."""
    with context.receiver(faults=how.faults) as victim:
        arm.require(send_one(victim.address, journal, *instance(context.rng, 5_000)).status == 0, "healthy, refuses")
        pages = int(Path(f"/proc/{victim.pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + ROOM_BYTES
        resource.prlimit(victim.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        made = [instance(context.rng, 6 << 20) for _ in range(8)]
        threads = [threading.Thread(target=send_one, args=(victim.address, journal, *one)) for one in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        uids = {uid for uid, _ in made}
        fates = Counter(str(entry.fate) for entry in journal.entries if entry.sop_instance_uid in uids)
        arm.figures["8 x 6 MiB with 2 MiB left"] = ", ".join(f"{n} {fate}" for fate, n in sorted(fates.items()))
        resource.prlimit(victim.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        _recovers(context, victim, journal, arm, "no memory", how.recovers_within_s)


# --- faults ---


class _NeverClosed(socket.socket):
    def close(self) -> None:
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)


def keep_every_socket() -> None:
    """Fault: each connection takes nine descriptors, and none is ever closed."""
    real, kept = NativeEngine._take, list[socket.socket]()

    def take(self: NativeEngine, connection: socket.socket, peer_address: str) -> None:
        kept.extend(connection.dup() for _ in range(8))
        kept.append(_NeverClosed(fileno=connection.detach()))
        real(self, kept[-1], peer_address)

    NativeEngine._take = take  # type: ignore[method-assign]


def forget_who_gets_no_thread() -> None:
    """Fault: a connection for which no thread starts is kept, and served by nobody."""
    real, forgotten = NativeEngine._take, []

    def take(self: NativeEngine, connection: socket.socket, peer_address: str) -> None:
        try:
            real(self, connection, peer_address)
        except Exception:  # noqa: BLE001  that is the fault
            forgotten.append(connection)

    NativeEngine._take = take  # type: ignore[method-assign]


def die_without_memory() -> None:
    """Fault: where there is no memory, nor room for the stack of a thread, the process ends."""
    fail, real = AdmissionSink._fail, NativeEngine._take

    def failed(self: AdmissionSink, error: Exception) -> None:
        if isinstance(error, MemoryError) or getattr(error, "errno", 0) == errno.ENOMEM:
            os._exit(70)
        fail(self, error)

    def take(self: NativeEngine, connection: socket.socket, peer_address: str) -> None:
        try:
            real(self, connection, peer_address)
        except (MemoryError, RuntimeError):
            os._exit(70)

    AdmissionSink._fail = failed  # type: ignore[method-assign]
    NativeEngine._take = take  # type: ignore[method-assign]


def _with(fault: str, ordeal: Ordeal) -> Callable[[Context], Arm]:
    how = How((fault,), storm=60, hears_within_s=0.5, recovers_within_s=3.0)
    return lambda context: exhaust(context, ordeal, how=how)


register(
    33,
    "no descriptors, no threads, no memory",
    lambda context: exhaust(context, _few_files, _no_more_files, _no_threads, _no_memory),
    success_whatever_went_wrong=Control(
        r"acknowledged instances are missing", _with("shrug_at_errors", _no_more_files)
    ),
    descriptors_are_never_closed=Control(
        r"^few descriptors: nothing is accepted", _with("exhaustion:keep_every_socket", _few_files)
    ),
    who_gets_no_thread_is_forgotten=Control(
        r"connections hang when no thread", _with("exhaustion:forget_who_gets_no_thread", _no_threads)
    ),
    dies_without_memory=Control(r"^no memory: the receiver died", _with("exhaustion:die_without_memory", _no_memory)),
)

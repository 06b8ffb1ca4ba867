"""2, on PostgreSQL: its server runs under the same shim as the receivers, so that one trace has the store and the data.

The cluster is made and migrated before the trace begins, and is durable as it stands then. After a cut a server starts
on what is left of it, recovers as it always does, and the node starts on that.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ledger.ledger import Ledger
from ledger.store import Store
from tests.support.peers import free_port
from tests.torture.experiment import Arm, Context, Control, register
from tests.torture.journal import Journal
from tests.torture.power.replay import Disk, Record, read_trace
from tests.torture.power_cuts import SYNC_AT_MOST_US, at_the_last_answer, cuts_of, live, look_after
from tests.torture.shim import NoCompiler, Shim

INSTANCES, LIVES = 160, 2
SERVER_USER = "postgres"
START_WITHIN_S = 240  # recovery included, on a machine that does much else
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "wal_sync_method": "fdatasync"}
ALWAYS = {
    "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "shared_buffers": "16MB",
    "autovacuum": "off", "min_wal_size": "2MB", "max_wal_size": "2MB", "wal_keep_size": "0",
}  # fmt: skip
Recording = tuple[Journal, list[Record], Disk]


def binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def _as_server(*command: str | Path) -> list[str]:
    """PostgreSQL refuses to run as root; its Debian package brings the user."""
    words = [str(word) for word in command]
    return ["runuser", "-u", SERVER_USER, "--", *words] if os.geteuid() == 0 else words


def _hand_over(data: Path) -> None:
    """Let the server's user reach the cluster and own it."""
    if os.geteuid() != 0:
        return
    for parent in data.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    subprocess.run(["chown", "-R", SERVER_USER, data], check=True)


class NoStart(RuntimeError):
    """The server does not start on its data."""


@contextmanager
def server(data: Path, options: Mapping[str, str], environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """A server over a cluster; the URL of its database. It ends as abruptly as it can by itself. Raises NoStart."""
    tools = binaries()
    assert tools is not None
    _hand_over(data)
    words = " ".join(f"-c {name}='{value}'" for name, value in {**ALWAYS, **options}.items())
    control = [str(tools / "pg_ctl"), "-D", str(data), "-s", "-w"]
    log = data.parent.parent / f"{data.parent.name}.log"
    for attempts_left in (2, 1, 0):
        port, begun = free_port(), log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            started = subprocess.run(
                _as_server(*control, "-t", str(START_WITHIN_S), "-o", f"-p {port} {words}", "start"),
                env={**os.environ, **(environment or {})}, cwd="/", check=False, timeout=2 * START_WITHIN_S,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        if not started.returncode or not attempts_left or b"Address already in use" not in log.read_bytes()[begun:]:
            break
    try:
        if started.returncode:
            raise NoStart(log.read_text(errors="replace")[-500:])
        yield f"postgresql+psycopg://{SERVER_USER}@127.0.0.1:{port}/postgres"
    finally:
        ending = _as_server(*control, "-m", "immediate", "stop")
        subprocess.run(ending, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def cluster(folder: Path) -> Path:
    """A migrated, empty cluster that ended in order, in `folder`/data, beside an empty store."""
    tools = binaries()
    assert tools is not None
    folder.mkdir()
    data = folder / "data"
    data.mkdir()
    _hand_over(data)
    subprocess.run(
        _as_server(tools / "initdb", "-D", data, "-A", "trust", "-U", SERVER_USER, "-N", "--wal-segsize=1"),
        cwd="/", stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    with server(data, {"fsync": "off"}) as url:
        Ledger.open(url, Store(folder / "store")).close()
        stop = _as_server(tools / "pg_ctl", "-D", data, "-s", "-w", "-m", "fast", "stop")
        subprocess.run(stop, cwd="/", check=True)
    return folder


_made: dict[int, Path] = {}


def record(context: Context, settings: Mapping[str, str]) -> Recording:
    """Receivers under load, killed and started again, and their server, all in one trace."""
    preload = context.nursery.preload
    if preload is None:
        raise NoCompiler("no C compiler: run `make peers`")
    base = _made.setdefault(id(context.nursery), context.nursery.folder.parent / "postgresql")
    if not base.exists():
        cluster(base)
    folder = context.scratch()
    state = folder / "state"
    subprocess.run(["cp", "-a", base, state], check=True)
    shim = Shim(folder, state, sync_delay_us=SYNC_AT_MOST_US)
    journal = Journal(on_ack=shim.ack)
    before = Disk(state, base=base)  # what is named there now, before the server names more
    with server(state / "data", settings, shim.environment(preload)) as url:
        sections = {"node": {"state_dir": str(state), "database_url": url}}
        begin = partial(context.receiver, state, shim=shim.request(), sections=sections)
        live(context, shim, journal, INSTANCES, LIVES, begin)
    shim.close()
    return journal, read_trace(shim.trace_path), before


def cut(context: Context, count: int, settings: Mapping[str, str], control: bool = False) -> Arm:
    """control: one more cut, which no mutation survives."""
    if binaries() is None:
        return Arm(not_run="PostgreSQL's server is not installed (Debian package postgresql)")
    journal, trace, disk = record(context, settings)
    arm = Arm(counts=journal.counts())
    arm.counts.update(missing=0, corrupt=0, leftovers=0)
    arm.figures["trace records"] = f"{len(trace):,}"
    fed = 0
    cuts = sorted([*cuts_of(trace, count, context.rng), *([at_the_last_answer(trace)] if control else [])])
    for number, (position, survival) in enumerate(cuts):
        context.progress(f"cut {number + 1} of {len(cuts)}, {arm.counts['missing']} missing")
        for one in trace[fed : position + 1]:
            disk.feed(one)
        fed = position + 1
        target = context.folder / f"after-{number}"
        disk.rebuild(target, context.rng, survival)
        _look(target, disk.acked, arm)
        arm.counts["held against the journal"] += len(disk.acked)
        shutil.rmtree(target)
        arm.counts["rounds"] += 1
    return arm


def _look(target: Path, acked: Sequence[tuple[str, str]], arm: Arm) -> None:
    data = target / "data"
    (data / "postmaster.pid").unlink(missing_ok=True)  # of a process that is gone with the power
    try:
        with server(data, {"fsync": "off"}) as url:
            look_after(target, url, acked, arm)
    except NoStart as error:
        arm.counts["servers that do not start"] += 1
        arm.broken.append(f"PostgreSQL does not start after a cut: {error}")


register(
    2,
    "power cut, PostgreSQL: its server and the store in one trace",
    lambda context: cut(context, context.rounds(6, 300), DURABLE),
    part="postgresql",
    PostgreSQL_fsync_off=Control(
        r"after a cut", lambda context: cut(context, 2, DURABLE | {"fsync": "off"}, control=True)
    ),
)

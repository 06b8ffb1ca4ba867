"""What each role may touch, and nothing else: who takes one of them over by a hostile image has that much and no more.

A role gives up the rest when it starts, before it reads a byte that came from elsewhere, and whatever it starts
inherits it: files and TCP ports by Landlock, kinds of sockets and rare system calls by seccomp. Where a kernel knows
neither, the log says so (`role_not_confined`), and so does check-config. SECURITY.md shows the table; a test holds it
to ROLES. Nothing that starts threads may be imported here: Landlock binds who asks, and what he starts from then on.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from pydantic import BaseModel

from config import Settings
from inference import landlock, seccomp
from inference.landlock import ADD, DEVICE, READ, RUN, WRITE, Right
from ledger import reach
from ledger.store import PARTS, Store
from node import log_events
from node.running.private_state import prepare_scratch
from node.trail.heads import heads_file

ROOT: Final = Path(__file__).resolve().parents[2]
ANY: Final = "any"
OF_THE_SYSTEMS_CHOICE: Final = 0  # pynetdicom binds to one before it calls


@dataclass(frozen=True)
class May:
    """Of one role, beyond what all may (see COMMON). reads, writes: names in PLACES. adds: where it moves files to, and
    opens none. listens, calls: TCP, names in PORTS; ANY: every port, and name servers. A ledger on a server may be
    called by each."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    adds: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    devices: bool = False


ROLES: Final[dict[str, May]] = {
    # Takes what strangers send. No model, no result; calls nobody.
    "receive": May(reads=("receive.tls",), writes=("images", "quarantine"), listens=("receive.port",)),
    # Decodes and infers. No network at all; its decoders may less still (inference/jail.py).
    "analyse": May(reads=("images", "models", "uploads"), writes=("results", "engines"), devices=True),
    "report": May(reads=("images",), writes=("results",)),
    # Calls out. Writes nothing that was received or found.
    "deliver": May(reads=("images", "results", "credentials"), calls=(ANY,)),
    # Shows, and takes what comes by STOW-RS as the receiver does. No stored image is read, no result written.
    "web": May(
        reads=("results", "models", "receive.tls", "web.tls"),
        writes=("parts", "quarantine", "uploads"),
        adds=("instances",),
        listens=("web.port",),
        calls=("receive.port",),
    ),
    # Keeps order: retention, audit trail, heartbeat. No model.
    "keep": May(reads=("credentials", "receive.tls"), writes=("state", "heads"), calls=(ANY,)),
}
COMMON: Final = "the program and its libraries, the ledger, the folders run and tmp of node.state_dir, /proc and /sys"

PLACES: Final[dict[str, Callable[[Settings], list[Path]]]] = {
    "images": lambda s: _in_store(s, PARTS, "instances"),
    "parts": lambda s: _in_store(s, PARTS),
    "instances": lambda s: _in_store(s, "instances"),
    "results": lambda s: _in_store(s, PARTS, "objects", "pictures", "masks"),
    "quarantine": lambda s: [s.node.state_dir / "quarantine"],
    "uploads": lambda s: [s.node.state_dir / "uploads"],
    "engines": lambda s: [s.node.state_dir / "engines"],
    "state": lambda s: [s.node.state_dir],
    "heads": lambda s: [heads_file(s).absolute().parent],
    "models": lambda s: [models_dir(s)],
    "receive.tls": lambda s: list(_folders_named(s.receive.tls)),
    "web.tls": lambda s: list(_folders_named(s.web)),
    "credentials": lambda s: list(_folders_named(s)),  # of every file that the settings name
}
PORTS: Final[dict[str, Callable[[Settings], int]]] = {
    "receive.port": lambda s: s.receive.port,
    "web.port": lambda s: s.web.port,
}

_PROGRAMS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix/store")
_SYSTEM: Final = (
    "/proc", "/sys", "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
    "/etc/localtime", "/etc/timezone", "/etc/alternatives", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group",
    "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/resolv.conf", "/run/systemd/resolve", "/run/resolvconf",
    "/etc/services", "/etc/protocols", "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/crypto-policies",
    "/etc/mime.types", "/etc/OpenCL", "/etc/vulkan", "/etc/hostname", "/etc/machine-id",
)  # fmt: skip
_PLAIN_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/pts")
_ACCELERATORS: Final = ("/dev/dri", "/dev/kfd", "/dev/shm", "/dev/nvidia-caps")  # noqa: S108  and /dev/nvidia*
_held: list[object] = []


def confine(role: str, settings: Settings) -> None:
    """Give up what `role` does not need. Call first thing in its process, with one thread. Raises OSError,
    LedgerUnavailable."""
    log = structlog.get_logger()
    scratch = prepare_scratch(settings, role)
    os.environ |= {"TMPDIR": str(scratch), "SQLITE_TMPDIR": str(scratch)}
    os.environ.setdefault("CUDA_CACHE_PATH", str(settings.node.state_dir / "engines"))
    tempfile.tempdir = None
    if not settings.node.confine:
        log.warning(log_events.ROLE_NOT_CONFINED, missing=["node.confine is off"])
        return
    _held.append(reach.hold(settings.database_url))
    may, ledger = ROLES[role], reach.of(settings.database_url)
    _make(may, settings)
    known, filtered, refused = _give_up(may, settings, ledger)
    if missing := [*lacking(known, filtered), *refused]:
        log.warning(log_events.ROLE_NOT_CONFINED, missing=missing)
    else:
        log.info(log_events.ROLE_CONFINED, landlock=known)


def _give_up(may: May, settings: Settings, ledger: reach.Reach) -> tuple[int, bool, list[str]]:
    """Landlock's ABI, whether there is a filter, and what the kernel said against either: a container's profile may
    forbid what the kernel knows. The work goes on without."""
    known, filtered, refused = 0, False, []
    try:
        if sys.platform.startswith("linux"):
            landlock.see_no_others()
    except landlock.CannotConfine as error:
        refused.append(str(error))
    try:
        known = landlock.restrict(
            files_of(may, settings, ledger),
            listen=_ports(may.listens, settings, [OF_THE_SYSTEMS_CHOICE] if may.calls else []),
            call=None if ANY in may.calls else _ports(may.calls, settings, ledger.ports),
        )
    except landlock.CannotConfine as error:
        refused.append(str(error))
    try:
        filtered = seccomp.restrict(families_of(may, ledger), datagrams=ANY in may.calls or ledger.names)
    except landlock.CannotConfine as error:
        refused.append(str(error))
    return known, filtered, refused


def lacking(known: int, filtered: bool) -> list[str]:
    """What this machine cannot hold back, in words; known: Landlock's ABI."""
    missing = []
    if not known:
        missing.append("files: the kernel has no Landlock (Linux 5.13, CONFIG_SECURITY_LANDLOCK, lsm=landlock,...)")
    if known < landlock.TCP_FROM:
        missing.append("TCP ports: the kernel's Landlock does not know them (Linux 6.7)")
    if not filtered:
        missing.append("sockets: no seccomp filter for this machine (Linux on x86_64 or aarch64)")
    return missing


def table() -> Iterator[str]:
    """ROLES as lines of Markdown, for SECURITY.md."""
    yield "| Role | Reads | Writes too | Adds to, reads nothing of | Listens on | Calls by TCP | Devices |"
    yield "|---|---|---|---|---|---|---|"
    for role, may in ROLES.items():
        calls = "anybody, name servers" if ANY in may.calls else _said(may.calls)
        devices = "GPU" if may.devices else "-"
        files = f"{_said(may.reads)} | {_said(may.writes)} | {_said(may.adds)}"
        yield f"| {role} | {files} | {_said(may.listens)} | {calls} | {devices} |"


def _said(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "-"


def files_of(may: May, settings: Settings, ledger: reach.Reach) -> dict[Path, Right]:
    """Every file and folder that is left to a role, with what it may do there."""
    state = settings.node.state_dir
    files: dict[Path, Right] = dict.fromkeys(map(Path, _SYSTEM), READ)
    files |= dict.fromkeys(_code(settings), RUN)
    files |= dict.fromkeys(map(Path, _PLAIN_DEVICES), DEVICE)
    # The store's folder may be a link to where several machines see it.
    files |= {ROOT: Right.READ_DIR, state: Right.READ_DIR, state / "store": Right.READ_DIR}
    for place in may.reads:
        files |= dict.fromkeys(PLACES[place](settings), READ)
    files |= dict.fromkeys((path for place in may.adds for path in PLACES[place](settings)), ADD)
    files |= dict.fromkeys([*ledger.reads, Path("~/.postgresql").expanduser()], READ)
    ours = [state / "run", state / "newest", Path(tempfile.gettempdir()), *ledger.files]
    for path in (*(path for place in may.writes for path in PLACES[place](settings)), *ours):
        files[path] = WRITE
    if may.devices:
        files |= dict.fromkeys([*map(Path, _ACCELERATORS), *Path("/dev").glob("nvidia*")], DEVICE | WRITE)
    return files


def families_of(may: May, ledger: reach.Reach) -> set[int]:
    """The kinds of sockets that are left to a role."""
    talks = may.listens or may.calls or ledger.ports
    return {seccomp.UNIX, *((seccomp.INET, seccomp.INET6) if talks else ())}


def models_dir(settings: Settings) -> Path:
    """Where the model packages are."""
    return ROOT / "models" if settings.look.models_dir == Path() else settings.look.models_dir


def _ports(names: Iterable[str], settings: Settings, more: Iterable[int] = ()) -> list[int] | None:
    """None where the system chooses one of them, so that it is not known yet."""
    ports = [PORTS[name](settings) for name in names]
    return None if 0 in ports else [*ports, *more]


def _code(settings: Settings) -> Iterator[Path]:
    """The program, Python, libraries; never a model or anything kept, wherever they lie."""
    kept = [path.resolve() for path in (models_dir(settings), settings.node.state_dir)]
    own = [entry for entry in ROOT.iterdir() if (entry / "__init__.py").is_file() or entry.suffix.endswith("-info")]
    for folder in (*map(Path, _PROGRAMS), *map(Path, {sys.prefix, sys.base_prefix, sys.exec_prefix}), *own):
        yield from _without(folder.resolve(), kept)


def _without(folder: Path, kept: list[Path]) -> Iterator[Path]:
    """The folder, or where something that is kept lies in it, its other entries."""
    if not any(one.is_relative_to(folder) for one in kept):
        yield folder
    elif folder not in kept:
        for entry in folder.iterdir():
            yield from _without(entry, kept)


def _in_store(settings: Settings, *kinds: str) -> list[Path]:
    return [settings.node.state_dir / "store" / kind for kind in kinds]


def _make(may: May, settings: Settings) -> None:
    """What is not there cannot be allowed, and what is not allowed cannot be made: a role that runs alone and finds an
    empty folder opens the same store as all others, the kinds that are no business of its own included."""
    state = settings.node.state_dir
    store = Store(state / "store")
    store.prepare()
    places = [path for name in (*may.reads, *may.writes, *may.adds) for path in PLACES[name](settings)]
    ours = [path for path in places if path.is_relative_to(state)]
    for folder in (*ours, state / "run"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (state / "newest").touch(mode=0o600)


def _folders_named(part: object) -> Iterator[Path]:
    """Of every file that a part of the settings names: files are replaced by others, folders stay."""
    if isinstance(part, BaseModel):
        for name in type(part).model_fields:
            if name.endswith("_file"):
                path: Path = getattr(part, name)
                if path != Path():
                    yield path.absolute().parent
            else:
                yield from _folders_named(getattr(part, name))
    elif isinstance(part, tuple):
        for one in part:
            yield from _folders_named(one)

"""Of `opentriage doctor`: the machine: disk, memory, clock, ports."""

import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from config import Settings
from node import notices
from node.checkup.lines import Line, failure, ok, warning
from node.watching import durability, free_space
from node.watching.echo import own_echo, receive_address

_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p")
_FORGETFUL = ("tmpfs", "ramfs")
_UNSYNCHRONISED, _TIME_ERROR = 0x0040, 5  # STA_UNSYNC, TIME_ERROR of adjtimex(2)
_TIMEX_BYTES, _STATUS_AT = 256, 40  # on 64 bits


def runs(settings: Settings) -> bool:
    """Whether a node runs on this state folder, as far as can be seen. Nothing is created."""
    return (settings.node.state_dir / "run").is_dir() and bool(notices.read(settings, "supervisor"))


# --- disk ---


def disk(settings: Settings) -> Iterator[Line]:
    """Room, the file system, what becomes of a sync."""
    yield _room(settings)
    folder = durability.existing(settings.node.state_dir)
    kind = durability.file_system(folder)
    where = f"{folder}, {kind or 'an unknown file system'}"
    if kind in _FORGETFUL:
        yield failure("disk: file system", f"{where}: in memory", "Put node.state_dir on a disk.")
    elif kind in _REMOTE:
        yield warning("disk: file system", f"{where}: on the network", "Put node.state_dir on a local disk.")
    else:
        yield ok("disk: file system", where)
    yield from _durability(folder, kind)


def _room(settings: Settings) -> Line:
    free, least = free_space.free_bytes(settings), settings.receive.free_disk_min_bytes
    if full := free_space.too_little(settings):
        return failure("disk: room", full.partition(":")[0], "Make room; see docs/runbooks/disk-full.md.")
    if free is None:
        return warning("disk: room", "cannot be asked", "Look at node.state_dir: may this user read it?")
    found = f"{free / 1e9:.1f} GB free, {least / 1e9:.1f} GB are kept free"
    if free < 2 * least:
        return warning("disk: room", found, "Make room before instances are refused; see docs/runbooks/disk-full.md.")
    return ok("disk: room", found)


def _durability(folder: Path, kind: str) -> Iterator[Line]:
    cache = durability.write_cache(folder)
    said = {"write back": "has a volatile write cache, which is flushed at each sync", "write through": "has none"}
    if cache is None:
        yield ok("disk: write cache", "nobody says, as on a network file system, in memory or below a container")
    else:
        yield ok("disk: write cache", f"the disk {said[cache]}")
    try:
        took = durability.measure_sync(folder)
    except OSError as error:
        found = f"cannot be measured: {error.strerror}"
        yield warning("disk: sync", found, f"Let the node's user write to {folder}, and run the doctor as that user.")
        return
    found = f"{took.median_s * 1e3:.2f} ms, the slowest of {durability.SYNCS} {took.slowest_s * 1e3:.1f} ms"
    if took.median_s < durability.TOO_GOOD_S and kind not in _FORGETFUL:
        lies = (
            "No disk flushes so fast: is a virtual disk set to ignore flushes (cache=unsafe, eatmydata)? Then a power"
        )
        yield warning("disk: sync", found, f"{lies} cut loses what was acknowledged. Switch that off.")
    elif took.median_s > 0.05:
        yield warning("disk: sync", found, "Each instance waits for it: use a faster disk, with power-loss protection.")
    else:
        yield ok("disk: sync", found)


# --- memory, clock ---


def memory(settings: Settings) -> Iterator[Line]:
    """Enough for one image that is decoded, beside the models."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return
    known = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    free = known.get("MemAvailable", 0)
    found = f"{free / 1e9:.1f} of {known.get('MemTotal', 0) / 1e9:.1f} GB available"
    if free < settings.look.decode_memory_bytes // 2:
        yield warning("memory", found, "An image may need look.decode_memory_bytes to be decoded: free or add memory.")
    else:
        yield ok("memory", found)


def clock(settings: Settings) -> Iterator[Line]:
    """As the kernel knows it; and the zone, which a container has of its own (TZ)."""
    del settings
    synchronised = is_synchronised()
    if synchronised is None:
        yield warning("clock", "nobody says whether it is synchronised", "See that this machine's time comes from NTP.")
    elif synchronised:
        yield ok("clock", "synchronised")
    else:
        do = "Start chrony or systemd-timesyncd: ages of studies and the audit trail go by this clock."
        yield warning("clock", "not synchronised, says the kernel", do)
    now = datetime.now().astimezone()
    found = f"{now:%Z} ({now:%z}): images that name no zone are taken to be of it, and the node's own times are"
    yield ok("clock: time zone", found)


def is_synchronised() -> bool | None:
    """None where the kernel cannot be asked."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: it is only read
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    except (AttributeError, OSError):
        return None
    if state < 0 or ctypes.sizeof(ctypes.c_long) != 8:
        return None
    status = ctypes.c_int.from_buffer(timex, _STATUS_AT).value
    return state != _TIME_ERROR and not status & _UNSYNCHRONISED


# --- ports ---


def receive_port(settings: Settings) -> Iterator[Line]:
    """Free, or ours and answering."""
    what, (host, port) = "port of [receive]", receive_address(settings) if runs(settings) else _configured(settings)
    if runs(settings):
        if own_echo(settings, timeout_s=5.0):
            yield ok(what, f"{host}:{port}: our own receiver answered a C-ECHO")
        else:
            yield failure(what, f"{host}:{port}: the node runs, and its C-ECHO is not answered", _ECHO)
        return
    yield _free(what, settings.receive.host, settings.receive.port)


_ECHO = (
    "Look at the log of the role receive, at /healthz, and whether receive.allowed_networks, [[peers]] and the "
    "certificates let the node itself in (`opentriage check-config`)."
)


def _configured(settings: Settings) -> tuple[str, int]:
    return settings.receive.host, settings.receive.port


def web_port(settings: Settings) -> Iterator[Line]:
    what, host, port = "port of [web]", settings.web.host, settings.web.port
    if not runs(settings):
        yield _free(what, host, port)
        return
    try:
        socket.create_connection((_reachable(host), port), 3.0).close()
    except OSError as error:
        yield failure(what, f"{host}:{port}: the node runs, and nobody answers: {_words(error)}", "See its log.")
    else:
        yield ok(what, f"{host}:{port}: our own page answers")


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  compared, not bound


def _free(what: str, host: str, port: int) -> Line:
    if port == 0:
        return ok(what, "the system will choose one")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            do = "Choose a port from 1024 on, or let systemd bind it (docs/deploy.md)."
            return failure(what, f"{host}:{port}: this user may not listen there", do)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                do = f"See who has it: ss -ltnp 'sport = :{port}'. Stop that program, or choose another port."
                return failure(what, f"{host}:{port}: in use by another program", do)
            return failure(what, f"{host}:{port}: {_words(error)}", "Give an address of this machine.")
    return ok(what, f"{host}:{port}: free")


def _words(error: OSError) -> str:
    return error.strerror or os.strerror(error.errno or 0) if error.errno else str(error) or type(error).__name__

"""What `opentriage check-config` says of senders that may delete their images on our word."""

from collections.abc import Iterator
from pathlib import Path

from config import Settings

_MOUNTS = Path("/proc/self/mounts")
_VOLATILE = {
    "tmpfs": "memory: it is empty after a restart of the machine",
    "ramfs": "memory: it is empty after a restart of the machine",
    "overlay": "the writable layer of a container: it goes with the container",
}


def commitment_warnings(settings: Settings, mounts: Path = _MOUNTS) -> Iterator[str]:
    """A sentence for each sender, and for each thing that makes the promise doubtful."""
    receive = settings.receive
    allowed = [title.strip() for title in receive.allowed_calling_ae_titles]
    for one in settings.commitment_requestors:
        said = f"commitment_requestors: {one.key}:"
        yield (
            f"{said} this sender may delete its images on our word; this node must keep what it received for "
            f"{one.retention_days:g} days, and after that nobody has them unless somebody sees to it"
        )
        if allowed and one.ae_title.strip() not in allowed:
            yield f"{said} receive.allowed_calling_ae_titles leaves it out, so it can neither store nor ask"
    if settings.commitment_requestors:
        yield from _doubts(settings, mounts)


def _doubts(settings: Settings, mounts: Path) -> Iterator[str]:
    if settings.receive.free_disk_min_bytes == 0:
        yield "receive.free_disk_min_bytes: 0, so the disk on which senders rely may fill to the last byte"
    state = settings.node.state_dir
    if (what := _VOLATILE.get(_file_system(state, mounts))) is not None:
        yield f"node.state_dir: {state} lies on {what}, and with it what senders were told is kept"


def _file_system(folder: Path, mounts: Path) -> str:
    """Its type, such as "ext4"; "" where nobody says."""
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    resolved = folder.resolve()
    held = [(len(line[1]), kind) for line in lines if resolved.is_relative_to(line[1]) for kind in line[2:3]]
    return max(held, key=lambda one: one[0], default=(0, ""))[1]

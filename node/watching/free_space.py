"""Room on the store's disk. Below receive.free_disk_min_bytes every instance is refused with 0xA700."""

import os

from config import Settings


def free_bytes(settings: Settings) -> int | None:
    """Of the disk that holds the store, or will; None where it cannot be asked."""
    store = (settings.node.state_dir / "store").absolute()
    for folder in (store, *store.parents):
        try:
            volume = os.statvfs(folder)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return volume.f_bavail * volume.f_frsize
    return None


def too_little(settings: Settings) -> str:
    """What is wrong and what to do, without a full stop; empty while there is room."""
    least, free = settings.receive.free_disk_min_bytes, free_bytes(settings)
    if free is None or free >= least:
        return ""
    return (
        f"the store's disk has {_size(free)} free, less than receive.free_disk_min_bytes ({_size(least)}): every "
        "instance is refused with 0xA700; make room on the disk of node.state_dir, or give it a larger one: senders "
        "that were refused have to send again"
    )


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"

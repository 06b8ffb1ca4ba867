"""Whether what is kept is encrypted where it lies, as far as this machine can see (dm-crypt and LUKS, fscrypt,
eCryptfs, ZFS). What encrypts below it, a drive, a hypervisor or a file server, it cannot see."""

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

_GET_FLAGS: Final = 0x80086601  # FS_IOC_GETFLAGS
_FSCRYPT: Final = 0x800  # FS_ENCRYPT_FL
_ENCRYPTING: Final = frozenset({"ecryptfs", "fuse.gocryptfs", "fuse.encfs", "fuse.cryfs"})
_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_ELSEWHERE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.glusterfs", "9p", "virtiofs"})
_CRYPT: Final = "CRYPT-"  # of /sys/block/dm-*/dm/uuid


class Kept(Enum):
    """How a file lies on its volume."""

    ENCRYPTED = "encrypted"
    PLAIN = "plain"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Found:
    """why: in words, for a person."""

    kept: Kept
    why: str


@dataclass(frozen=True)
class _Mount:
    device: str  # MAJOR:MINOR
    point: Path
    kind: str
    source: str


def encryption(path: Path, mountinfo: Path = Path("/proc/self/mountinfo"), sys: Path = Path("/sys")) -> Found:
    """Of the nearest folder to `path` that exists. Never raises."""
    existing = next((one for one in (path, *path.absolute().parents) if one.exists()), Path("/"))
    if _by_fscrypt(existing):
        return Found(Kept.ENCRYPTED, "fscrypt")
    try:
        mount = max(_mounts_above(existing.resolve(), mountinfo), key=lambda one: len(one.point.parts))
    except (OSError, ValueError):
        return Found(Kept.UNKNOWN, "/proc/self/mountinfo does not tell what it lies on")
    return _of(mount, sys)


def _of(mount: _Mount, sys: Path) -> Found:
    if mount.kind in _ENCRYPTING:
        return Found(Kept.ENCRYPTED, mount.kind)
    if mount.kind in _MEMORY:
        return Found(Kept.UNKNOWN, f"{mount.kind}: memory, which may be swapped out, and is empty after a restart")
    if mount.kind in _ELSEWHERE or mount.kind == "overlay":
        where = "a container's layer" if mount.kind == "overlay" else "another machine"
        return Found(Kept.UNKNOWN, f"{mount.kind}: it lies on {where}")
    if mount.kind == "zfs":
        return _by_zfs(mount.source)
    device = _device(mount, sys)
    if device is None:
        return Found(Kept.UNKNOWN, f"{mount.kind} on {mount.source}: no block device that /sys knows")
    if _is_crypt(device):
        return Found(Kept.ENCRYPTED, f"dm-crypt below {mount.point}")
    return Found(Kept.PLAIN, f"{mount.kind} on {device.name}, without dm-crypt")


def _mounts_above(path: Path, mountinfo: Path) -> Iterator[_Mount]:
    for line in mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, source, *_) = before.split(), after.split()
        point = Path(fields[4].replace(r"\040", " "))
        if path.is_relative_to(point):
            yield _Mount(fields[2], point, kind, source)


def _device(mount: _Mount, sys: Path) -> Path | None:
    """Its folder in /sys. Btrfs and others have an anonymous number; their source names the device."""
    number = mount.device
    if number.startswith("0:"):
        try:
            found = Path(mount.source).stat().st_rdev
        except OSError:
            return None
        number = f"{os.major(found)}:{os.minor(found)}"
    folder = sys / "dev" / "block" / number
    return folder.resolve() if folder.exists() else None


def _is_crypt(device: Path) -> bool:
    """Whether it, or everything that it is made of (LVM, RAID), is dm-crypt."""
    try:
        if (device / "dm" / "uuid").read_text().startswith(_CRYPT):
            return True
    except OSError:
        pass
    try:
        below = [one.resolve() for one in (device / "slaves").iterdir()]
    except OSError:
        return False
    return bool(below) and all(map(_is_crypt, below))


def _by_zfs(dataset: str) -> Found:
    zfs = shutil.which("zfs", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if zfs is None:
        return Found(Kept.UNKNOWN, f"zfs {dataset}: the command zfs, which knows, is not installed")
    command = [zfs, "get", "-H", "-o", "value", "encryption", dataset]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return Found(Kept.UNKNOWN, f"zfs {dataset}: it does not say whether it is encrypted")
    return Found(Kept.PLAIN if said in ("off", "-", "") else Kept.ENCRYPTED, f"zfs encryption {said or 'off'}")


def _by_fscrypt(folder: Path) -> bool:
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return bool(struct.unpack("l", fcntl.ioctl(opened, _GET_FLAGS, bytes(8)))[0] & _FSCRYPT)
    except OSError:
        return False
    finally:
        os.close(opened)

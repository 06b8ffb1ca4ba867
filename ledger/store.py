"""The store of instances: bytes on disk that survive a power cut once `finish` returns.

Names come from content hashes, the clock and random tokens, never from the wire. Folders are 0700, files 0600.
"""

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

PARTS = "parts"
BY_ARRIVAL = "instances"  # what is received at the same time shares a folder, and so the sync of that folder


class VolumeFailed(OSError):
    """A sync failed: nothing on this volume may be acknowledged until the process restarts and reconciles.

    A repeated fsync can report success after the kernel dropped the dirty pages, so it is never retried.
    """


class PartFile:
    """Bytes on their way to a final name. Exactly one of `finish`, `seal` and `abort` ends it."""

    def __init__(self, store: "Store", name: str) -> None:
        self._store = store
        self._name = name
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC
        self._fd = os.open(name, flags, 0o600)
        self.size_bytes = 0

    @property
    def path(self) -> Path:
        return Path(self._name)

    def fileno(self) -> int:
        """The open file, to be read from: valid until the part ends."""
        return self._fd

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises OSError (ENOSPC, EDQUOT, ...) as the system gives it; the caller then aborts."""
        written = os.write(self._fd, data)
        self.size_bytes += written
        while written < len(data):
            data = memoryview(data)[written:]
            written = os.write(self._fd, data)
            self.size_bytes += written

    def finish(self, relative: str) -> None:
        """Make the bytes durable under `relative`: rename, fdatasync, close, fsync of the folder, in that order.

        A final name says nothing until this has returned and somebody has written it down: what a crash leaves under
        one may be torn. Renamed first, a file's bytes and its name go into one commit of a file system's journal, and
        the folder's sync finds nothing left to do. Raises VolumeFailed if a sync fails.
        """
        self._store.sync_folder(self.seal(relative))

    def seal(self, relative: str) -> Path:
        """All of `finish` but the last: the bytes are durable, their name need not be until the folder that this
        returns has been synced, once for everything that was sealed in it before."""
        final = self._store.path(relative)
        try:
            self._store.prepare_shard(final.parent)
            self.path.rename(final)
            self._name = str(final)
            self._store.sync_file(self._fd)
            fd, self._fd = self._fd, -1
            os.close(fd)  # NFS reports ENOSPC and EDQUOT here
        except BaseException:
            self.abort()
            raise
        return final.parent

    def abort(self) -> None:
        """Forget the bytes. Safe to call twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
        self.path.unlink(missing_ok=True)


class Store:
    """A folder of durable files: `instances/`, `objects/`, `pictures/` and `masks/`, each in up to 256 shards."""

    KINDS = ("instances", "objects", "pictures", "masks")

    def __init__(self, root: Path, fsync: Callable[[int], None] = os.fsync) -> None:
        self.root = root
        self._absolute = root.absolute()
        self._fsync = fsync
        self.failed = False
        self._shards: set[Path] = set()  # known to be on disk

    def prepare(self) -> None:
        """Make the folders, durably, with all that lead to them. Idempotent."""
        made = [folder for folder in (self._absolute, *self._absolute.parents) if not folder.exists()]
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.root / PARTS).mkdir(mode=0o700, exist_ok=True)
        for kind in self.KINDS:
            (self.root / kind).mkdir(mode=0o700, exist_ok=True)
        self.sync_folder(self.root)
        for folder in made or [self._absolute]:
            with contextlib.suppress(PermissionError):  # not ours to read, so not ours to have written to
                self.sync_folder(folder.parent)

    def prepare_shard(self, folder: Path) -> None:
        """Make the folder of a shard, durably; never its parent: a kind's folder that is gone is an error. Each
        process syncs once, for another may have made the folder and not have come to its sync yet."""
        if folder not in self._shards:
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.is_symlink():
                raise OSError(errno.ELOOP, "a folder of the store is a link to somewhere else")
            self.sync_folder(folder.parent)
            self._shards.add(folder)

    def sweep_parts(self) -> int:
        """Delete what a crash left half-written; none of it was acknowledged. Call before receiving starts."""
        leftovers = [entry for entry in (self.root / PARTS).iterdir() if entry.is_file()]
        for entry in leftovers:
            entry.unlink(missing_ok=True)
        return len(leftovers)

    def path(self, relative: str) -> Path:
        """The absolute path of a stored file. Refuses a name that leaves the store."""
        if relative.startswith("/") or ".." in relative.split("/"):
            raise ValueError("a stored name must stay inside the store")
        return self._absolute / relative

    @staticmethod
    def name(kind: str, sha256: str, suffix: str) -> str:
        """Where content with this hash lives: a fresh name, so two writers never share a file.

        The shard is the hash's, or for what is received the minute of arrival, modulo 256.
        """
        shard = f"{int(time.time()) // 60 % 256:02x}" if kind == BY_ARRIVAL else sha256[:2]
        return f"{kind}/{shard}/{sha256}-{secrets.token_hex(4)}{suffix}"

    def begin(self) -> PartFile:
        """A new part file on the store's own filesystem. Raises VolumeFailed after an earlier failed sync."""
        if self.failed:
            raise VolumeFailed("an earlier sync of this volume failed")
        return PartFile(self, f"{self.root}/{PARTS}/{os.getpid()}-{secrets.token_hex(8)}.part")

    def put(self, kind: str, sha256: str, suffix: str, content: bytes) -> str:
        """Store `content` durably and return its relative name."""
        part = self.begin()
        relative = self.name(kind, sha256, suffix)
        try:
            part.write(content)
        except BaseException:
            part.abort()
            raise
        part.finish(relative)
        return relative

    def replace(self, relative: str, by: str) -> None:
        """Let the stored file `by` take the place and the name of another, durably."""
        final = self.path(relative)
        self.prepare_shard(final.parent)
        self.path(by).rename(final)
        self.sync_folder(final.parent)

    def fail(self) -> None:
        """Nothing on this volume is acknowledged any more until a restart: what the disk holds of it is not known."""
        self.failed = True

    def read(self, relative: str) -> bytes:
        return self.path(relative).read_bytes()

    def free_bytes(self) -> int:
        volume = os.statvfs(self.root)
        return volume.f_bavail * volume.f_frsize

    def sync_file(self, fd: int) -> None:
        self._sync(os.fdatasync if self._fsync is os.fsync else self._fsync, fd)

    def sync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._sync(self._fsync, fd)
        finally:
            os.close(fd)

    def _sync(self, sync: Callable[[int], None], fd: int) -> None:
        try:
            sync(fd)
        except OSError as error:
            self.fail()
            raise VolumeFailed(error.errno, f"sync failed: {error.strerror}") from error

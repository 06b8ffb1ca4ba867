"""The store of instances: bytes on disk that survive a power cut once `finish` returns.

Names come from content hashes and random tokens, never from the wire. Folders are 0700, files 0600.
"""

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

PARTS = "parts"


class VolumeFailed(OSError):
    """A sync failed: nothing on this volume may be acknowledged until the process restarts and reconciles.

    A repeated fsync can report success after the kernel dropped the dirty pages, so it is never retried.
    """


class PartFile:
    """Bytes on their way to a final name. Exactly one of `finish` and `abort` ends it."""

    def __init__(self, store: "Store", path: Path) -> None:
        self._store = store
        self._path = path
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)
        self.size_bytes = 0

    @property
    def path(self) -> Path:
        return self._path

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises OSError (ENOSPC, EDQUOT, ...) as the system gives it; the caller then aborts."""
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            self.size_bytes += written
            view = view[written:]

    def finish(self, relative: str) -> None:
        """Make the bytes durable under `relative`: fdatasync, close, rename, fsync of the folder, in that order.

        The name appears only when the content is complete. Raises VolumeFailed if a sync fails.
        """
        final = self._store.path(relative)
        try:
            self._store.sync_file(self._fd)
            fd, self._fd = self._fd, -1
            os.close(fd)  # NFS reports ENOSPC and EDQUOT here
            self._store.prepare_shard(final.parent)
            self._path.rename(final)
        except BaseException:
            self.abort()
            raise
        self._store.sync_folder(final.parent)

    def abort(self) -> None:
        """Forget the bytes. Safe to call twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
        self._path.unlink(missing_ok=True)


class Store:
    """A folder of durable files: `instances/`, `objects/`, `pictures/` and `masks/`, each in up to 256 shards."""

    KINDS = ("instances", "objects", "pictures", "masks")

    def __init__(self, root: Path, fsync: Callable[[int], None] = os.fsync) -> None:
        self.root = root
        self._fsync = fsync
        self.failed = False
        self._shards: set[Path] = set()  # known to be on disk

    def prepare(self) -> None:
        """Make the folders, durably. Idempotent."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.root / PARTS).mkdir(mode=0o700, exist_ok=True)
        for kind in self.KINDS:
            (self.root / kind).mkdir(mode=0o700, exist_ok=True)
        self.sync_folder(self.root)

    def prepare_shard(self, folder: Path) -> None:
        """Make the folder of a hash's first two digits, durably; never its parent: a kind's folder that is gone is an
        error. Each process syncs once, for another may have made the folder and not have come to its sync yet."""
        if folder not in self._shards:
            folder.mkdir(mode=0o700, exist_ok=True)
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
        path = (self.root / relative).absolute()
        if ".." in path.parts or not path.is_relative_to(self.root.absolute()):
            raise ValueError("a stored name must stay inside the store")
        return path

    @staticmethod
    def name(kind: str, sha256: str, suffix: str) -> str:
        """Where content with this hash lives: a fresh name, so two writers never share a file."""
        return f"{kind}/{sha256[:2]}/{sha256}-{secrets.token_hex(4)}{suffix}"

    def begin(self) -> PartFile:
        """A new part file on the store's own filesystem. Raises VolumeFailed after an earlier failed sync."""
        if self.failed:
            raise VolumeFailed("an earlier sync of this volume failed")
        return PartFile(self, self.root / PARTS / f"{os.getpid()}-{secrets.token_hex(8)}.part")

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

    def read(self, relative: str) -> bytes:
        return self.path(relative).read_bytes()

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free

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
            self.failed = True
            raise VolumeFailed(error.errno, f"sync failed: {error.strerror}") from error

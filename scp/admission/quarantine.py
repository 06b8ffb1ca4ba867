"""Where refused, broken data sets are kept for a person to look at. Never parsed again; bounded in number and size."""

import os
import secrets
import shutil
import threading
from pathlib import Path


class Quarantine:
    """A folder of at most `max_files` files and `max_bytes` bytes; the oldest make room. Folder 0700, files 0600."""

    def __init__(self, folder: Path, max_files: int = 100, max_bytes: int = 1 << 30) -> None:
        self.folder = folder
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def keep(self, part: Path, size_bytes: int) -> Path | None:
        """Keep the bytes at `part` (which stays where it is). Returns where, None when it is too large to keep."""
        if size_bytes > self._max_bytes:
            return None
        kept = self.folder / f"{secrets.token_hex(8)}.broken"
        with self._lock:
            self._make_room(size_bytes)
            try:
                os.link(part, kept)
            except OSError:  # the store is another volume
                shutil.copyfile(part, kept)
                kept.chmod(0o600)
        return kept

    def _make_room(self, size_bytes: int) -> None:
        files = [
            (status.st_mtime_ns, status.st_size, path) for path in self.folder.iterdir() if (status := path.stat())
        ]
        files.sort()
        total = sum(size for _, size, _ in files)
        while files and (len(files) >= self._max_files or total + size_bytes > self._max_bytes):
            _, size, path = files.pop(0)
            path.unlink(missing_ok=True)
            total -= size

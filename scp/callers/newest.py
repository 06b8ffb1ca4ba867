"""The newest image of each study, known to all receiver processes of this node: one small file that each of them maps.

A slot holds one study; two that fall into the same slot take it from each other, which costs an observation. Nothing is
locked: what is read in the middle of a write does not match its checksum and is nothing. Times are the monotonic
clock's, which all processes of a machine share until it boots again. So a study goes by a name that holds for this boot
alone: what the file has of an earlier one, or of another machine, is nothing either.
"""

import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

SLOTS: Final = 8_192
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_BODY: Final = struct.Struct("<16s16sd16s")  # study, association, when, calling AE title
_SUM: Final = struct.Struct("<I")
_SLOT_BYTES: Final = _BODY.size + _SUM.size
_SIZE: Final = SLOTS * _SLOT_BYTES


@dataclass(frozen=True)
class Image:
    """The newest of a study. ago_s: since it came. same: whether over the association that was asked about."""

    ago_s: float
    sender: str
    same: bool


class Newest:
    """Remembers. path: None where one process receives alone. boot: of this machine, told apart from every other."""

    def __init__(
        self, path: Path | None = None, now: Callable[[], float] = time.monotonic, boot: bytes | None = None
    ) -> None:
        self._now = now
        self._boot = _this_boot() if boot is None else boot
        self._map = mmap.mmap(-1, _SIZE) if path is None else _mapped(path)

    def of(self, study_uid: str, association_id: str) -> Image | None:
        """The newest image of a study; None where none is remembered."""
        study = _digest(study_uid, self._boot)
        start = _slot(study)
        body, checksum = self._map[start : start + _BODY.size], self._map[start + _BODY.size : start + _SLOT_BYTES]
        if _SUM.pack(zlib.crc32(body)) != checksum:
            return None
        of, association, at, sender = _BODY.unpack(body)
        ago_s = self._now() - at
        if of != study or ago_s < 0:
            return None
        return Image(
            ago_s, sender.rstrip(b"\0").decode("ascii", "replace"), association == _digest(association_id, self._boot)
        )

    def put(self, study_uid: str, association_id: str, sender: str) -> None:
        """An image of the study came now. sender: at most 16 characters of ASCII."""
        study = _digest(study_uid, self._boot)
        start = _slot(study)
        association = _digest(association_id, self._boot)
        body = _BODY.pack(study, association, self._now(), sender.encode("ascii", "replace"))
        self._map[start : start + _SLOT_BYTES] = body + _SUM.pack(zlib.crc32(body))


def _mapped(path: Path) -> mmap.mmap:
    """All of it is allocated at once: a page that a full disk cannot give would kill the process at a write."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(file, 0, _SIZE)
        return mmap.mmap(file, _SIZE)
    finally:
        os.close(file)


@lru_cache(4096)  # an association brings many images, of few studies
def _digest(text: str, boot: bytes) -> bytes:
    return blake2b(text.encode(), digest_size=16, key=boot).digest()


def _this_boot() -> bytes:
    """Linux's name for it; nothing elsewhere, where a time in the future is all that tells."""
    try:
        return BOOT_ID.read_bytes().strip()[:64]
    except OSError:
        return b""


def _slot(study: bytes) -> int:
    return int.from_bytes(study[:4], "little") % SLOTS * _SLOT_BYTES

"""What we say of instances that a sender asks us to commit to (PS3.4 J): the list, what we hold of it, the verdicts.

A verdict rests on the bytes on the disk: the file is read again, past the page cache as far as the system lets us, and
its hash is compared with that of what was received.
"""

import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ledger.commitments import COMMITTED
from ledger.reconcile import PREAMBLE_BYTES, is_whole
from ledger.store import Store

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Failure Reasons (0008,1197), PS3.3 C.14.1.1
PROCESSING_FAILURE: Final = 0x0110
NO_SUCH_OBJECT: Final = 0x0112
CONFLICT: Final = 0x0119
DUPLICATE_TRANSACTION: Final = 0x0131
RESOURCE_LIMITATION: Final = 0x0213

_WHY: Final = {
    PROCESSING_FAILURE: "stored file damaged or gone",
    NO_SUCH_OBJECT: "had not come",
    CONFLICT: "of another SOP Class than asked for",
    DUPLICATE_TRANSACTION: "Transaction UID used before, for another list",
    RESOURCE_LIMITATION: "came longer ago than is promised",
}

ALL_COMMITTED, FAILURES_EXIST = 1, 2  # Event Type ID, PS3.4 J.3.3.1
META_AT_MOST_BYTES: Final = 1024  # preamble and file meta information of a file of ours


@dataclass(frozen=True)
class Listed:
    """One item of a Referenced SOP Sequence."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class CommitmentRequest:
    """An N-ACTION of the Storage Commitment Push Model. listed: no pair twice."""

    calling_ae_title: str
    transaction_uid: str
    listed: tuple[Listed, ...]

    @property
    def digest(self) -> str:
        """Of what is listed, in any order."""
        lines = sorted(f"{one.sop_instance_uid} {one.sop_class_uid}\n" for one in self.listed)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Holding:
    """What we know of one listed instance. The fields of the stored one are None where there is none. age_s: since it
    was received."""

    position: int
    listed: Listed
    instance_id: int | None
    sop_class_uid: str | None
    sha256: str
    size_bytes: int
    transfer_syntax_uid: str
    path: str
    age_s: float
    study_uid: str = ""
    is_removed: bool = False  # with time: ledger.retention


@dataclass(frozen=True)
class CommitmentResult:
    """What the sender is told. judged: each listed instance with 0 (we keep it) or a Failure Reason."""

    transaction_uid: str
    judged: tuple[tuple[Listed, int], ...]

    @property
    def failed(self) -> int:
        return sum(reason != COMMITTED for _, reason in self.judged)

    @property
    def event_type(self) -> int:
        return FAILURES_EXIST if self.failed else ALL_COMMITTED

    def information(self) -> "Dataset":
        """The Event Information (PS3.4 Table J.3-2)."""
        from pydicom.dataset import Dataset
        from pydicom.uid import UID

        information = Dataset()
        information.TransactionUID = UID(self.transaction_uid)
        for listed, reason in self.judged:
            item = Dataset()
            item.ReferencedSOPClassUID = UID(listed.sop_class_uid)
            item.ReferencedSOPInstanceUID = UID(listed.sop_instance_uid)
            name = "ReferencedSOPSequence" if reason == COMMITTED else "FailedSOPSequence"
            if reason != COMMITTED:
                item.FailureReason = reason
            if name not in information:
                setattr(information, name, [])
            information[name].value.append(item)
        return information


def in_words(reason: int, count: int) -> str:
    """So many instances that were refused for a reason."""
    return f"{count}: {_WHY.get(reason, 'refused')} (Failure Reason 0x{reason:04X})"


def verdict(holding: Holding, store: Store, retention_s: float) -> int:
    """0 when we keep the instance, else the Failure Reason. retention_s: what came longer ago may be gone any day."""
    if holding.instance_id is None:
        return NO_SUCH_OBJECT
    if holding.sop_class_uid != holding.listed.sop_class_uid:
        return CONFLICT
    if holding.age_s > retention_s or holding.is_removed:
        return RESOURCE_LIMITATION
    return COMMITTED if is_on_disk(holding, store.path(holding.path)) else PROCESSING_FAILURE


def is_on_disk(holding: Holding, path: Path) -> bool:
    """Whether the stored file is whole, by what the disk gives and not by what memory remembers of it: the data set by
    its hash, the file meta information by what it must name."""
    try:
        forget_cached(path)
        with path.open("rb") as file:
            head = file.read(META_AT_MOST_BYTES)
    except OSError:
        return False
    named = (holding.listed.sop_class_uid, holding.listed.sop_instance_uid, holding.transfer_syntax_uid)
    return _names(head, *named) and is_whole(path, holding.sha256, holding.size_bytes)


def is_readable(path: Path, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bool:
    """Whether the file meta information of a stored file names what it must; it is not part of the hash."""
    try:
        with path.open("rb") as file:
            return _names(file.read(META_AT_MOST_BYTES), sop_class_uid, sop_instance_uid, transfer_syntax_uid)
    except OSError:
        return False


def _names(head: bytes, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bool:
    named = {0x02: sop_class_uid, 0x03: sop_instance_uid, 0x10: transfer_syntax_uid}
    is_named = all(_meta_uid(element, uid) in head for element, uid in named.items())
    return is_named and head[PREAMBLE_BYTES - 4 : PREAMBLE_BYTES] == b"DICM"


def _meta_uid(element: int, uid: str) -> bytes:
    """A UID of group 0002 as it is stored (PS3.10 7.1)."""
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return struct.pack("<HH2sH", 2, element, b"UI", len(value)) + value


def forget_cached(path: Path) -> None:
    """Drop the file's pages from the page cache, where the system can (Linux; not those that somebody has mapped).
    Raises OSError when what is still to be written cannot be."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)  # a page that waits to be written cannot be dropped
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)

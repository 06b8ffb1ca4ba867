"""What the senders know. It is the ground truth: kept outside the node, written by nobody but the senders."""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    SENT = "unknown"  # no answer came: it may be there or not
    ACKED = "acked"
    REFUSED = "refused"


@dataclass
class Entry:
    sop_instance_uid: str
    sha256: str
    fate: Fate = Fate.SENT
    status: int = -1
    comment: str = ""


class Journal:
    """Thread-safe. One entry for each time that an instance is sent; nothing is ever taken out."""

    def __init__(self, on_ack: Callable[[Entry], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._on_ack = on_ack
        self.entries: list[Entry] = []

    def sent(self, sop_instance_uid: str, data: bytes) -> Entry:
        """Call before the first byte goes out."""
        entry = Entry(sop_instance_uid, hashlib.sha256(data).hexdigest())
        with self._lock:
            self.entries.append(entry)
        return entry

    def answered(self, entry: Entry, status: int, comment: str = "") -> None:
        entry.status, entry.comment = status, comment
        entry.fate = Fate.ACKED if status == 0 else Fate.REFUSED
        if status == 0 and self._on_ack is not None:
            self._on_ack(entry)

    def __len__(self) -> int:
        return len(self.entries)

    def acked(self) -> list[Entry]:
        return self._of(Fate.ACKED)

    def refused(self) -> list[Entry]:
        return self._of(Fate.REFUSED)

    def counts(self) -> Counter[str]:
        with self._lock:
            fates = Counter(str(entry.fate) for entry in self.entries)
        return Counter(sent=len(self.entries), acked=fates["acked"], refused=fates["refused"], unknown=fates["unknown"])

    def comments(self) -> Iterator[str]:
        return (entry.comment for entry in list(self.entries))

    def _of(self, fate: Fate) -> list[Entry]:
        with self._lock:
            return [entry for entry in self.entries if entry.fate is fate]

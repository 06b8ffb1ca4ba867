"""Rebuild a folder as a power cut at any point of a trace would leave it, as strictly as POSIX allows.

Bytes are durable once a sync of their file, begun after they were written, has ended; a name once a sync of its folder,
begun after it was made, has ended. Everything else survives or not, as chance has it: single sectors of a write, the
size without the bytes, a new name without the old one's end. After a sync of a file that failed, the bytes that it was
to write are lost for good: the kernel has marked them clean, and a later sync that succeeds does not write them.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tests.torture.shim import ACK, MAGIC, RECORD

(CREATE, OPEN, WRITE, TRUNC, SYNC_BEGIN, SYNC_END, SYNC_FAIL, RENAME, UNLINK, MKDIR, RMDIR, LINK, ALLOC) = range(1, 14)
UNMODELLED = 15
WHOLE_VOLUME, DIRECTORY = 1, 2
SECTOR = 512
PASSING = (("run",), ("newest",))  # of a state folder: nothing in there need survive a start


class Record(NamedTuple):
    kind: int
    flags: int
    ino: int
    offset: int
    token: int
    path: str
    path2: str
    data: memoryview


class Unmodelled(RuntimeError):
    """The node changed a file in a way that the model does not know: extend the model."""


def read_trace(path: Path) -> list[Record]:
    """Raises ValueError where a record was cut short: what came after it could not be believed."""
    content = memoryview(path.read_bytes())
    records, at = [], 0
    while at < len(content):
        if len(content) - at < RECORD.size:
            raise ValueError(f"the trace ends within a record, at byte {at:,}")
        magic, kind, flags, ino, offset, token, len1, len2, len3 = RECORD.unpack_from(content, at)
        if magic != MAGIC or at + RECORD.size + len1 + len2 + len3 > len(content):
            raise ValueError(f"the trace has a hole at or before byte {at:,}")
        at += RECORD.size
        path1 = bytes(content[at : at + len1]).decode()
        path2 = bytes(content[at + len1 : at + len1 + len2]).decode()
        at += len1 + len2
        records.append(Record(kind, flags, ino, offset, token, path1, path2, content[at : at + len3]))
        at += len3
    return records


@dataclass
class Change:
    """One change of a file's bytes or size. data None: `end` is the new size."""

    offset: int
    data: memoryview | None
    end: int
    grows_only: bool = False
    durable: bool = False
    lost: bool = False


@dataclass
class File:
    changes: list[Change] = field(default_factory=list)
    base: Path | None = None  # what was there before the trace began


@dataclass
class Naming:
    """One change of a folder: names that now mean something else (None: nothing). One that is a pair is atomic."""

    names: dict[str, "File | Folder | None"]
    durable: bool = False


@dataclass
class Folder:
    changes: list[Naming] = field(default_factory=list)


Node = File | Folder
Ignored = Callable[[Record], bool]


class Disk:
    """What a disk would hold. Feed it records in order; `rebuild` whenever the power is to fail."""

    def __init__(self, root: Path, ignored: Ignored = lambda record: False, base: Path | None = None) -> None:
        """ignored: syncs that the node is to have forgotten. base: a copy of what is below `root` already."""
        self._root = PurePosixPath(root)
        self._ignored = ignored
        self._top = Folder()
        self._now: dict[PurePosixPath, Node] = {self._root: self._top}
        self._inodes: dict[int, File] = {}
        self._syncs: dict[int, list[tuple[File | Folder, int]]] = {}
        self.acked: list[tuple[str, str]] = []
        if base is not None:
            self._load(root, base)

    def _load(self, root: Path, base: Path) -> None:
        for live in sorted(root.rglob("*")):
            if live.is_dir():
                self._name(PurePosixPath(live), Folder(), durable=True)
            elif live.is_file():
                file = File(base=base / live.relative_to(root))
                self._inodes[live.stat().st_ino] = file
                self._name(PurePosixPath(live), file, durable=True)

    def feed(self, record: Record) -> None:
        if record.kind == ACK:
            self.acked.append((record.path, record.path2))
        elif record.kind == UNMODELLED:
            self._check(record)
        elif record.kind in (SYNC_BEGIN, SYNC_END, SYNC_FAIL):
            if not self._ignored(record):
                self._sync(record)
        elif record.kind in (WRITE, TRUNC, ALLOC):
            self._change(record)
        else:
            self._rename(record)

    def _check(self, record: Record) -> None:
        """Only what need not survive may be written in ways that are not modelled."""
        place = PurePosixPath(record.path2 or record.path)
        if not place.is_relative_to(self._root) or place.relative_to(self._root).parts[:1] not in PASSING:
            raise Unmodelled(f"{record.path} of {place}")

    # --- bytes ---

    def _change(self, record: Record) -> None:
        file = self._inodes.get(record.ino)
        if file is None:
            return  # of a file that was opened before it was watched
        if record.kind == WRITE:
            end = record.offset + len(record.data)
            file.changes.append(Change(record.offset, record.data, end))
        else:
            file.changes.append(Change(0, None, record.offset, grows_only=record.kind == ALLOC))

    # --- names ---

    def _name(self, path: PurePosixPath, node: Node | None, durable: bool = False) -> None:
        folder = self._now.get(path.parent)
        if not isinstance(folder, Folder):
            return  # outside what is watched
        folder.changes.append(Naming({path.name: node}, durable))
        if node is None:
            self._now.pop(path, None)
        else:
            self._now[path] = node

    def _rename(self, record: Record) -> None:
        path = PurePosixPath(record.path)
        if record.kind == CREATE:
            self._inodes[record.ino] = file = File()
            self._name(path, file)
        elif record.kind == OPEN:
            known = self._now.get(path)
            if isinstance(known, File):
                self._inodes[record.ino] = known
        elif record.kind == MKDIR and not isinstance(self._now.get(path), Folder):  # else found there by another
            self._name(path, Folder())
        elif record.kind in (UNLINK, RMDIR):
            self._name(path, None)
        elif record.kind in (RENAME, LINK):
            self._move(path, PurePosixPath(record.path2), keeps=record.kind == LINK)

    def _move(self, old: PurePosixPath, new: PurePosixPath, keeps: bool) -> None:
        node = self._now.get(old)
        if isinstance(node, Folder):
            raise Unmodelled("the renaming of a folder")
        if node is None:
            return
        folder = self._now.get(old.parent)
        if not keeps and old.parent == new.parent and isinstance(folder, Folder):
            folder.changes.append(Naming({new.name: node, old.name: None}))
            self._now.pop(old)
            self._now[new] = node
            return
        self._name(new, node)
        if not keeps:
            self._name(old, None)

    # --- sync ---

    def _sync(self, record: Record) -> None:
        if record.kind == SYNC_BEGIN:
            self._syncs[record.token] = [(node, len(node.changes)) for node in self._of(record)]
            return
        for node, count in self._syncs.pop(record.token, ()):
            for change in node.changes[:count]:
                if record.kind == SYNC_END:
                    change.durable = not (isinstance(change, Change) and change.lost)
                elif isinstance(change, Change) and not change.durable:
                    change.lost = True

    def _of(self, record: Record) -> list[Node]:
        if record.flags & WHOLE_VOLUME:
            return [*self._inodes.values(), *(node for node in self._now.values() if isinstance(node, Folder))]
        if record.flags & DIRECTORY:
            folder = self._now.get(PurePosixPath(record.path))
            return [folder] if isinstance(folder, Folder) else []
        file = self._inodes.get(record.ino)
        return [file] if file is not None else []

    # --- after the cut ---

    def rebuild(self, target: Path, rng: random.Random, survival: float) -> None:
        """Write what the disk holds to `target`. survival: the chance of each thing that was not made durable."""
        target.mkdir(mode=0o700)
        self._lay(self._top, target, rng, survival)

    def _lay(self, folder: Folder, target: Path, rng: random.Random, survival: float) -> None:
        names: dict[str, Node | None] = {}
        for change in folder.changes:
            if change.durable or rng.random() < survival:
                names.update(change.names)
        for name, node in names.items():
            if isinstance(node, Folder):
                (target / name).mkdir(mode=0o700)
                self._lay(node, target / name, rng, survival)
            elif node is not None:
                (target / name).write_bytes(content(node, rng, survival))
                (target / name).chmod(0o600)


def content(file: File, rng: random.Random, survival: float) -> bytes:
    """The bytes of a file after the cut."""
    held = bytearray(file.base.read_bytes() if file.base else b"")
    for change in file.changes:
        if change.durable:
            _apply(held, change)
        elif not change.lost and survival:
            _apply_torn(held, change, rng, survival)
    return bytes(held)


def _apply(held: bytearray, change: Change) -> None:
    if change.data is None:
        _resize(held, max(len(held), change.end) if change.grows_only else change.end)
        return
    _resize(held, max(len(held), change.end))
    held[change.offset : change.end] = change.data


def _apply_torn(held: bytearray, change: Change, rng: random.Random, survival: float) -> None:
    if change.data is None:
        if rng.random() < survival:
            _apply(held, change)
        return
    if rng.random() < survival:  # the size, with or without the bytes
        _resize(held, max(len(held), change.end))
    for start, end in _sectors(change.offset, change.end):
        if rng.random() < survival:
            _resize(held, max(len(held), end))
            held[start:end] = change.data[start - change.offset : end - change.offset]


def _sectors(start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        yield start, stop
        start = stop


def _resize(held: bytearray, size: int) -> None:
    if size < len(held):
        del held[size:]
    else:
        held.extend(bytes(size - len(held)))

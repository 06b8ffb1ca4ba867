"""Chain heads of the audit trail outside the ledger: one JSON object a line, only ever appended to."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from config import Settings
from ledger.sealing import Head


@dataclass(frozen=True)
class Exported:
    """A line of the file, or of a log: what is needed of it."""

    sequence: int
    digest: str
    at: float = 0.0  # when it was sealed, in seconds since 1970; 0: the line does not say


def heads_file(settings: Settings) -> Path:
    named = settings.audit.heads_file
    return settings.node.state_dir / "audit" / "heads.jsonl" if named == Path() else named


def append(path: Path, head: Head, installation_uid: str) -> None:
    """Durable when it returns. The file and its folder are the node's own. Raises OSError.

    After a line that a crash cut short it begins one of its own: glued to that, neither could be read.
    """
    is_new = not path.exists()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    line = {"sequence": head.sequence, "digest": head.digest, "at": head.sealed_at, "installation": installation_uid}
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        begin = b"\n" if _is_cut_short(descriptor) else b""
        whole = begin + json.dumps(line).encode() + b"\n"
        os.write(descriptor, whole)  # one write: a line is there whole or not at all
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        _sync_folder(path.parent)


def _is_cut_short(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> Iterator[Exported]:
    """Every head in a file; of a log every line that holds one. A line that a crash cut short is passed over.

    Raises OSError.
    """
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if head := _parsed(line):
                yield head


def by_sequence(heads: Iterator[Exported]) -> dict[int, set[str]]:
    """As `Ledger.verify_audit` takes them."""
    found: dict[int, set[str]] = {}
    for head in heads:
        found.setdefault(head.sequence, set()).add(head.digest)
    return found


def last(path: Path) -> Exported | None:
    """The head of the highest sequence among the newest lines; None when there is no file, or no head in it."""
    return next(iter(newest(path)), None)


def newest(path: Path) -> list[Exported]:
    """Those of the newest lines, some hundreds, the highest sequence first. Raises OSError."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    return sorted((head for line in lines if (head := _parsed(line))), key=lambda head: -head.sequence)


def which_file(path: Path) -> tuple[int, int]:
    """Other than before once the file was put away and another begun."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino


def _parsed(line: str) -> Exported | None:
    try:
        said = json.loads(line)
        return Exported(int(said["sequence"]), str(said["digest"]), float(said.get("at", 0.0)))
    except (ValueError, KeyError, TypeError):
        return None

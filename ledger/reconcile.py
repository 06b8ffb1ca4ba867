"""At start-up: hold the store and the ledger against each other before anything is received."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select

from ledger.store import Store
from ledger.tables import instances, objects

PREAMBLE_BYTES = 132  # 128 and "DICM", PS3.10 7.1
NEWEST_HASHED = 200  # the instances a crash could have touched; the rest is for a scrubber


@dataclass
class Reconciliation:
    """What was found. `lost` must be empty for ever: an acknowledged instance that is gone or changed."""

    parts_deleted: int = 0
    orphans_moved: int = 0
    results_deleted: int = 0
    jobs_requeued: int = 0
    lost: list[str] = field(default_factory=list)  # SOP Instance UIDs


def reconcile_store(connection: Connection, store: Store) -> Reconciliation:
    """Sweep half-written files, set unknown ones aside, and name every acknowledged instance that is not whole."""
    found = Reconciliation(parts_deleted=store.sweep_parts())
    known = set(connection.execute(select(instances.c.path)).scalars())
    found.orphans_moved = _set_aside(store, "instances", known)
    known = set(connection.execute(select(objects.c.path)).scalars())
    found.results_deleted = _delete_unknown(store, "objects", known)
    rows = connection.execute(select(instances).order_by(instances.c.id.desc())).all()
    for position, row in enumerate(rows):
        path = store.path(row.path)
        if not is_whole(path, row.sha256 if position < NEWEST_HASHED else None, row.size_bytes):
            found.lost.append(row.sop_instance_uid)
    return found


def dataset_sha256(path: Path) -> str:
    """SHA-256 of the data set of a Part 10 file that this node wrote: what follows the file meta information."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        head = file.read(PREAMBLE_BYTES + 12)
        # (0002,0000) UL 4: the length of the rest of group 2, explicit VR little endian (PS3.10 7.1)
        meta_length = int.from_bytes(head[PREAMBLE_BYTES + 8 :], "little")
        file.seek(meta_length, os.SEEK_CUR)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def is_whole(path: Path, sha256: str | None, size_bytes: int | None = None) -> bool:
    """Whether a stored file is there with this data set, or size. One that cannot be read is not."""
    try:
        if size_bytes is not None and path.stat().st_size != size_bytes:
            return False
        return sha256 is None or dataset_sha256(path) == sha256
    except OSError:
        return False


def _unknown(store: Store, kind: str, known: set[str]) -> list[str]:
    return [
        relative
        for shard in os.listdir(store.root / kind)
        for name in os.listdir(store.root / kind / shard)
        if (relative := f"{kind}/{shard}/{name}") not in known
    ]


def _set_aside(store: Store, kind: str, known: set[str]) -> int:
    """Never acknowledged, yet whole: kept in orphans/ for a person, never analysed."""
    unknown = _unknown(store, kind, known)
    folder = store.root / "orphans"
    if unknown:
        folder.mkdir(mode=0o700, exist_ok=True)
    for relative in unknown:
        store.path(relative).rename(folder / Path(relative).name)
    return len(unknown)


def _delete_unknown(store: Store, kind: str, known: set[str]) -> int:
    """Result objects of a commit that never happened: never sent, and rebuilt by their job."""
    unknown = _unknown(store, kind, known)
    for relative in unknown:
        store.path(relative).unlink(missing_ok=True)
    return len(unknown)

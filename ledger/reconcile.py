"""At start-up: hold the store and the ledger against each other before anything is received."""

import hashlib
import os
import re
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select

from ledger import damage, removal
from ledger.clinical import clinical
from ledger.store import Store
from ledger.tables import damaged_files, instances, objects

PREAMBLE_BYTES = 132  # 128 and "DICM", PS3.10 7.1
NEWEST_HASHED = 200  # the instances a crash could have touched; the rest is for a scrubber
NEWEST_SOUGHT = 20
_NAMED_BY_HASH = re.compile(r"([0-9a-f]{64})-")
ALARMED_MAX = 1_000  # by name, until they are healed: an alarm of a thousand is loud enough


@dataclass
class Reconciliation:
    """What was found. `lost` must be empty for ever: an acknowledged instance that is gone or changed."""

    parts_deleted: int = 0
    orphans_moved: int = 0
    results_deleted: int = 0
    jobs_requeued: int = 0
    lost: list[str] = field(default_factory=list)  # SOP Instance UIDs


def reconcile_store(connection: Connection, store: Store) -> Reconciliation:
    """Sweep half-written files, set other unknown ones aside, and name each acknowledged instance that is not whole."""
    found = Reconciliation(parts_deleted=store.sweep_parts())
    removal.finish(connection, store)  # before anything is taken for unknown
    known = set(connection.execute(select(instances.c.path)).scalars())
    unknown = _unknown(store, "instances", known)
    torn = {relative for relative in unknown if _is_torn(store.path(relative))}
    found.parts_deleted += _delete(store, torn)
    found.orphans_moved = _set_aside(store, [relative for relative in unknown if relative not in torn])
    known = set(connection.execute(select(objects.c.path)).scalars())
    found.results_deleted = _delete(store, _unknown(store, "objects", known))  # never sent, and rebuilt by their job
    patients = clinical(instances.c.study_uid)  # of a heartbeat, files go before rows
    rows = connection.execute(
        select(instances).where(patients, instances.c.removed_at.is_(None)).order_by(instances.c.id.desc())
    ).all()
    lost: list[damage.Damaged] = []
    for position, row in enumerate(rows):
        path = store.path(row.path)
        if not is_whole(path, row.sha256 if position < NEWEST_HASHED else None, row.size_bytes):
            found.lost.append(row.sop_instance_uid)
            lost.append(damage.Damaged(row.id, row.sop_instance_uid, row.study_uid))
    damage.found(connection, lost[:ALARMED_MAX])
    damage.whole(connection, _healed(connection, store))
    return found


def is_there(connection: Connection, store: Store) -> bool:
    """Whether the store can be the one that the ledger speaks of: of its newest images at least one lies there."""
    kept = select(instances.c.path).where(instances.c.removed_at.is_(None), clinical(instances.c.study_uid))
    newest = connection.execute(kept.order_by(instances.c.id.desc()).limit(NEWEST_SOUGHT)).scalars().all()
    return not newest or any(store.path(path).exists() for path in newest)


def _healed(connection: Connection, store: Store) -> list[int]:
    """What was taken for damaged and is not: a volume that was not there is there again."""
    marked = select(instances).join(damaged_files, damaged_files.c.instance_id == instances.c.id)
    rows = connection.execute(marked.limit(ALARMED_MAX)).all()
    return [row.id for row in rows if is_whole(store.path(row.path), row.sha256, row.size_bytes)]


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


def _is_torn(path: Path) -> bool:
    """Whether an unknown file does not hold what its name says: it was renamed, and its bytes not synced yet. One that
    cannot be read, or is named otherwise, may be whole."""
    named = _NAMED_BY_HASH.match(path.name)
    try:
        return named is not None and _is_file(path) and dataset_sha256(path) != named[1]
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(os.lstat(path).st_mode)


def _set_aside(store: Store, unknown: Sequence[str]) -> int:
    """Never acknowledged, yet whole: kept in orphans/ for a person, never analysed. After a mere crash what was read
    may be in memory only, so it is synced: an orphan is whole after a power cut too."""
    if not unknown:
        return 0
    folder = store.root / "orphans"
    folder.mkdir(mode=0o700, exist_ok=True)
    for path in map(store.path, unknown):
        if _is_file(path):
            _sync(store, path)
        path.rename(folder / path.name)
    store.sync_folder(folder)
    return len(unknown)


def _sync(store: Store, path: Path) -> None:
    """Raises VolumeFailed. What cannot even be opened is set aside as it is."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        store.sync_file(fd)
    finally:
        os.close(fd)


def _delete(store: Store, unknown: Collection[str]) -> int:
    for relative in unknown:
        store.path(relative).unlink(missing_ok=True)
    return len(unknown)

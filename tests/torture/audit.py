"""After a round: hold the senders' journal against what the node has. I1, I4 and I5 of docs/torture.md."""

from pathlib import Path

from sqlalchemy import func, select

from ledger.database import transaction
from ledger.ledger import Ledger
from ledger.reconcile import Reconciliation, is_whole
from ledger.store import Store
from ledger.tables import instances
from tests.torture import sentinel
from tests.torture.experiment import Arm, Context
from tests.torture.journal import Journal


def audit(context: Context, arm: Arm, journal: Journal, state: Path | None = None, url: str = "") -> None:
    """Count into `arm` what is missing, corrupt, twice there or left over in the node's `state` folder.

    The node must be dead. Its own start-up reconciliation runs first, as it would at the next start.
    """
    state = state or context.folder / "state"
    store = Store(state / "store")
    ledger = Ledger.open(url or f"sqlite:///{state / 'ledger.sqlite'}", store)
    try:
        found = ledger.reconcile()
        compare(ledger, journal, arm)
        count_leftovers(ledger, store, found, arm)
    finally:
        ledger.close()
    arm.counts.update(journal.counts())
    _, _, named = sentinel.scan(state, state)
    arm.counts["phi"] += len(named) + sum(sentinel.hits_in(comment.encode()) for comment in journal.comments())
    arm.require(not arm.counts["phi"], f"the patient is named outside the store: {named[:3]}")


def compare(ledger: Ledger, journal: Journal, arm: Arm) -> tuple[int, int]:
    """I1: every acknowledged instance has its row, and a file with the bytes that were sent. (missing, corrupt)"""
    missing = corrupt = 0
    for entry in journal.acked():
        ref = ledger.find_instance(entry.sop_instance_uid, entry.sha256)
        path = ledger.store.path(ref.path) if ref else None
        if path is None or not path.exists():
            missing += 1
        elif not is_whole(path, entry.sha256):
            corrupt += 1
    arm.counts["missing"] += missing
    arm.counts["corrupt"] += corrupt
    arm.require(not missing, f"{missing} acknowledged instances are missing")
    arm.require(not corrupt, f"{corrupt} acknowledged instances are not what was sent")
    return missing, corrupt


def count_leftovers(ledger: Ledger, store: Store, found: Reconciliation, arm: Arm) -> None:
    """I4: nothing partial stays, nothing is there twice, and the node itself misses nothing."""
    arm.counts["orphans"] += found.orphans_moved
    arm.counts["parts swept"] += found.parts_deleted
    arm.require(not found.lost, f"reconciliation itself names {len(found.lost)} instances as lost")
    left = len(list((store.root / "parts").iterdir()))
    arm.counts["leftovers"] += left
    arm.require(not left, f"{left} part files are left after a restart")
    with transaction(ledger._engine, write=False) as connection:
        rows = select(func.count()).select_from(instances).group_by(instances.c.sop_instance_uid, instances.c.sha256)
        twice = sum(count - 1 for count in connection.execute(rows).scalars())
    arm.counts["duplicated"] += twice
    arm.require(not twice, f"{twice} instances stand twice in the ledger")

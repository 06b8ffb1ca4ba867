"""A worker process that dies of one instance, as a segmentation fault would: python -m tests.support.poisoned_worker
FOLDER SOP_INSTANCE_UID HOW, where HOW is "die" or "raise"."""

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from ledger.records import Job, Stage
from node.running.lease import LeaseKeeper
from node.running.worker import Worker
from node.wiring import owner
from tests.support import ledgers


def main(folder: Path, poison: str, how: str) -> None:
    """Work until nothing is left that this process may take now."""
    ledger = ledgers.open_fresh(folder)
    stop = threading.Event()

    def work(jobs: Sequence[Job], keeper: LeaseKeeper) -> None:
        for job in jobs:
            assert job.instance is not None
            if job.instance.sop_instance_uid == poison:
                if how == "die":
                    os._exit(9)
                raise RuntimeError("SENTINEL")
        for job in jobs:
            ledger.finish_analysis(job, [ledgers.analysed()])

    def watch() -> None:
        while any(
            key.startswith("analyse:") and key.endswith((":queued", ":running")) for key in ledger.counts()["jobs"]
        ):
            stop.wait(0.05)
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    Worker(ledger, Stage.ANALYSE, owner("analyse"), 30.0, 3, 8, work, stop).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])

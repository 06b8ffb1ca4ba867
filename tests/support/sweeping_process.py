"""A process that removes everything it may of a ledger's studies, again and again, until it is killed.

It stops where it may be killed, "rows" when rows are committed and their files are still there, "file" when one file
more is gone, says so and goes on when it is told to. `early` is the fault of the control: files first, then rows.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ledger import removal
from ledger.ledger import Ledger
from ledger.retention import Rules
from ledger.store import Store

RULES = Rules(images_s=1.0, results_s=1.0)


def stop(where: str) -> None:
    print(where, flush=True)
    sys.stdin.readline()


def step_by_step() -> None:
    unlink, finish_all = removal.unlink, removal.finish_all

    def one_by_one(store: Store, paths: Sequence[str]) -> None:
        for path in paths:
            unlink(store, [path])
            stop("file")

    def after_the_rows(*of: Any) -> int:
        stop("rows")
        return finish_all(*of)

    removal.unlink, removal.finish_all = one_by_one, after_the_rows


def main(folder: Path, fault: str) -> None:
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}", Store(folder / "store"))
    step_by_step()
    if fault == "early":
        queue = removal.queue
        removal.queue = lambda connection, paths: (
            removal.unlink(ledger.store, found := list(paths)),
            queue(connection, found),
        )  # type: ignore[assignment, return-value]
    print("ready", flush=True)
    while ledger.remove_old(RULES, of_images=True, limit=5).studies:
        ledger.remove_old(RULES, of_images=False, limit=5)
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

"""A worker: `python -m tests.torture.claimer STATE_FOLDER [no-watch]`. Says what falls due at each look.

It looks when it is told to, with a line on its standard input, so that no clock is set in the middle of a look. Its
answer is one line: the stages of what it claimed, perhaps none. An analysis is parked, so that its report may follow.
"""

import sys
from pathlib import Path

from ledger.ledger import Ledger
from ledger.records import Stage
from ledger.store import Store
from node.logging import configure
from node.running.clock import ClockWatch


def main(state: Path, watches: bool) -> None:
    configure("error", "torture")  # standard output is for what is said below
    ledger = Ledger.open(f"sqlite:///{state / 'ledger.sqlite'}", Store(state / "store"))
    clock = ClockWatch(ledger)
    print("ready", flush=True)
    for _ in sys.stdin:
        if watches:
            clock.look()  # as the node's supervisor does
        said = []
        for job in ledger.claim(Stage.ANALYSE, "torture:analyse:1:", 10, 600.0):
            said.append("analysis")
            ledger.park(job, "not analysed here")
        said += ["report" for _ in ledger.claim(Stage.REPORT, "torture:report:1:", 10, 600.0)]
        print(*said, flush=True)
    ledger.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] != ["no-watch"])

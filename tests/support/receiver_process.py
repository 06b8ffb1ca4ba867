"""A receiver in a process of its own, to be killed: python -m tests.support.receiver_process FOLDER FAULT

Prints its port. FAULT: "none", or a way to break the acknowledgement contract on purpose, so that the test that
counts losses is seen to find them.
"""

import sys
import threading
import time
from pathlib import Path

from ledger.store import PartFile
from scp.admission.admitter import AdmissionSink
from scp.status import SUCCESS, Answer
from tests.support.receiving import start_receiving


def answer_early() -> None:
    """Success first, the work a little later."""
    real = AdmissionSink.commit

    def commit(self: AdmissionSink) -> Answer:
        def later() -> None:
            time.sleep(1.0)  # longer than a busy machine takes to kill after the answer was heard
            real(self)

        threading.Thread(target=later, daemon=True).start()
        return Answer(SUCCESS)

    AdmissionSink.commit = commit  # type: ignore[method-assign]


def skip_finish() -> None:
    """The ledger says stored, the file never got its name."""

    def seal(self: PartFile, relative: str) -> Path:
        folder = self._store.path(relative).parent
        self._store.prepare_shard(folder)
        return folder

    PartFile.seal = seal  # type: ignore[method-assign]


FAULTS = {"none": lambda: None, "early": answer_early, "unfinished": skip_finish}


def main(folder: Path, fault: str) -> None:
    FAULTS[fault]()
    running = start_receiving(folder)
    running.store.sweep_parts()
    print(running.address[1], flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

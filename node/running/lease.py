"""Keep the leases of long work alive from a thread of its own."""

import threading
from collections.abc import Sequence
from types import TracebackType

from ledger.errors import LeaseLost, RetryableError
from ledger.ledger import Ledger
from ledger.records import Job


class LeaseKeeper:
    """Renews each job's lease three times per lease while the block runs.

    A lost lease is not fought for: the ledger refuses the publication by the job's generation.
    """

    def __init__(self, ledger: Ledger, jobs: Sequence[Job], lease_s: float) -> None:
        self._ledger = ledger
        self._jobs = list(jobs)
        self._lease_s = lease_s
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> "LeaseKeeper":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def release(self, job: Job) -> None:
        """This job is finished: stop renewing it."""
        with self._lock:
            self._jobs = [other for other in self._jobs if other.job_id != job.job_id]

    def _keep(self) -> None:
        while not self._done.wait(self._lease_s / 3):
            for job in self._current():
                try:
                    self._ledger.renew(job, self._lease_s)
                except LeaseLost:
                    self.release(job)
                except RetryableError:
                    continue

    def _current(self) -> list[Job]:
        with self._lock:
            return list(self._jobs)

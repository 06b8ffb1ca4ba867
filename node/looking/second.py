"""The second look: what was claimed before and not finished is looked at by itself, by models in a process of its own.

Most likely the process that runs the models died of it, or of an image that was computed beside it. Here it can take
nobody along and keeps nobody waiting, and is put aside after as many attempts as the settings allow; what is innocent
is looked at as ever. The models are loaded when the first such image comes, and let go when none has come for a while.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

import structlog

from inference.aside import Apart
from inference.errors import ModelsGone
from inference.model_host import ModelHost
from ledger.ledger import Ledger
from ledger.records import ImageResult, Job, ResultStatus, TriagePriority
from node import log_events
from node.running.lease import LeaseKeeper
from node.running.worker import POLL_S, Worker

IDLE_S: Final = 20.0
NO_MODELS_S: Final = 15.0
GIVEN_BACK_S: Final = 3.0  # once its models are ended
TAKEN_S: Final = 0.05  # what was due is another machine's
Work = Callable[[Sequence[Job], LeaseKeeper], None]


@dataclass
class SecondWorker(Worker):
    """The loop of what was tried before: one at a time, and no transaction while there is none."""

    called: threading.Event = field(default_factory=threading.Event)  # one was just given back
    on_idle: Callable[[], None] = lambda: None
    on_work: Callable[[], None] = lambda: None
    _worked_at: float = field(default_factory=monotonic)

    def _once(self) -> None:
        due_in_s = self.ledger.due_in_s(self.stage, tried=True)
        if due_in_s is None or due_in_s > 0:
            if monotonic() - self._worked_at > IDLE_S:
                self.on_idle()
            self.called.wait(POLL_S if due_in_s is None else min(POLL_S, due_in_s))
            self.called.clear()
        elif jobs := self.ledger.claim(self.stage, self.owner, 1, self.lease_s, tried=True):
            self.on_work()
            self._work(jobs)
            self._worked_at = monotonic()
        else:
            self.stop.wait(TAKEN_S)


class Lost:
    """What becomes of a job whose image took the process that runs the models with it, or could not be given one."""

    def __init__(
        self, ledger: Ledger, max_attempts: int, stop: threading.Event, call: Callable[[], None] = lambda: None
    ) -> None:
        self._ledger, self._max_attempts, self._stop, self._call = ledger, max_attempts, stop, call

    def at_last(self, job: Job) -> bool:
        """No attempt is left, and this one was not cut short by the role's end, which is not the image's doing."""
        return job.attempt >= self._max_attempts and not self._stop.is_set()

    def give_back(self, job: Job, reason: str, delay_s: float = 0.0, is_final: bool = True) -> None:
        """To be looked at by itself; parked after the last attempt, if that was one with all the time there is, in a
        process that was not sick: is_final. Raises LeaseLost."""
        log = structlog.get_logger().bind(job_id=job.job_id, stage=job.stage.value, attempt=job.attempt)
        if is_final and self.at_last(job):
            reason = f"Stopped after {job.attempt} attempts: {reason[:1].lower()}{reason[1:]}"
            log.error(log_events.JOB_PARKED, reason=reason)
            self._ledger.park(job, reason, failed(reason))
            return
        log.warning(log_events.JOB_RETRIED, reason=reason)
        self._ledger.retry(job, reason, delay_s)
        self._call()


class SecondLook:
    """Runs `worker` in a thread of its own; when that ends by an error, so does the role: `stop` is set."""

    def __init__(self, worker: SecondWorker, looker: Apart, host: ModelHost) -> None:
        self._worker, self._looker, self._host = worker, looker, host
        self._worker.on_idle = self._rest
        self._worker.on_work = self._warm
        self._thread = threading.Thread(target=self._run, name="second-look", daemon=True)
        self.called = worker.called
        self.error: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def close(self, within_s: float) -> None:
        """Once `stop` is set: let it finish what it looks at, or give it back."""
        self._worker.called.set()
        self._thread.join(within_s)
        self._host.close()
        self._thread.join(GIVEN_BACK_S)
        self._looker.close()

    def _run(self) -> None:
        try:
            self._worker.run()
        except BaseException as error:  # noqa: BLE001  the thread's top: whoever waits for the role raises it again
            self.error = error
            self._worker.stop.set()

    def _warm(self) -> None:
        """Models are loaded while the image is decoded."""
        threading.Thread(target=self._host.warm, name="warm", daemon=True).start()

    def _rest(self) -> None:
        self._looker.rest()
        self._host.rest()


def second_work(work: Work, by_the_others: Work, lost: Lost) -> Work:
    """As `work`; where its models cannot be loaded beside the others, the others are not to suffer for it, until
    nothing else is left: nothing is put aside that no model ever saw by itself."""

    def careful(jobs: Sequence[Job], keeper: LeaseKeeper) -> None:
        try:
            work(jobs, keeper)
        except ModelsGone as error:
            for job in jobs:
                if lost.at_last(job):
                    by_the_others([job], keeper)
                else:
                    keeper.release(job)
                    lost.give_back(job, f"{error}.", NO_MODELS_S)

    return careful


def failed(reason: str) -> ImageResult:
    """What is said of an image that could not be judged in any attempt: listed above LOW, never as LOW."""
    return ImageResult(ResultStatus.FAILED, reason, "attempts_exhausted", TriagePriority.NOT_ASSESSED)

"""The loop towards one peer outside, which every thread of the deliver role runs: claim under a lease, talk, end each
job. While the peer is away one job at a time probes it, at growing intervals; no job is ever parked for that.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

import structlog

from config.settings import DeliverSettings
from ledger.errors import LeaseLost, LedgerUnavailable
from ledger.ledger import Ledger
from ledger.records import Job, Stage
from node import log_events
from node.logging import describe
from node.running.lease import LeaseKeeper
from node.running.outage import OUTAGE
from node.wiring import owner
from sr_writer import backoff
from sr_writer.errors import Unreachable

POLL_S = 1.0  # the fallback: a commit wakes us first


class Round(Protocol):
    """One job while its peer is talked to: what came of it so far."""

    @property
    def job(self) -> Job:
        """Held until `end`."""

    def end(self, reason: str, delay_s: float) -> None:
        """Finish or park the job; where it must be tried again: after `delay_s`, for `reason` if it knows no better.

        Raises LeaseLost.
        """


R = TypeVar("R", bound=Round)


class Loop(ABC):
    """Towards one peer. `_once` claims and talks; a peer that is away is waited for here."""

    kind: ClassVar[str] = "destination"
    unreachable: ClassVar[str]  # the log event

    def __init__(self, ledger: Ledger, settings: DeliverSettings, key: str, stop: threading.Event) -> None:
        self._ledger = ledger
        self._settings = settings
        self._key = key
        self._stop = stop
        self._owner = owner("deliver")
        self._failures = 0
        self._log = structlog.get_logger().bind(**{self.kind: key})

    def thread(self) -> threading.Thread:
        """That runs the loop; not started."""
        return threading.Thread(target=self.run, name=f"{type(self).__name__} {self._key}", daemon=True)

    def run(self) -> None:
        """Loop until stopped."""
        while not self._stop.is_set():
            try:
                self._once()
                OUTAGE.back()
            except LedgerUnavailable as error:
                OUTAGE.away(error)
                self._stop.wait(POLL_S)
            except Exception:  # noqa: BLE001  loop top: record and go on
                self._log.error(log_events.LOOP_FAILED, exc_info=True)
                self._stop.wait(POLL_S)

    @abstractmethod
    def _once(self) -> None:
        """Do what is due, or wait a while for something to become due."""

    def _not_there(self, error: Exception) -> float:
        """Say that the peer could not be reached; for how long it is left alone now, in seconds."""
        self._failures += 1
        delay_s = backoff.delay_s(self._failures, self._settings)
        self._log.warning(self.unreachable, reason=str(error), retry_in_s=round(delay_s, 1))
        return delay_s


class Outward(Loop, Generic[R]):
    """One stage's loop towards one destination or adapter."""

    stage: ClassVar[Stage]
    at_once: ClassVar[int] = 1  # jobs, while the peer is there

    @abstractmethod
    def _begin(self, job: Job) -> R:
        """What the peer is to be talked to about."""

    @abstractmethod
    def _talk(self, rounds: Sequence[R]) -> None:
        """Tell each round what the peer said. Raises Unreachable when it is away."""

    def _is_back(self) -> None:
        """The peer was away and is not any more."""

    def _once(self) -> None:
        limit = 1 if self._failures else self.at_once
        jobs = self._ledger.claim(self.stage, self._owner, limit, self._settings.lease_s, self._key)
        if not jobs:
            self._ledger.wait(self.stage, POLL_S, self._key)
            return
        with LeaseKeeper(self._ledger, jobs, self._settings.lease_s):
            self.work(jobs)

    def work(self, jobs: Sequence[Job]) -> None:
        """Talk about claimed jobs and end each of them."""
        rounds = [self._begin(job) for job in jobs]
        delay_s = backoff.delay_s(max(job.attempt for job in jobs), self._settings)
        try:
            self._talk(rounds)
        except Unreachable as error:
            self._away(rounds, error)
        except LedgerUnavailable:
            raise  # the leases run out and somebody tries again
        except Exception as error:  # noqa: BLE001  loop top: these jobs wait, the next ones go on
            self._log.error(log_events.JOB_FAILED, exc_info=error)
            self._end(rounds, f"unexpected error: {describe(error)}", delay_s)
        else:
            if self._failures:
                self._is_back()
            self._failures = 0
            self._end(rounds, f"the {self.kind} asked to try again later", delay_s)

    def _away(self, rounds: Sequence[R], error: Unreachable) -> None:
        """Due at once: this thread is what waits, and when it wakes the most urgent job goes first."""
        delay_s = self._not_there(error)
        self._end(rounds, str(error), 0.0)
        self._stop.wait(delay_s)

    def _end(self, rounds: Sequence[R], reason: str, delay_s: float) -> None:
        for one in rounds:
            try:
                one.end(reason, delay_s)
            except LeaseLost:
                self._log.warning(log_events.JOB_DROPPED, job_id=one.job.job_id)

"""Proof of delivery: one thread per destination inside the deliver role asks whether it holds what it accepted.

The ways of asking come in the order of the settings. What a destination does not offer is remembered for a while, and
the next way is tried; where none is left, the object stays "stored, unproven". A proof never delays a delivery: it
has a thread and jobs of its own.
"""

import threading
import time
import uuid
from collections.abc import Callable, Sequence

import structlog

from config import Settings
from config.settings import Destination
from ledger.commitments import COMMITTED, committed_text
from ledger.errors import LeaseLost, LedgerUnavailable
from ledger.ledger import Ledger
from ledger.records import Job, Proof, ProofOutcome, Stage, StoredObject
from node import log_events
from node.lease import LeaseKeeper
from node.logging import describe
from node.wiring import owner
from sr_writer import backoff, commitment, read_back
from sr_writer.association import NotOffered
from sr_writer.errors import Unreachable

POLL_S = 1.0
JOBS_AT_ONCE = 16
REMEMBER_S = 600.0  # that a destination does not offer a way of asking
SHORT_WAIT_S = 0.2  # on the association, once a destination has shown that it answers on another
ASKS = 3  # before "not there" is believed: an archive may file what it accepted a little later
LOST_AT_MOST = 3  # times that an object is accepted and lost before a person must look


class Prover:
    """The loop of one destination. While it is away one job at a time probes it, at growing intervals."""

    def __init__(self, ledger: Ledger, settings: Settings, destination: Destination, stop: threading.Event) -> None:
        self._ledger = ledger
        self._settings = settings.deliver
        self._destination = destination
        self._key = destination.key
        self._owner = owner("deliver")
        self._stop = stop
        self._failures = 0
        self._refused: dict[str, tuple[float, str]] = {}  # method -> until when, and what was said
        self._answers_elsewhere = False
        self._log = structlog.get_logger().bind(destination=destination.key)
        self._ask: dict[str, Callable[[list[_Round]], None]] = {
            "commitment": self._commitment,
            "find": lambda rounds: self._read_back(rounds, read_back.find, "C-FIND"),
            "qido": lambda rounds: self._read_back(rounds, read_back.qido, "QIDO-RS"),
        }

    def run(self) -> None:
        """Loop until stopped."""
        while not self._stop.is_set():
            try:
                self._once()
            except LedgerUnavailable as error:
                self._log.warning(log_events.LEDGER_UNAVAILABLE, error=describe(error))
                self._stop.wait(POLL_S)
            except Exception:  # noqa: BLE001  loop top: record and go on
                self._log.error(log_events.LOOP_FAILED, exc_info=True)
                self._stop.wait(POLL_S)

    def _once(self) -> None:
        limit = 1 if self._failures else JOBS_AT_ONCE
        jobs = self._ledger.claim(Stage.PROVE, self._owner, limit, self._settings.lease_s, self._key)
        if not jobs:
            self._ledger.wait(Stage.PROVE, POLL_S, self._key)
            return
        with LeaseKeeper(self._ledger, jobs, self._settings.lease_s):
            self.prove(jobs)

    def prove(self, jobs: Sequence[Job]) -> None:
        """Ask about every object of `jobs`, and end each job as the answers say."""
        rounds = [_Round(self._ledger, job) for job in jobs]
        try:
            self._ask_all(rounds)
        except Unreachable as error:
            self._away(rounds, error)
        except LedgerUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  loop top: these jobs wait, the next ones go on
            self._log.error(log_events.JOB_FAILED, exc_info=error)
            delay_s = backoff.delay_s(max(job.attempt for job in jobs), self._settings)
            self._end(rounds, f"unexpected error: {describe(error)}", delay_s)
        else:
            self._failures = 0
            self._end(rounds, "", 0.0)

    def _away(self, rounds: "list[_Round]", error: Unreachable) -> None:
        self._failures += 1
        delay_s = backoff.delay_s(self._failures, self._settings)
        self._log.warning(log_events.PROOF_UNREACHABLE, reason=str(error), retry_in_s=round(delay_s, 1))
        self._end(rounds, f"{error} (next try in {delay_s:.0f} s)", 0.0)
        self._stop.wait(delay_s)

    def _ask_all(self, rounds: "list[_Round]") -> None:
        said = []
        for method in self._destination.proof:
            if method == "commitment":
                self._read_answers(rounds)
            asked = [one for one in rounds if one.open]
            if not asked:
                return
            until, words = self._refused.get(method, (0.0, ""))
            if time.monotonic() < until:
                said.append(words)
                continue
            try:
                self._ask[method](asked)
            except NotOffered as error:
                self._remember(method, str(error))
                said.append(str(error))
        for one in rounds:
            one.unproven(" ".join(said))

    def _remember(self, method: str, words: str) -> None:
        self._refused[method] = (time.monotonic() + REMEMBER_S, words)
        self._log.warning(log_events.PROOF_NOT_OFFERED, method=method, reason=words, remembered_s=REMEMBER_S)

    # --- Storage Commitment ---

    def _commitment(self, rounds: "list[_Round]") -> None:
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        asked = [(one.job, [item.sop_instance_uid for item in one.open]) for one in rounds]
        self._ledger.commitment_asked(self._key, transaction_uid, asked)
        answer = commitment.request(
            self._destination,
            self._settings,
            transaction_uid,
            [(item.sop_class_uid, item.sop_instance_uid) for one in rounds for item in one.open],
            SHORT_WAIT_S if self._answers_elsewhere else self._settings.commitment_wait_s,
            lambda: self._ledger.commitment_accepted(transaction_uid),
        )
        self._answers_elsewhere = answer is None
        if answer is not None:
            self._ledger.commitment_answered(answer, [self._key])
        self._read_answers(rounds)

    def _read_answers(self, rounds: "list[_Round]") -> None:
        """Use what was answered so far, on whichever association; what is not answered yet is waited for."""
        for one in rounds:
            known = self._ledger.commitment(one.job) if one.open else None
            if known is None or not known.accepted:
                continue
            if known.answered:
                self._ledger.close_commitment(one.job)
                for item in one.open:
                    self._judge(one, item, known.transaction_uid, known.reasons.get(item.sop_instance_uid))
            elif known.age_s < self._settings.commitment_answer_max_s:
                one.await_answer(known.transaction_uid, self._settings.commitment_answer_max_s - known.age_s)
            else:
                self._ledger.close_commitment(one.job)
                self._remember("commitment", self._never_answered())

    def _never_answered(self) -> str:
        return (
            f"{self._key} took a request for storage commitment and did not answer it: register our AE title "
            f"{self._destination.calling_ae_title} there with this node's address and port."
        )

    def _judge(self, one: "_Round", item: StoredObject, transaction_uid: str, reason: int | None) -> None:
        words = f"{self._key} {commitment.reason_words(reason)}."
        if reason == COMMITTED:
            one.decide(item, Proof.COMMITTED, committed_text(transaction_uid))
        elif reason == commitment.NO_SUCH_OBJECT:
            one.absent(item, words)
        elif reason == commitment.CONFLICT:
            one.decide(item, Proof.UNPROVEN, words)
        else:
            one.remark(words)  # the next way of asking may tell more

    # --- C-FIND, QIDO-RS ---

    def _read_back(self, rounds: "list[_Round]", ask: read_back.Ask, how: str) -> None:
        wanted = {
            item.sop_instance_uid: read_back.Wanted(
                one.job.study_instance_uid, item.series_instance_uid, item.sop_instance_uid
            )
            for one in rounds
            for item in one.open
        }
        found = ask(self._destination, self._settings, list(wanted.values()))
        for one in rounds:
            for item in one.open:
                if item.sop_instance_uid in found:
                    one.decide(item, Proof.FOUND, f"{self._key} lists it ({how}).")
                else:
                    one.absent(item, f"{self._key} does not list it ({how}).")

    def _end(self, rounds: "list[_Round]", reason: str, delay_s: float) -> None:
        for one in rounds:
            try:
                one.end(reason, delay_s, self._settings.prove_after_s, self._key)
            except LeaseLost:
                self._log.warning(log_events.JOB_DROPPED, job_id=one.job.job_id)


class _Round:
    """One proof job while its destination is asked: what is not decided yet, and why it must wait."""

    def __init__(self, ledger: Ledger, job: Job) -> None:
        self._ledger = ledger
        self.job = job
        self._undecided = ledger.unproven(job)
        self._absent = ""
        self._awaited: tuple[str, float] | None = None
        self._remarks: list[str] = []

    @property
    def open(self) -> list[StoredObject]:
        """What is still to be asked in this round."""
        return [] if self._awaited else list(self._undecided)

    def decide(self, item: StoredObject, proof: Proof, text: str) -> None:
        """Keep one answer, durably."""
        self._ledger.record_proof(self.job, ProofOutcome(item.object_id, proof, text))
        self._undecided.remove(item)
        structlog.get_logger().info(
            log_events.OBJECT_PROVEN, object_id=item.object_id, destination=self.job.destination, proof=proof.value
        )

    def absent(self, item: StoredObject, text: str) -> None:
        """The destination says that it does not hold it: believed when it has said so often enough."""
        if self.job.attempt >= ASKS:
            self.decide(item, Proof.MISSING, text)
        else:
            self._undecided.remove(item)
            self._absent = text

    def await_answer(self, transaction_uid: str, longest_s: float) -> None:
        """The destination was asked, and its answer is on its way."""
        self._awaited = (transaction_uid, longest_s)

    def remark(self, words: str) -> None:
        """What a way of asking said that decides nothing."""
        self._remarks.append(words)

    def unproven(self, said: str) -> None:
        """No way of asking is left for what is open."""
        words = " ".join(dict.fromkeys([*self._remarks, *([said] if said else [])]))
        for item in self.open:
            self.decide(item, Proof.UNPROVEN, words or "The destination offers no way to ask.")

    def end(self, reason: str, delay_s: float, ask_again_s: float, destination: str) -> None:
        """Finish, wait for an answer or for another try, or park what is lost again and again."""
        if self._awaited:
            self._ledger.await_commitment(self.job, *self._awaited)
        elif self._absent:
            self._ledger.retry(self.job, self._absent, ask_again_s * 2.0 ** min(self.job.attempt, 10))
        elif self._undecided:
            self._ledger.retry(self.job, reason, delay_s)
        elif (times := self._ledger.times_lost(self.job)) >= LOST_AT_MOST:
            self._ledger.give_up_proof(
                self.job,
                f"{destination} has accepted objects of this report {times} times and says that it does not have them: "
                "look there for what becomes of them, and whether our AE title may query it; then release the job to "
                "send them again.",
            )
        else:
            self._ledger.finish_proof(self.job)

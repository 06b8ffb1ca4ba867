"""Proof of delivery: one thread per destination inside the deliver role asks whether it holds what it accepted.

The ways of asking come in the order of the settings. What a destination does not offer is remembered for a while, and
the next way is tried; where none is left, the object stays "stored, unproven". A proof never delays a delivery: it
has a thread and jobs of its own.
"""

import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence

import structlog

from config import Settings
from config.settings import Destination
from ledger import deeds
from ledger.commitments import COMMITTED, COMMITTED_TEXT
from ledger.delivery_records import Proof, ProofOutcome
from ledger.ledger import Ledger
from ledger.records import Job, Stage, StoredObject
from node import log_events
from node.roles.outward import Outward
from sr_writer import commitment, read_back
from sr_writer.association import NotOffered

JOBS_AT_ONCE = 16
REMEMBER_S = 600.0  # that a destination does not offer a way of asking
SHORT_WAIT_S = 0.2  # on the association, once a destination has shown that it answers on another
ASKS = 3  # before "not there" is believed: an archive may file what it accepted a little later
_HOW = {"commitment": "storage commitment", "find": "C-FIND", "qido": "QIDO-RS"}
ELSEWHERE = "commitment_answer_from_elsewhere"  # in the log (scp/commitment/answers.py)
LOST_AT_MOST = 3  # times that an object is accepted and lost before a person must look


class Prover(Outward["_Round"]):
    """The loop of one destination."""

    stage = Stage.PROVE
    at_once = JOBS_AT_ONCE
    unreachable = log_events.PROOF_UNREACHABLE

    def __init__(self, ledger: Ledger, settings: Settings, destination: Destination, stop: threading.Event) -> None:
        super().__init__(ledger, settings.deliver, destination.key, stop)
        self._destination = destination
        self._refused: dict[str, tuple[float, str]] = {}  # method -> until when, and what was said
        self._answers_elsewhere = False
        self._ask: dict[str, Callable[[Sequence[_Round]], None]] = {
            "commitment": self._commitment,
            "find": lambda rounds: self._read_back(rounds, read_back.find, _HOW["find"]),
            "qido": lambda rounds: self._read_back(rounds, read_back.qido, _HOW["qido"]),
        }

    def _begin(self, job: Job) -> "_Round":
        return _Round(self._ledger, job, self._settings.prove_after_s)

    def _talk(self, rounds: "Sequence[_Round]") -> None:
        said = []
        for method in self._destination.proof:
            if method == "commitment":
                self._read_answers(rounds)
            if not any(one.open for one in rounds):
                return
            asked = [one for one in rounds if one.open and not (method == "commitment" and one.has_heard_enough)]
            if not asked:
                continue
            until, words = self._refused.get(method, (0.0, ""))
            if time.monotonic() < until:
                said.append(words)
                continue
            one_of_each = {one.job.study_instance_uid: one.job for one in asked}
            self._ledger.audit(*(deeds.asked(job, self._key, _HOW[method]) for job in one_of_each.values()))
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

    def _commitment(self, rounds: "Sequence[_Round]") -> None:
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        asked = [(one.job, [item.sop_instance_uid for item in one.open]) for one in rounds]
        self._ledger.commitment_asked(self._key, transaction_uid, asked, addresses_of(self._destination.host))
        self._log.info(
            log_events.COMMITMENT_ASKED, transaction_uid=transaction_uid, objects=sum(len(uids) for _, uids in asked)
        )
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

    def _read_answers(self, rounds: "Sequence[_Round]") -> None:
        """Use what was answered so far, on whichever association; what is not answered yet is waited for."""
        for one in rounds:
            known = self._ledger.commitment(one.job) if one.open else None
            if known is None or not known.accepted:
                continue
            if known.answered:
                self._ledger.close_commitment(one.job)
                one.answers += 1
                for item in one.open:
                    self._judge(one, item, known.reasons.get(item.sop_instance_uid))
            elif known.age_s < self._settings.commitment_answer_max_s:
                one.await_answer(known.transaction_uid, self._settings.commitment_answer_max_s - known.age_s)
            else:
                self._ledger.close_commitment(one.job)
                self._remember("commitment", self._never_answered())

    def _never_answered(self) -> str:
        return (
            f"{self._key} took a request for storage commitment and did not answer it: register our AE title "
            f"{self._destination.calling_ae_title} there with this node's address and port. Where the receiver's log "
            f"has {ELSEWHERE}, it answered from an address that is not known for its own: see answers_from."
        )

    def _judge(self, one: "_Round", item: StoredObject, reason: int | None) -> None:
        words = f"{self._key} {commitment.reason_words(reason)}."
        if reason == COMMITTED:
            one.decide(item, Proof.COMMITTED, COMMITTED_TEXT)
        elif reason == commitment.NO_SUCH_OBJECT:
            one.absent(item, words)
        elif reason == commitment.CONFLICT:
            one.decide(item, Proof.UNPROVEN, words)
        else:
            one.remark(words)  # the next way of asking may tell more

    # --- C-FIND, QIDO-RS ---

    def _read_back(self, rounds: "Sequence[_Round]", ask: read_back.Ask, how: str) -> None:
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


def addresses_of(host: str) -> tuple[str, ...]:
    """Every address that a host's name has now, itself where it is one; none where nobody knows it."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(one[4][0]).partition("%")[0] for one in found))


class _Round:
    """One proof job while its destination is asked: what is not decided yet, and why it must wait."""

    def __init__(self, ledger: Ledger, job: Job, ask_again_s: float) -> None:
        self._ledger = ledger
        self._ask_again_s = ask_again_s
        self.job = job
        self._undecided = ledger.unproven(job)
        self._absent = ""
        self._awaited: tuple[str, float] | None = None
        self._remarks: list[str] = []
        self.answers = 0  # to requests for commitment, in this round

    @property
    def has_heard_enough(self) -> bool:
        """It was asked to commit and answered, as often as is fair: what decided nothing then decides nothing now. An
        answer on an association of its own begins a round, so that asking anew at each would never end."""
        return self.answers > 0 and self.job.attempt >= ASKS

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

    def end(self, reason: str, delay_s: float) -> None:
        """Finish, wait for an answer or for another try, or park what is lost again and again."""
        if self._awaited:
            self._ledger.await_commitment(self.job, *self._awaited)
        elif self._absent:
            self._ledger.retry(self.job, self._absent, self._ask_again_s * 2.0 ** min(self.job.attempt, 10))
        elif self._undecided:
            self._ledger.retry(self.job, reason, delay_s)
        elif (times := self._ledger.times_lost(self.job)) >= LOST_AT_MOST:
            self._ledger.give_up_proof(
                self.job,
                f"{self.job.destination} has accepted objects of this report {times} times and says that it does not "
                "have them: look there for what becomes of them, and whether our AE title may query it; then release "
                "the job to send them again.",
            )
        else:
            self._ledger.finish_proof(self.job)

"""What destinations were asked to commit, what they answered, and what is done about an object that got lost."""

import pytest

from ledger.commitments import CommitmentAnswer
from ledger.completion import Completion
from ledger.delivery_records import DeliveryOutcome, DeliveryState, Proof, ProofOutcome
from ledger.ledger import Ledger
from ledger.records import Job, ReportKind, ResultObject, Stage, StoredObject, TriagePriority
from ledger.views import ObjectDelivery
from tests.support.ledgers import all_to
from tests.support.records import judged, received, stored_object
from tests.support.waiting import wait_until

PACS = "pacs"


def _report(ledger: Ledger, study_uid: str = "1.2.3", objects: int = 2, probability: float = 0.9) -> Job:
    """A report of two objects for the PACS; its delivery."""
    ledger.admit(received(study_uid), Completion(0.001))
    [job] = ledger.claim(Stage.ANALYSE, "test", 1, 60)
    ledger.finish_analysis(job, [judged(TriagePriority.HIGH, probability)])
    [job] = ledger.claim(Stage.REPORT, "test", 1, 60)
    findings = ledger.study_findings(job)
    made = [stored_object(ledger.store) for _ in range(objects)]
    ledger.finish_report(job, findings, made, all_to(made, [PACS]))
    [delivery] = ledger.claim(Stage.DELIVER, "test", 1, 60, PACS)
    return delivery


def _accept(ledger: Ledger, delivery: Job) -> None:
    for item in ledger.undelivered(delivery):
        ledger.record_delivery(delivery, DeliveryOutcome(item.object_id, DeliveryState.DELIVERED, 0, ""))
    ledger.finish_delivery(delivery, 0.0)


def _proof(ledger: Ledger) -> Job:
    [job] = ledger.claim(Stage.PROVE, "test", 1, 60, PACS)
    return job


def _asked(ledger: Ledger, transaction: str = "2.25.99") -> tuple[Job, list[StoredObject]]:
    """A proof job whose objects the PACS was asked to commit, and took the request."""
    _accept(ledger, _report(ledger))
    job = _proof(ledger)
    items = ledger.unproven(job)
    ledger.commitment_asked(PACS, transaction, [(job, [item.sop_instance_uid for item in items])])
    ledger.commitment_accepted(transaction)
    return job, items


def _states(ledger: Ledger) -> list[ObjectDelivery]:
    return ledger.study_objects("1.2.3")


def test_an_answer_wakes_the_job_that_waits_for_it(ledger: Ledger) -> None:
    job, items = _asked(ledger)
    ledger.await_commitment(job, "2.25.99", 3600.0)
    assert ledger.claim(Stage.PROVE, "test", 1, 60, PACS) == []
    first, second = (item.sop_instance_uid for item in items)
    assert ledger.commitment_answered(CommitmentAnswer("2.25.99", (first,), ((second, 0x0112),)), [PACS])
    again = _proof(ledger)
    assert again.job_id == job.job_id
    commitment = ledger.commitment(again)
    assert commitment is not None
    assert (commitment.accepted, commitment.answered, commitment.reasons) == (True, True, {first: 0, second: 0x0112})


def test_an_answer_that_comes_before_the_wait_is_not_slept_through(ledger: Ledger) -> None:
    job, items = _asked(ledger)
    ledger.commitment_answered(CommitmentAnswer("2.25.99", tuple(i.sop_instance_uid for i in items)), [PACS])
    ledger.await_commitment(job, "2.25.99", 3600.0)
    assert _proof(ledger).job_id == job.job_id


def test_only_the_destination_that_was_asked_can_answer(ledger: Ledger) -> None:
    job, items = _asked(ledger)
    uids = tuple(item.sop_instance_uid for item in items)
    assert not ledger.commitment_answered(CommitmentAnswer("2.25.99", uids), ["another"])
    assert not ledger.commitment_answered(CommitmentAnswer("2.25.98", uids), [PACS])
    commitment = ledger.commitment(job)
    assert commitment is not None
    assert not commitment.answered


def test_the_same_answer_may_come_again_and_a_commitment_is_never_taken_back(ledger: Ledger) -> None:
    job, items = _asked(ledger)
    uids = tuple(item.sop_instance_uid for item in items)
    for answer in (CommitmentAnswer("2.25.99", uids), CommitmentAnswer("2.25.99", uids)):
        assert ledger.commitment_answered(answer, [PACS])
    assert ledger.commitment_answered(CommitmentAnswer("2.25.99", (), tuple((u, 0x0110) for u in uids)), [PACS])
    commitment = ledger.commitment(job)
    assert commitment is not None
    assert set(commitment.reasons.values()) == {0}
    assert [event.name for event in ledger.events("1.2.3")].count("commitment_answered") == 1


def test_a_late_answer_turns_what_was_found_into_a_commitment(ledger: Ledger) -> None:
    job, items = _asked(ledger)
    ledger.close_commitment(job)
    for item in items:
        ledger.record_proof(job, ProofOutcome(item.object_id, Proof.FOUND, "It lists it."))
    ledger.finish_proof(job)
    ledger.commitment_answered(CommitmentAnswer("2.25.99", (items[0].sop_instance_uid,)), [PACS])
    assert [one.proof for one in _states(ledger)] == [Proof.COMMITTED, Proof.FOUND]


def test_an_answer_is_used_once(ledger: Ledger) -> None:
    job, items = _asked(ledger)
    ledger.commitment_answered(CommitmentAnswer("2.25.99", (), ((items[0].sop_instance_uid, 0x0112),)), [PACS])
    ledger.close_commitment(job)
    assert ledger.commitment(job) is None


def _lose(ledger: Ledger) -> Job:
    """The PACS accepts the two objects, holds one and says that the other is not there; the proof is still held."""
    job = _proof(ledger)
    for item in ledger.unproven(job):
        kept = item.kind == "text_sr" and item.object_id % 2 == 0
        ledger.record_proof(job, ProofOutcome(item.object_id, Proof.FOUND if kept else Proof.MISSING, "Asked."))
    return job


def test_what_is_missing_and_nothing_else_is_delivered_again(ledger: Ledger) -> None:
    _accept(ledger, _report(ledger))
    job = _lose(ledger)
    assert ledger.times_lost(job) == 1
    ledger.finish_proof(job)
    [delivery] = ledger.claim(Stage.DELIVER, "test", 1, 60, PACS)
    [again] = ledger.undelivered(delivery)
    [missing] = [one for one in _states(ledger) if one.proof is Proof.MISSING]
    assert (again.sop_instance_uid, missing.state) == (missing.sop_instance_uid, DeliveryState.WAITING)
    _accept(ledger, delivery)
    ledger.times_lost(_proof(ledger))
    assert {one.proof for one in _states(ledger)} == {Proof.FOUND, Proof.WAITING}


def test_what_is_lost_again_and_again_is_parked_and_a_release_sends_it_once_more(ledger: Ledger) -> None:
    delivery = _report(ledger)
    for time in (1, 2, 3):
        _accept(ledger, delivery)
        job = _lose(ledger)
        assert ledger.times_lost(job) == time
        if time < 3:
            ledger.finish_proof(job)
            [delivery] = ledger.claim(Stage.DELIVER, "test", 1, 60, PACS)
    ledger.give_up_proof(job, "PACS lost it.")
    [parked] = ledger.parked()
    assert (parked.stage, parked.reason) == (Stage.PROVE, "PACS lost it.")
    assert {one.state for one in _states(ledger)} == {DeliveryState.DELIVERED, DeliveryState.REFUSED}
    assert ledger.claim(Stage.DELIVER, "test", 1, 60, PACS) == []
    ledger.release(parked.job_id)
    job = _proof(ledger)
    assert (ledger.unproven(job), ledger.times_lost(job)) == ([], 0)
    ledger.finish_proof(job)
    [delivery] = ledger.claim(Stage.DELIVER, "test", 1, 60, PACS)
    assert len(ledger.undelivered(delivery)) == 1


def test_a_withdrawal_ends_the_search_for_what_was_lost(ledger: Ledger) -> None:
    _accept(ledger, _report(ledger))
    lost = _proof(ledger)
    for item in ledger.unproven(lost):
        ledger.record_proof(lost, ProofOutcome(item.object_id, Proof.MISSING, "It says so."))
    ledger.give_up_proof(lost, "PACS lost it.")
    ledger.recall("The model was withdrawn.", "1.2.3")
    assert ledger.parked() == []
    made: list[tuple[ResultObject, str]] = []
    while not made:
        [job] = wait_until(lambda: ledger.claim(Stage.REPORT, "test", 1, 60), 60)
        findings = ledger.study_findings(job)
        made = [stored_object(ledger.store)] if findings and findings.kind is ReportKind.WITHDRAWN else []
        ledger.finish_report(job, findings, made, all_to(made, [PACS]))
    assert DeliveryState.NOT_NEEDED in {one.state for one in _states(ledger)}
    assert (
        len(ledger.claim(Stage.DELIVER, "test", 9, 60, PACS)) == 1
    )  # the withdrawal, which goes where it was accepted


def test_what_was_accepted_is_proven_although_something_else_was_refused(ledger: Ledger) -> None:
    delivery = _report(ledger)
    good, bad = ledger.undelivered(delivery)
    ledger.record_delivery(delivery, DeliveryOutcome(good.object_id, DeliveryState.DELIVERED, 0, ""))
    ledger.record_delivery(delivery, DeliveryOutcome(bad.object_id, DeliveryState.REFUSED, 0x0122, "No."))
    ledger.park_delivery(delivery, "No.", 0.0)
    assert [parked.reason for parked in ledger.parked()] == ["No."]
    assert [item.object_id for item in ledger.unproven(_proof(ledger))] == [good.object_id]


def test_what_a_newer_report_replaced_is_not_sent_again(ledger: Ledger) -> None:
    _accept(ledger, _report(ledger, probability=0.9))
    old = _proof(ledger)
    assert ledger.recall("The model was withdrawn.", "1.2.3") == 1
    while len(_states(ledger)) < 3:
        [job] = wait_until(lambda: ledger.claim(Stage.REPORT, "test", 1, 60), 60)
        findings = ledger.study_findings(job)
        made = [stored_object(ledger.store)] if findings and findings.kind is ReportKind.WITHDRAWN else []
        ledger.finish_report(job, findings, made, all_to(made, [PACS]))
    for item in ledger.unproven(old):
        ledger.record_proof(old, ProofOutcome(item.object_id, Proof.MISSING, "It does not list it."))
    ledger.finish_proof(old)
    first = _states(ledger)[0]
    assert (first.state, first.proof) == (DeliveryState.DELIVERED, Proof.UNPROVEN)
    assert "A newer report has taken its place" in first.proof_text


@pytest.mark.parametrize("late", [Proof.MISSING, Proof.UNPROVEN])
def test_a_late_word_does_not_undo_a_proof(ledger: Ledger, late: Proof) -> None:
    _accept(ledger, _report(ledger))
    job = _proof(ledger)
    item, _ = ledger.unproven(job)
    ledger.record_proof(job, ProofOutcome(item.object_id, Proof.COMMITTED, "It has it."))
    ledger.record_proof(job, ProofOutcome(item.object_id, late, "A slow worker."))
    assert _states(ledger)[0].proof is Proof.COMMITTED

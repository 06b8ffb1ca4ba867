"""Two patients in one study: nothing leaves until a correction or a rejection makes them agree."""

import pytest

from ledger.delivery_records import DeliveryOutcome, DeliveryState, Proof
from ledger.records import Disposition, Stage
from tests.support.ledger_story import ANNA, BERTA, HIGH, LOW, PACS, STUDY, Story
from tests.support.records import judged, stored_object

ADAPTER = "hl7"
OUTWARD = (Stage.REPORT, Stage.DELIVER, Stage.NOTIFY)


def test_a_study_of_two_patients_is_held_but_what_left_is_proven(story: Story) -> None:
    story.image(judged(LOW, 0.1))
    story.final(PACS, notify=(ADAPTER,))
    story.deliver(prove_after_s=0.0)
    story.image(judged(LOW, 0.1))
    story.final(PACS, notify=(ADAPTER,))
    story.image(judged(HIGH), patient=BERTA)
    assert [story.claimable(stage) for stage in OUTWARD] == [False, False, False]
    assert story.claimable(Stage.PROVE)
    [entry] = story.ledger.worklist()
    assert "different patients" in entry.hold
    assert "study_held" in story.events()
    assert story.ledger.counts()["held"] == {"studies": 1}


def test_a_held_study_does_not_make_the_node_look_stuck(story: Story) -> None:
    story.receive()
    story.receive(patient=BERTA)
    story.look(judged(LOW, 0.1))
    story.look(judged(LOW, 0.1))
    assert story.ledger.oldest_job_age_s() is None


def test_a_correction_lets_the_study_go_and_what_had_not_left_is_overtaken(story: Story) -> None:
    wrong = story.image(judged(LOW, 0.1))
    story.final(PACS, notify=(ADAPTER,))
    story.image(judged(LOW, 0.1), patient=BERTA)
    assert not story.claimable(Stage.DELIVER)
    story.receive_again(wrong, patient=BERTA)
    story.look(judged(LOW, 0.1))
    assert story.states() == [DeliveryState.NOT_NEEDED]
    assert not story.claimable(Stage.NOTIFY)
    findings = story.final()
    assert findings is not None
    assert findings.predecessors == ()  # the first one never left
    assert {item.instance.sop_instance_uid for item in findings.looked_at} >= {wrong.sop_instance_uid}
    assert story.ledger.worklist()[0].hold == ""
    assert {"study_let_go", "deliveries_overtaken"} <= set(story.events())


def test_what_had_left_is_issued_anew_with_its_predecessor(story: Story) -> None:
    wrong = story.reported(judged(HIGH))
    story.receive_again(wrong, patient=BERTA)
    story.look(judged(HIGH))
    findings = story.final()
    assert findings is not None
    assert len(findings.predecessors) == 1


def test_what_was_sent_without_an_answer_may_have_arrived_and_is_named_as_a_predecessor(story: Story) -> None:
    wrong = story.image(judged(LOW, 0.1))
    story.final()
    story.deliver(state=DeliveryState.WAITING, status=None)
    story.receive_again(wrong, patient=BERTA)
    story.look(judged(LOW, 0.1))
    findings = story.final()
    assert findings is not None
    assert len(findings.predecessors) == 1


def test_the_rejection_of_the_intruder_lets_the_waiting_report_go_as_it_is(story: Story) -> None:
    story.image(judged(LOW, 0.1))
    story.final()
    intruder = story.image(judged(HIGH), patient=BERTA)
    story.note("113038", intruder)
    assert story.ledger.worklist()[0].hold == ""
    assert story.final() is None
    assert len(story.deliver()) == 1
    assert story.priority is LOW


def test_the_rejection_of_the_first_patient_reports_the_second(story: Story) -> None:
    first = story.reported(judged(LOW, 0.1))
    second = story.image(judged(HIGH), patient=BERTA)
    story.note("113038", first)
    findings = story.final()
    assert findings is not None
    assert [item.instance.sop_instance_uid for item in findings.looked_at] == [second.sop_instance_uid]
    assert len(findings.predecessors) == 1


@pytest.mark.parametrize("disposition", [Disposition.OWN_RESULT, Disposition.REJECTION_NOTE])
def test_our_own_results_and_notes_hold_nothing(story: Story, disposition: Disposition) -> None:
    story.receive(patient=BERTA, disposition=disposition)
    story.receive(patient=ANNA)
    story.receive(patient=BERTA, disposition=disposition)
    assert story.ledger.worklist(include_hidden=True)[0].hold == ""


def test_an_image_that_names_nobody_is_in_nobodys_way(story: Story) -> None:
    story.receive(patient="")
    story.receive(patient=ANNA)
    story.receive(patient="")
    assert story.ledger.worklist(include_hidden=True)[0].hold == ""


def test_a_name_spelled_otherwise_under_one_id_holds_nothing(story: Story) -> None:
    story.receive(patient=ANNA)
    story.receive(patient="a" * 32 + "f" * 32)
    story.receive(patient="-" * 32 + "f" * 32)
    assert story.ledger.worklist(include_hidden=True)[0].hold == ""


def test_an_id_that_comes_second_is_remembered(story: Story) -> None:
    story.receive(patient="-" * 32 + "f" * 32)
    story.receive(patient="a" * 32 + "f" * 32)
    story.receive(patient="b" * 32 + "f" * 32)
    assert story.ledger.worklist(include_hidden=True)[0].hold != ""


def test_a_report_finished_while_its_study_was_held_does_not_leave(story: Story) -> None:
    story.image(judged(LOW, 0.1))
    job = story.next(Stage.REPORT)
    findings = story.ledger.study_findings(job)
    story.receive(patient=BERTA)
    made = [stored_object(story.ledger.store)]
    story.ledger.finish_report(job, findings, made, {PACS: [made[0][0].sop_instance_uid]})
    assert story.states() == []


def test_an_answer_that_comes_after_the_correction_does_not_send_again(story: Story) -> None:
    wrong = story.image(judged(LOW, 0.1))
    story.final()
    leaving = story.next(Stage.DELIVER)
    [stored] = story.ledger.undelivered(leaving)
    story.receive_again(wrong, patient=BERTA)
    story.ledger.record_delivery(leaving, DeliveryOutcome(stored.object_id, DeliveryState.WAITING, None, "no answer"))
    assert story.ledger.undelivered(leaving) == []
    story.ledger.record_delivery(leaving, DeliveryOutcome(stored.object_id, DeliveryState.DELIVERED, 0, ""))
    assert [item.proof for item in story.ledger.study_objects(STUDY)] == [Proof.WAITING]  # a fact all the same


def test_an_adapter_that_was_not_told_yet_is_not_told(story: Story) -> None:
    wrong = story.image(judged(LOW, 0.1))
    story.final(PACS, notify=(ADAPTER,))
    story.receive_again(wrong, patient=BERTA)
    assert not story.claimable(Stage.NOTIFY)

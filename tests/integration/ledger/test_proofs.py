"""One form of each choice, and what is known of whether a destination holds what it accepted."""

import pytest

from ledger.delivery_records import DeliveryOutcome, DeliveryState, Proof, ProofOutcome
from ledger.records import Stage
from tests.support.ledger_story import LOW, OTHER, PACS, STUDY, Story
from tests.support.records import judged

DELIVERED, WAITING, NOT_NEEDED = DeliveryState.DELIVERED, DeliveryState.WAITING, DeliveryState.NOT_NEEDED


def proofs(story: Story) -> list[Proof]:
    return [item.proof for item in story.ledger.study_objects(STUDY)]


def test_the_other_forms_of_an_accepted_object_stay_here(story: Story) -> None:
    story.image(judged(LOW, 0.1))
    story.report(PACS, OTHER, forms=3)
    job = story.next(Stage.DELIVER, PACS)
    first, second, third = story.ledger.undelivered(job)
    assert [item.preference for item in (first, second, third)] == [0, 1, 2]
    story.ledger.record_delivery(job, DeliveryOutcome(first.object_id, DeliveryState.REFUSED, 0x0122, "no context"))
    story.ledger.record_delivery(job, DeliveryOutcome(second.object_id, DELIVERED, 0, "", "Comprehensive SR"))
    assert story.ledger.undelivered(job) == []
    at = {(item.destination, item.sop_instance_uid): item for item in story.ledger.study_objects(STUDY)}
    states = [at[PACS, item.sop_instance_uid].state for item in (first, second, third)]
    assert states == [NOT_NEEDED, DELIVERED, NOT_NEEDED]
    assert at[PACS, second.sop_instance_uid].context == "Comprehensive SR"
    assert {at[OTHER, item.sop_instance_uid].state for item in (first, second, third)} == {WAITING}


@pytest.mark.parametrize("proof", [Proof.COMMITTED, Proof.FOUND, Proof.UNPROVEN])
def test_a_proof_ends_with_what_was_learnt(story: Story, proof: Proof) -> None:
    story.image(judged(LOW, 0.1))
    story.report()
    assert proofs(story) == [Proof.NONE]
    story.deliver(prove_after_s=0.0)
    assert proofs(story) == [Proof.WAITING]
    job = story.next(Stage.PROVE, PACS)
    [stored] = story.ledger.unproven(job)
    story.ledger.record_proof(job, ProofOutcome(stored.object_id, proof, "It said so."))
    story.ledger.finish_proof(job)
    assert proofs(story) == [proof]
    assert not story.claimable(Stage.DELIVER)
    assert dict(story.ledger.worklist()[0].proofs) == {PACS: proof}


def test_what_is_missing_is_delivered_again(story: Story) -> None:
    story.image(judged(LOW, 0.1))
    story.report()
    [first] = story.deliver(prove_after_s=0.0)
    job = story.next(Stage.PROVE, PACS)
    story.ledger.record_proof(job, ProofOutcome(first.object_id, Proof.MISSING, "It listed nothing."))
    story.ledger.finish_proof(job)
    [again] = story.deliver(prove_after_s=0.0)
    assert again.sop_instance_uid == first.sop_instance_uid
    job = story.next(Stage.PROVE, PACS)
    story.ledger.record_proof(job, ProofOutcome(again.object_id, Proof.FOUND, ""))
    story.ledger.finish_proof(job)
    assert proofs(story) == [Proof.FOUND]


def test_a_destination_that_cannot_be_asked_leaves_it_unproven(story: Story) -> None:
    story.image(judged(LOW, 0.1))
    story.report()
    story.deliver(prove_after_s=None)
    assert proofs(story) == [Proof.UNPROVEN]
    assert not story.claimable(Stage.PROVE)


def test_a_redirection_moves_what_waits_and_neither_what_arrived_nor_what_was_overtaken(story: Story) -> None:
    story.image(judged(LOW, 0.1))
    story.report()
    story.deliver(prove_after_s=0.0)
    wrong = story.image(judged(LOW, 0.1))
    story.report()  # overtaken by the correction
    story.receive_again(wrong)
    story.look(judged(LOW, 0.1))
    story.report()
    assert story.states() == [DELIVERED, NOT_NEEDED, WAITING]
    assert story.ledger.redirect(PACS, OTHER) == 1
    went = [(item.destination, item.state, item.proof) for item in story.ledger.study_objects(STUDY)]
    assert went == [
        (PACS, DELIVERED, Proof.UNPROVEN),
        (PACS, NOT_NEEDED, Proof.NONE),
        (OTHER, WAITING, Proof.NONE),
    ]
    assert not story.claimable(Stage.PROVE)
    assert len(story.deliver(OTHER)) == 1

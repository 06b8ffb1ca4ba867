"""What is rejected counts no more, what is recalled is taken back, once, and only where it went."""

import pytest

from ledger.completion import Completion
from ledger.delivery_records import DeliveryState
from ledger.records import EarlierReport, ReportKind, Stage, TriagePriority
from tests.support.ledger_story import HIGH, HOUR_S, LOW, OTHER, PACS, SOON_S, STUDY, Story
from tests.support.records import judged, received

GRAVE = ("113001", "113037", "113038")
NOT_ASSESSED = TriagePriority.NOT_ASSESSED


@pytest.mark.parametrize("code", GRAVE)
def test_an_image_rejected_before_it_comes_is_kept_and_not_looked_at(story: Story, code: str) -> None:
    rejected = received(STUDY)
    story.note(code, rejected)
    story.ledger.admit(rejected, Completion(0.01))
    assert not story.claimable(Stage.ANALYSE)
    assert any("rejected before it came" in event.text for event in story.ledger.events(STUDY))


def test_an_image_rejected_while_it_waits_is_not_looked_at(story: Story) -> None:
    rejected = story.receive()
    kept = story.receive()
    story.note("113037", rejected)
    job = story.next(Stage.ANALYSE)
    assert job.instance is not None
    assert job.instance.sop_instance_uid == kept.sop_instance_uid
    assert not story.claimable(Stage.ANALYSE)


def test_a_report_that_rests_on_a_rejected_image_is_made_anew_without_it(story: Story) -> None:
    worst = story.reported(judged(HIGH))
    kept = story.image(judged(LOW, 0.1))
    assert story.final() is not None
    story.note("113001", worst)
    findings = story.final()
    assert findings is not None
    assert [item.instance.sop_instance_uid for item in findings.looked_at] == [kept.sop_instance_uid]
    assert (findings.kind, findings.priority, story.priority) == (ReportKind.FINAL, LOW, LOW)
    assert len(findings.predecessors) == 1


def test_a_report_made_anew_knows_what_it_follows_and_why_and_is_dated_after_it(story: Story) -> None:
    worst = story.reported(judged(HIGH))
    story.image(judged(LOW, 0.1))
    first = story.final()
    assert first is not None
    story.deliver()
    story.note("113001", worst)
    second = story.final()
    assert second is not None
    assert second.follows == EarlierReport(ReportKind.FINAL, HIGH, first.reported_at)
    assert second.cause == "Images that the earlier report rests on were rejected."
    assert second.reported_at > first.reported_at


def test_a_withdrawal_takes_back_every_report_since_the_last_withdrawal(story: Story) -> None:
    for priority in (judged(HIGH), judged(LOW, 0.1)):
        story.reported(priority)
    story.ledger.recall("It was wrong.", study_uid=STUDY)
    withdrawn = story.final()
    assert withdrawn is not None
    # the provisional and the final report of the first image, then that of both
    assert len({reference.report_id for reference in withdrawn.predecessors}) == len(withdrawn.predecessors) == 3
    story.deliver()
    story.reported(judged(HIGH))
    story.ledger.recall("It was wrong again.", study_uid=STUDY)
    again = story.final()
    assert again is not None
    assert again.predecessors
    assert not {one.report_id for one in again.predecessors} & {one.report_id for one in withdrawn.predecessors}


def test_the_rejection_of_all_images_withdraws_the_report(story: Story) -> None:
    images = [story.image(judged(HIGH), quiet_s=HOUR_S), story.receive()]
    story.look(judged(LOW, 0.1))
    story.final()
    story.deliver()
    story.note("113037", *images)
    findings = story.final()
    assert findings is not None
    assert findings.kind is ReportKind.WITHDRAWN
    assert "rejected" in findings.cause
    assert len(findings.predecessors) == 1
    assert story.priority is NOT_ASSESSED


def test_the_rejection_of_all_images_before_a_report_leaves_no_priority_behind(story: Story) -> None:
    image = story.image(judged(HIGH), quiet_s=HOUR_S)
    story.note("113037", image)
    assert story.priority is None
    assert story.report() is None  # the provisional one that was under way
    assert story.states() == []


def test_retention_that_expired_withdraws_nothing(story: Story) -> None:
    image = story.reported(judged(LOW, 0.1))
    story.note("113039", image)
    assert not story.claimable(Stage.REPORT)
    assert story.priority is LOW
    story.note("113037", image)  # a graver reason counts all the same
    findings = story.final()
    assert findings is not None
    assert findings.kind is ReportKind.WITHDRAWN


def test_a_note_takes_nothing_from_another_study(story: Story) -> None:
    image = story.reported(judged(LOW, 0.1))
    story.note("113037", image, study="9.9.9")
    assert not story.claimable(Stage.REPORT)
    assert story.priority is LOW
    story.image(judged(LOW, 0.1))
    findings = story.final()
    assert findings is not None
    assert len(findings.looked_at) == 2


def test_a_recalled_study_is_withdrawn_once(story: Story) -> None:
    story.reported(judged(HIGH))
    assert story.ledger.recall("The wrong patient lay there.", study_uid=STUDY) == 1
    assert story.ledger.recall("Again.", study_uid=STUDY) == 0
    findings = story.final()
    assert findings is not None
    assert (findings.kind, findings.cause) == (ReportKind.WITHDRAWN, "The wrong patient lay there.")
    assert story.ledger.recall("Again.", study_uid=STUDY) == 0
    assert not story.claimable(Stage.REPORT)
    provisional_and_final = [DeliveryState.DELIVERED, DeliveryState.DELIVERED]
    assert story.states() == [*provisional_and_final, DeliveryState.WAITING]
    [entry] = story.ledger.worklist()
    assert (entry.report_kind, entry.priority, entry.findings) == (ReportKind.WITHDRAWN, NOT_ASSESSED, ())


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (("chest-pneumonia", "1.0.0"), 2),
        (("chest-pneumonia", None), 2),
        (("chest-pneumonia", "9.9.9"), 0),
        (("another", None), 0),
    ],
)
def test_a_recalled_model_withdraws_every_report_that_rests_on_it(
    story: Story, model: tuple[str, str | None], count: int
) -> None:
    for study in ("1.1", "1.2"):
        story.reported(judged(LOW, 0.1), study=study)
    assert len(story.ledger.to_recall(model=model)) == count
    assert story.ledger.recall("It was wrong.", model=model) == count
    assert story.ledger.to_recall(model=model) == []
    kinds = [story.final() for _ in range(count)]
    assert [findings.kind for findings in kinds if findings] == [ReportKind.WITHDRAWN] * count


def test_a_withdrawal_goes_only_where_something_is_or_may_be(story: Story) -> None:
    story.image(judged(LOW, 0.1))
    story.final(PACS, OTHER)
    story.deliver(PACS)
    story.ledger.recall("Wrong.", study_uid=STUDY)
    story.final(PACS, OTHER)
    went = {(item.report_kind, item.destination): item.state for item in story.ledger.study_objects(STUDY)}
    assert went == {
        ("final", PACS): DeliveryState.DELIVERED,
        ("final", OTHER): DeliveryState.NOT_NEEDED,
        ("withdrawn", PACS): DeliveryState.WAITING,
    }


def test_a_withdrawal_follows_what_was_sent_without_an_answer(story: Story) -> None:
    story.image(judged(LOW, 0.1))
    story.final()
    story.deliver(state=DeliveryState.WAITING, status=None)
    story.ledger.recall("Wrong.", study_uid=STUDY)
    story.final()
    assert story.states() == [DeliveryState.NOT_NEEDED, DeliveryState.WAITING]


@pytest.mark.parametrize(
    ("state", "context"),
    [
        (DeliveryState.STOPPED, ""),  # by us
        (DeliveryState.REFUSED, "Enhanced SR Storage, class refused"),
        (DeliveryState.WAITING, ""),  # there was no association
    ],
)
def test_a_withdrawal_does_not_go_where_nothing_was_ever_sent(story: Story, state: DeliveryState, context: str) -> None:
    story.image(judged(LOW, 0.1))
    story.final(PACS, OTHER)
    story.deliver(PACS)
    story.deliver(OTHER, state, None, context=context)
    story.ledger.recall("Wrong.", study_uid=STUDY)
    story.final(PACS, OTHER)
    withdrawn = [item.destination for item in story.ledger.study_objects(STUDY) if item.report_kind == "withdrawn"]
    assert withdrawn == [PACS]


def test_what_was_recalled_does_not_leave_before_its_withdrawal_either(story: Story) -> None:
    story.image(judged(LOW, 0.1))
    story.final(PACS, OTHER)
    story.deliver(PACS)
    parked = story.next(Stage.DELIVER, OTHER)
    story.ledger.park_delivery(parked, "A person must look.")
    story.ledger.recall("Wrong.", study_uid=STUDY)
    assert not story.ledger.release(parked.job_id)  # whoever lets it run again before the withdrawal is made
    assert not story.claimable(Stage.DELIVER)
    withdrawn = story.final(PACS, OTHER)
    assert withdrawn is not None
    assert withdrawn.kind is ReportKind.WITHDRAWN
    assert {one.destination for one in story.ledger.study_objects(STUDY) if one.report_kind == "withdrawn"} == {PACS}


def test_a_report_that_was_parked_when_its_study_was_recalled_is_not_made(story: Story) -> None:
    story.image(judged(HIGH), quiet_s=SOON_S)
    story.report()
    story.deliver()
    parked = story.next(Stage.REPORT)
    story.ledger.park(parked, "A person must look.")
    story.ledger.recall("Wrong.", study_uid=STUDY)
    assert story.ledger.release(parked.job_id)
    jobs = {job.report_kind: job for job in story.claim(Stage.REPORT)}
    assert story.report(job=jobs[ReportKind.FINAL]) is None  # also where it is made first
    withdrawn = story.report(job=jobs[ReportKind.WITHDRAWN])
    assert withdrawn is not None
    assert withdrawn.kind is ReportKind.WITHDRAWN


def test_what_was_recalled_is_not_said_again_by_a_final_report_that_waited(story: Story) -> None:
    story.image(judged(HIGH), quiet_s=0.5)
    story.report()
    story.deliver()
    story.ledger.recall("Wrong.", study_uid=STUDY)
    assert story.final() is not None
    assert story.final() is None
    assert story.priority is NOT_ASSESSED


def test_what_was_recalled_is_not_said_again_by_a_late_image(story: Story) -> None:
    story.reported(judged(HIGH))
    story.ledger.recall("Wrong.", study_uid=STUDY)
    story.final()
    late = story.image(judged(LOW, 0.1))
    findings = story.final()
    assert findings is not None
    assert [item.instance.sop_instance_uid for item in findings.looked_at] == [late.sop_instance_uid]
    assert len(findings.predecessors) == 1


def test_a_recalled_study_that_is_looked_at_again_is_reported_again(story: Story) -> None:
    story.reported(judged(LOW, 0.1))
    story.ledger.recall("Wrong.", study_uid=STUDY)
    story.final()
    story.ledger.look_again(STUDY, "The model was repaired.")
    story.look(judged(LOW, 0.1))
    findings = story.final()
    assert findings is not None
    assert (findings.kind, findings.revision, len(findings.predecessors)) == (ReportKind.FINAL, 2, 1)
    assert story.priority is LOW


def test_a_study_without_a_report_cannot_be_recalled(story: Story) -> None:
    story.receive()
    assert story.ledger.recall("Wrong.", study_uid=STUDY) == 0

"""A report is made anew when what it rests on changes, and never for less."""

from dataclasses import replace

import pytest

from ledger.completion import Completion
from ledger.delivery_records import DeliveryState
from ledger.records import EarlierReport, ImageResult, ReportKind, Stage
from tests.support.ledger_story import HIGH, HOUR_S, LOW, MEDIUM, PACS, STUDY, Story
from tests.support.records import MODEL, judged, not_applicable, refused, stored_object


def test_a_late_image_after_a_final_report_makes_a_new_one_though_it_says_the_same(story: Story) -> None:
    story.reported(judged(LOW, 0.1))
    before = [item.sop_instance_uid for item in story.ledger.study_objects(STUDY)]
    story.image(judged(LOW, 0.1))
    findings = story.final()
    assert findings is not None
    assert len(findings.looked_at) == 2
    assert [reference.sop_instance_uid for reference in findings.predecessors] == before
    assert findings.predecessors[0].destinations == (PACS,)
    assert findings.revision == 1


def test_a_final_report_that_repeats_its_provisional_one_confirms_it_once(story: Story) -> None:
    story.image(judged(HIGH))
    provisional = story.report()
    assert provisional is not None
    assert (provisional.kind, provisional.confirms) == (ReportKind.PROVISIONAL, False)
    story.image(judged(LOW, 0.1))
    final = story.final()
    assert final is not None
    assert (final.kind, final.confirms, len(final.looked_at)) == (ReportKind.FINAL, True, 2)
    assert final.follows == EarlierReport(ReportKind.PROVISIONAL, HIGH, provisional.reported_at)
    assert final.reported_at > provisional.reported_at
    assert len(final.predecessors) == 1
    story.image(judged(LOW, 0.1))  # what was confirmed is final: a late image is news of its own
    late = story.final()
    assert late is not None
    assert not late.confirms


def test_a_final_report_that_says_more_than_its_provisional_one_confirms_nothing(story: Story) -> None:
    story.image(judged(HIGH))
    assert story.report() is not None
    story.image(refused())
    final = story.final()
    assert final is not None
    assert (final.confirms, len(final.predecessors)) == (False, 1)


def test_a_final_report_with_another_flagged_image_shows_it(story: Story) -> None:
    story.image(judged(HIGH))
    assert story.report() is not None
    story.image(judged(HIGH))
    final = story.final()
    assert final is not None
    assert (final.kind, final.confirms, len(final.looked_at)) == (ReportKind.FINAL, False, 2)
    assert len(final.predecessors) == 1


def test_what_was_confirmed_is_not_confirmed_again(story: Story) -> None:
    story.reported(judged(HIGH))
    assert story.ledger.look_again(STUDY, "To be sure.") == 1
    story.look(judged(HIGH))
    assert story.final() is None
    assert story.states() == [DeliveryState.DELIVERED, DeliveryState.DELIVERED]  # provisional and final


def test_the_same_bytes_again_are_no_news(story: Story) -> None:
    instance = story.reported(judged(LOW, 0.1))
    story.ledger.admit(replace(instance, path="instances/elsewhere.dcm"), Completion(0.01))
    assert not story.claimable(Stage.ANALYSE)
    assert not story.claimable(Stage.REPORT)


def by(digest: str) -> ImageResult:
    return replace(judged(LOW, 0.1), model=replace(MODEL, digest=digest))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (by("d" * 64), by("e" * 64)),
        (replace(judged(LOW, 0.1), settings_hash="one"), replace(judged(LOW, 0.1), settings_hash="two")),
    ],
)
def test_a_new_model_or_new_settings_make_a_new_report(story: Story, first: ImageResult, second: ImageResult) -> None:
    story.reported(first)
    assert story.ledger.look_again(STUDY, "The model was replaced.") == 1
    story.look(second)
    findings = story.final()
    assert findings is not None
    assert len(findings.predecessors) == 1
    assert "looked_at_again" in story.events()


def test_looking_again_with_the_same_outcome_says_nothing_new(story: Story) -> None:
    story.reported(judged(LOW, 0.1))
    assert story.ledger.look_again(STUDY, "To be sure.") == 1
    assert story.ledger.look_again(STUDY, "To be sure.") == 0  # it waits already
    story.look(judged(LOW, 0.1))
    assert story.final() is None


def test_looking_again_reports_a_study_that_never_had_a_report(story: Story) -> None:
    story.image(not_applicable())
    assert story.final() is None
    story.ledger.look_again(STUDY, "A model was installed.")
    story.look(judged(MEDIUM, 0.6))
    assert story.final() is not None


def test_looking_again_at_an_unknown_study_does_nothing(story: Story) -> None:
    assert story.ledger.look_again("9.9.9", "Why not.") == 0


@pytest.mark.parametrize("reported", ["final", "provisional"])
def test_the_newest_bytes_under_a_uid_are_what_counts(story: Story, reported: str) -> None:
    first = story.image(judged(HIGH), quiet_s=0.01 if reported == "final" else HOUR_S)
    if reported == "final":
        story.final()
    else:
        story.report()
    story.deliver()
    second = story.receive_again(first)
    story.look(judged(HIGH))
    findings = story.final()
    assert findings is not None
    assert [item.instance.sha256 for item in findings.looked_at] == [second.sha256]
    assert len(findings.predecessors) == 1


def test_another_study_with_the_same_uid_takes_nothing_away(story: Story) -> None:
    mine = story.image(judged(MEDIUM, 0.6))
    story.ledger.admit(
        replace(mine, study_instance_uid="1.2.4", sha256="e" * 64, path="instances/e.dcm"), Completion(HOUR_S)
    )
    findings = story.final()
    assert findings is not None
    assert findings.study_instance_uid == STUDY


def test_what_an_overtaken_image_says_does_not_raise_the_priority(story: Story) -> None:
    first = story.receive()
    late = story.next(Stage.ANALYSE)
    story.receive_again(first)
    story.ledger.finish_analysis(late, [judged(HIGH)])
    assert story.priority is None
    story.look(judged(LOW, 0.1))
    assert story.priority is LOW


def test_a_priority_is_not_lowered_while_the_study_is_open(story: Story) -> None:
    first = story.image(judged(HIGH))
    story.report()  # provisional
    early = story.next(Stage.REPORT)
    story.receive_again(first, quiet_s=HOUR_S)  # its quiet period runs: the study is open again
    story.look(judged(LOW, 0.1))
    assert story.report(job=early) is not None
    assert story.priority is HIGH
    assert "priority_lowered" not in story.events()


def test_a_downgrade_after_the_final_report_is_a_new_statement_and_an_event(story: Story) -> None:
    first = story.reported(judged(HIGH))
    story.receive_again(first)
    story.look(judged(LOW, 0.1))
    findings = story.final()
    assert findings is not None
    assert (findings.priority, story.priority) == (LOW, LOW)
    assert len(findings.predecessors) == 1
    assert "priority_lowered" in story.events()


def test_a_report_that_was_overtaken_while_it_was_made_is_made_again(story: Story) -> None:
    first = story.image(judged(LOW, 0.1))
    slow = story.next(Stage.REPORT)
    findings = story.ledger.study_findings(slow)
    story.receive_again(first)
    made = [stored_object(story.ledger.store)]
    story.ledger.finish_report(slow, findings, made, {PACS: [made[0][0].sop_instance_uid]})
    assert story.states() == []
    story.look(judged(LOW, 0.1))
    again = story.final()
    assert again is not None
    assert again.looked_at[0].instance.sha256 != first.sha256
    assert story.states() == [DeliveryState.WAITING]


def test_two_reports_made_at_once_leave_one_after_the_other(story: Story) -> None:
    story.image(judged(HIGH))
    jobs = [story.next(Stage.REPORT), story.next(Stage.REPORT)]
    both = [story.ledger.study_findings(job) for job in jobs]
    for job, findings in zip(jobs, both, strict=True):
        made = [stored_object(story.ledger.store)]
        story.ledger.finish_report(job, findings, made, {PACS: [made[0][0].sop_instance_uid]})
    assert len(story.states()) == 1

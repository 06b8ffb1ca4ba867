"""In shadow mode everything is said here and nothing new outside; what is outside and untrue is taken back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.delivery_records import DeliveryState
from ledger.ledger import Ledger
from ledger.notifications import NotificationState
from ledger.records import ReportKind, Stage
from ledger.store import Store
from tests.support.ledger_story import BERTA, HIGH, HOUR_S, LOW, OTHER, PACS, STUDY, Story
from tests.support.records import judged

SHADOW, WAITING, DELIVERED = DeliveryState.SHADOW, DeliveryState.WAITING, DeliveryState.DELIVERED
RIS = "hl7-ris"
# The database is asked nothing special in these.
ON_SQLITE = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@pytest.fixture
def dark(url: str, ledger: Ledger, tmp_path: Path) -> Iterator[Story]:
    """The same ledger as `story`'s, of a node that is in shadow mode."""
    opened = Ledger.open(url, Store(tmp_path / "store"), in_shadow=True)
    yield Story(opened)
    opened.close()


def outward(story: Story) -> bool:
    return any(story.claimable(stage) for stage in (Stage.DELIVER, Stage.NOTIFY))


def test_a_shadow_report_is_kept_and_shown_with_where_it_would_have_gone(dark: Story) -> None:
    dark.image(judged(HIGH))
    assert dark.final(PACS, OTHER, notify=(RIS,)) is not None
    assert set(dark.states()) == {SHADOW}
    [entry] = dark.ledger.worklist()
    assert entry.is_shadow
    assert entry.deliveries == ((OTHER, "shadow"), (PACS, "shadow"))
    assert entry.delivered_at is None
    assert {one.state for one in dark.ledger.told(STUDY)} == {NotificationState.SHADOW}
    assert any("never sent; it would have gone to" in event.text for event in dark.ledger.events(STUDY))
    assert dark.ledger.counts()["jobs"].get("deliver:queued") is None


@ON_SQLITE
def test_a_shadow_report_is_never_sent_not_when_the_node_goes_live_either(dark: Story, story: Story) -> None:
    dark.image(judged(HIGH))
    dark.final(PACS, notify=(RIS,))
    assert not outward(story)
    story.ledger.redirect(PACS, OTHER)
    story.ledger.hurry(PACS)
    assert not outward(story)
    assert set(story.states()) == {SHADOW}
    [*_, last] = story.ledger.study_objects(STUDY)
    assert not story.ledger.may_leave(1, PACS)
    assert last.is_shadow


@ON_SQLITE
def test_a_shadow_report_is_said_once_while_the_node_is_in_shadow_mode(dark: Story) -> None:
    dark.image(judged(HIGH))
    dark.final()
    made = len(dark.states())
    dark.image(judged(HIGH))
    final = dark.final()
    assert final is not None
    assert final.follows is not None
    assert [one.kind for one in final.predecessors] == []  # nobody outside has it
    assert len(dark.states()) == made + 1  # no second provisional one


@ON_SQLITE
def test_a_live_node_says_anew_what_was_said_in_shadow_only(dark: Story, story: Story) -> None:
    dark.image(judged(HIGH))
    dark.final()
    story.image(judged(HIGH), quiet_s=HOUR_S)
    provisional = story.report()
    assert provisional is not None
    assert (provisional.kind, provisional.follows, provisional.predecessors) == (ReportKind.PROVISIONAL, None, ())
    assert story.states()[-1] is WAITING
    assert [stored.sop_instance_uid for stored in story.deliver()] == [
        story.ledger.study_objects(STUDY)[-1].sop_instance_uid
    ]


def test_what_was_queued_live_is_held_in_shadow_mode_and_leaves_afterwards(dark: Story, story: Story) -> None:
    story.image(judged(LOW, 0.1))
    story.final(PACS, notify=(RIS,))
    assert not outward(dark)
    [waiting] = dark.ledger.study_objects(STUDY)
    assert not dark.ledger.may_leave(1, PACS)
    assert dark.ledger.oldest_outward_ages_s() == {Stage.DELIVER: {}, Stage.PROVE: {}, Stage.NOTIFY: {}}
    assert waiting.state is WAITING
    assert story.ledger.may_leave(1, PACS)
    assert story.claim(Stage.NOTIFY, RIS)
    assert story.deliver()


@ON_SQLITE
def test_a_later_shadow_report_does_not_silence_what_an_adapter_still_has_to_hear(dark: Story, story: Story) -> None:
    story.image(judged(LOW, 0.1))
    story.final(PACS, notify=(RIS,))
    dark.image(judged(HIGH))
    dark.final(PACS, notify=(RIS,))
    [job] = story.claim(Stage.NOTIFY, RIS)
    assert not story.ledger.notice(job).overtaken


def test_a_recall_in_shadow_mode_takes_back_what_is_outside(dark: Story, story: Story) -> None:
    story.reported(judged(LOW, 0.1))
    first = story.ledger.study_objects(STUDY)[0]
    dark.image(judged(HIGH))
    dark.final(PACS, OTHER)
    assert dark.ledger.recall("It was wrong.", study_uid=STUDY) == 1
    withdrawn = dark.final(PACS, OTHER)
    assert withdrawn is not None
    assert [one.sop_instance_uid for one in withdrawn.predecessors] == [first.sop_instance_uid]
    assert withdrawn.follows is not None
    assert withdrawn.follows.priority is LOW  # what a reader has seen, not what was said in shadow
    assert dark.deliver()  # it leaves
    kinds = [(one.report_kind, one.destination, one.state) for one in dark.ledger.study_objects(STUDY)]
    assert kinds[-1] == ("withdrawn", PACS, DELIVERED)
    assert ("withdrawn", OTHER, WAITING) not in kinds


@ON_SQLITE
def test_a_recall_of_what_was_said_in_shadow_only_stays_here_too(dark: Story) -> None:
    dark.image(judged(HIGH))
    dark.final(PACS, notify=(RIS,))
    dark.ledger.recall("It was wrong.", study_uid=STUDY)
    assert dark.final(PACS, OTHER, notify=(RIS,)) is not None
    assert not outward(dark)
    [*_, last] = dark.ledger.study_objects(STUDY)
    assert (last.report_kind, last.destination, last.state) == ("withdrawn", PACS, SHADOW)


@ON_SQLITE
def test_a_report_outside_is_taken_back_once(dark: Story, story: Story) -> None:
    story.reported(judged(LOW, 0.1))
    dark.ledger.recall("It was wrong.", study_uid=STUDY)
    dark.final()
    dark.deliver()
    dark.image(judged(HIGH))
    dark.final()
    dark.ledger.recall("Wrong again.", study_uid=STUDY)
    assert dark.final() is not None
    assert not outward(dark)


@ON_SQLITE
@pytest.mark.parametrize("rejected_all", [True, False])
def test_a_correction_in_shadow_mode_takes_back_and_puts_nothing_in_its_place(
    dark: Story, story: Story, rejected_all: bool
) -> None:
    worst = story.reported(judged(HIGH))
    kept = story.reported(judged(LOW, 0.1))
    dark.note("113037", worst, *([kept] if rejected_all else []))
    said = dark.final()
    assert said is not None
    assert said.kind is ReportKind.WITHDRAWN
    assert dark.deliver()
    assert not outward(dark)


@ON_SQLITE
def test_a_corrected_patient_takes_back_what_is_outside(dark: Story, story: Story) -> None:
    image = story.reported(judged(HIGH))
    dark.receive_again(image, BERTA, quiet_s=HOUR_S)
    said = dark.report()
    assert said is not None
    assert said.kind is ReportKind.WITHDRAWN
    assert dark.deliver()


def test_a_correction_of_what_was_said_in_shadow_only_is_said_in_shadow(dark: Story) -> None:
    worst = dark.image(judged(HIGH))
    dark.image(judged(LOW, 0.1))
    dark.final()
    dark.note("113001", worst)
    said = dark.final()
    assert said is not None
    assert (said.kind, said.priority) == (ReportKind.FINAL, LOW)
    assert not outward(dark)
    assert set(dark.states()) == {SHADOW}

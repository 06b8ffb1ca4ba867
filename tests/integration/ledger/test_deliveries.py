"""What waits for a destination, over SQLite and PostgreSQL alike: each has its own, the most urgent goes first."""

from ledger.ledger import Ledger
from ledger.records import DeliveryOutcome, DeliveryState, Stage
from tests.support.ledger_story import HIGH, LOW, MEDIUM, OTHER, PACS, Story
from tests.support.records import judged


def test_a_delivery_is_never_parked_for_its_attempts(ledger: Ledger, story: Story) -> None:
    story.image(judged(MEDIUM, 0.6))
    story.report(PACS)
    for _ in range(9):
        story.next(Stage.DELIVER)
        ledger.abandon("test", max_attempts=3)
    assert ledger.parked() == []


def test_each_destination_has_its_own_delivery(ledger: Ledger, story: Story) -> None:
    story.image(judged(MEDIUM, 0.6))
    story.report(PACS, OTHER)
    [stored] = story.deliver(PACS)
    assert dict(ledger.worklist()[0].deliveries) == {PACS: "delivered", OTHER: "waiting"}
    assert ledger.worklist()[0].delivered_at is None
    assert [item.object_id for item in story.deliver(OTHER, status=0x0111)] == [stored.object_id]
    assert ledger.worklist()[0].delivered_at is not None


def test_a_delivered_object_is_never_called_waiting_again(ledger: Ledger, story: Story) -> None:
    story.image(judged(MEDIUM, 0.6))
    story.report(PACS)
    job = story.next(Stage.DELIVER)
    [stored] = ledger.undelivered(job)
    ledger.record_delivery(job, DeliveryOutcome(stored.object_id, DeliveryState.DELIVERED, 0, ""))
    ledger.record_delivery(job, DeliveryOutcome(stored.object_id, DeliveryState.WAITING, None, "late answer"))
    assert ledger.undelivered(job) == []


def test_the_most_urgent_delivery_goes_first(ledger: Ledger, story: Story) -> None:
    story.image(judged(LOW, 0.1), study="1.1")
    story.report(PACS)
    story.image(judged(HIGH), study="1.2")
    story.report(PACS)
    assert [job.study_instance_uid for job in story.claim(Stage.DELIVER)] == ["1.2", "1.1"]


def test_what_waits_for_a_destination_can_be_redirected(ledger: Ledger, story: Story) -> None:
    story.image(judged(MEDIUM, 0.6), study="1.1")
    story.report(PACS, OTHER)
    story.image(judged(MEDIUM, 0.6), study="1.2")
    story.report(PACS)
    ledger.park(story.next(Stage.DELIVER, PACS), "PACS does not know us.")
    assert set(ledger.oldest_outward_ages_s()[Stage.DELIVER]) == {PACS, OTHER}
    assert ledger.redirect(PACS, "main-pacs") == 2
    assert ledger.parked() == []
    assert story.claim(Stage.DELIVER, PACS) == []
    moved = [story.next(Stage.DELIVER, "main-pacs") for _ in range(2)]
    assert [len(ledger.undelivered(job)) for job in moved] == [1, 1]
    assert len(story.claim(Stage.DELIVER, OTHER)) == 1


def test_what_a_destination_has_accepted_stays_with_it(ledger: Ledger, story: Story) -> None:
    story.image(judged(MEDIUM, 0.6))
    story.report(PACS)
    story.deliver()
    assert ledger.redirect(PACS, OTHER) == 0
    assert dict(ledger.worklist()[0].deliveries) == {PACS: "delivered"}


def test_a_destination_that_is_back_gets_what_waited_for_another_try(ledger: Ledger, story: Story) -> None:
    story.image(judged(MEDIUM, 0.6))
    story.report(PACS, OTHER)
    for destination in (PACS, OTHER):
        ledger.retry(story.next(Stage.DELIVER, destination), "Away.", 1000)
    ledger.hurry(PACS)
    assert [job.destination for job in story.claim(Stage.DELIVER)] == [PACS]

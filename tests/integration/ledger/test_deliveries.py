"""What waits for a destination, over SQLite and PostgreSQL alike: each has its own, the most urgent goes first."""

from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.ledger import Ledger
from ledger.outward import Refusal
from ledger.records import Stage
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


def put_off(ledger: Ledger, story: Story, *answers: int) -> None:
    """One delivery, tried once for each answer of the destination."""
    for status in answers:
        job = story.next(Stage.DELIVER, PACS)
        reason = f"Later (0x{status:04X})."
        for stored in ledger.undelivered(job):
            outcome = DeliveryOutcome(stored.object_id, DeliveryState.WAITING, status, reason, "SR, Implicit")
            ledger.record_delivery(job, outcome)
        ledger.retry(job, reason, 0)


def test_a_try_that_ends_as_the_one_before_it_is_counted_and_no_event(ledger: Ledger, story: Story) -> None:
    story.image(judged(MEDIUM, 0.6))
    story.report(PACS, OTHER)
    put_off(ledger, story, 0xA700)
    before = story.events()
    put_off(ledger, story, *[0xA700] * 5)
    assert story.events() == before
    [left] = ledger.still_to_leave(ledger.worklist()[0].study_instance_uid)
    assert (left.stage, left.destination, left.tries, left.reason) == (Stage.DELIVER, PACS, 6, "Later (0xA700).")
    put_off(ledger, story, 0x0213, 0xA700)  # each change is told, and how often it was tried until then
    study = ledger.worklist()[0].study_instance_uid
    told = [event.text for event in ledger.events(study) if event.name in ("delivery_waiting", "deliver_retry")]
    assert len(told) == 6
    assert ["0xA700" in text for text in told] == [True, True, False, False, True, True]
    assert all("after 7 tries" in text for text in told[2:4])
    story.deliver(PACS)
    [arrived] = [event.text for event in ledger.events(study) if event.name == "delivery_delivered"]
    assert "delivered after 9 tries, status 0x0000" in arrived
    assert ledger.still_to_leave(study) == []


def test_what_failed_as_before_is_told_again_after_a_person_released_it(ledger: Ledger, story: Story) -> None:
    story.image(judged(MEDIUM, 0.6))
    story.report(PACS)
    put_off(ledger, story, 0xA700)
    job = story.next(Stage.DELIVER)
    ledger.park(job, "Parked.")
    ledger.release(job.job_id)
    put_off(ledger, story, 0xA700)
    assert story.events().count("deliver_retry") == 2


def test_a_destination_says_why_its_reports_wait_in_its_newest_answer(ledger: Ledger, story: Story) -> None:
    for study in ("1.1", "1.2"):
        story.image(judged(MEDIUM, 0.6), study=study)
        story.report(PACS, OTHER)
    assert ledger.newest_answers() == {}
    put_off(ledger, story, 0x0213, 0xA700)
    assert ledger.newest_answers() == {PACS: "Later (0xA700)."}
    assert [len(story.deliver(PACS)) for _ in range(2)] == [1, 1]
    assert ledger.newest_answers() == {}


def test_a_destination_that_refused_says_so_until_a_person_releases_it(ledger: Ledger, story: Story) -> None:
    for study in ("1.1", "1.2"):
        story.image(judged(MEDIUM, 0.6), study=study)
        story.report(PACS)
        job = story.next(Stage.DELIVER)
        for stored in ledger.undelivered(job):
            outcome = DeliveryOutcome(stored.object_id, DeliveryState.REFUSED, None, f"No, says it of {study}.")
            ledger.record_delivery(job, outcome)
        ledger.park_delivery(job, "No.")
    assert ledger.refusals() == {PACS: Refusal(2, "No, says it of 1.2.")}
    for parked in ledger.parked():
        ledger.release(parked.job_id)
    assert ledger.refusals() == {}

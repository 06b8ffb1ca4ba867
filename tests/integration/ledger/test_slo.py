"""What is promised of times is judged once, when the time is up: what never arrives counts as late."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from ledger import slo
from ledger.completion import Completion
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.ledger import Ledger
from ledger.records import Job, ReportKind, Stage, TriagePriority
from ledger.slo import Tally
from tests.support.ledgers import all_to
from tests.support.records import judged, received, stored_object
from tests.support.waiting import wait_until

HIGH_AT_ONCE = (ReportKind.PROVISIONAL, TriagePriority.HIGH)
MEDIUM = (ReportKind.FINAL, TriagePriority.MEDIUM)
TARGETS = {HIGH_AT_ONCE: 1.0, MEDIUM: 100.0}
Judge = Callable[[], dict[slo.Promise, Tally]]


@pytest.fixture
def judge(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Tally without the pause that real transactions are given."""
    monkeypatch.setattr(slo, "LAG_S", 0.0)
    ledger.tally(TARGETS)

    def tally() -> dict[slo.Promise, Tally]:
        ledger.tally(TARGETS)
        return ledger.tallied()

    return tally


def reported(ledger: Ledger, priority: TriagePriority, ago_s: float, study_uid: str = "1.2.3") -> Job:
    """A study whose newest image came so long ago; its delivery, claimed."""
    at = datetime.now(UTC) - timedelta(seconds=ago_s)
    ledger.admit(received(study_uid, received_at=at), Completion(0.001))
    [job] = ledger.claim(Stage.ANALYSE, "test", 1, 60)
    ledger.finish_analysis(job, [judged(priority)])
    say(ledger)
    [delivery] = ledger.claim(Stage.DELIVER, "test", 1, 60, "pacs")
    return delivery


def say(ledger: Ledger) -> None:
    [job] = ledger.claim(Stage.REPORT, "test", 1, 60)
    made = [stored_object(ledger.store)]
    ledger.finish_report(job, ledger.study_findings(job), made, all_to(made, ["pacs"]))


def deliver(ledger: Ledger, job: Job) -> None:
    for one in ledger.undelivered(job):
        ledger.record_delivery(job, DeliveryOutcome(one.object_id, DeliveryState.DELIVERED, 0, ""))
    ledger.finish_delivery(job)


def test_a_report_that_arrived_in_time_is_in_time_and_counted_once(
    ledger: Ledger, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = reported(ledger, TriagePriority.MEDIUM, ago_s=50.0)
    deliver(ledger, job)
    took = ledger.took(job)
    assert took is not None
    monkeypatch.setitem(TARGETS, MEDIUM, took.seconds + 1.0)  # its time is up in a second, however slow this machine is
    found = wait_until(judge, 60.0, 0.2)
    assert found == {MEDIUM: Tally(due=1, late=0)}
    assert judge() == found


def test_a_report_that_does_not_arrive_is_late_without_having_arrived(ledger: Ledger, judge: Judge) -> None:
    job = reported(ledger, TriagePriority.HIGH, ago_s=5.0)
    assert judge() == {HIGH_AT_ONCE: Tally(due=1, late=1)}
    assert ledger.overdue(TARGETS) == {HIGH_AT_ONCE: 1, MEDIUM: 0}
    deliver(ledger, job)
    assert judge() == {HIGH_AT_ONCE: Tally(due=1, late=1)}
    assert ledger.overdue(TARGETS) == {HIGH_AT_ONCE: 0, MEDIUM: 0}


def test_nothing_is_judged_before_its_time_is_up(ledger: Ledger, judge: Judge) -> None:
    reported(ledger, TriagePriority.MEDIUM, ago_s=5.0)
    assert judge() == {}


def test_the_report_of_a_complete_study_that_repeats_a_provisional_one_has_no_clock(
    ledger: Ledger, judge: Judge
) -> None:
    deliver(ledger, reported(ledger, TriagePriority.HIGH, ago_s=500.0))
    say(ledger)
    [final] = ledger.claim(Stage.DELIVER, "test", 1, 60, "pacs")
    assert ledger.took(final) is None
    assert judge() == {HIGH_AT_ONCE: Tally(due=1, late=1)}


def test_what_a_person_asked_for_has_no_clock(ledger: Ledger, judge: Judge) -> None:
    deliver(ledger, reported(ledger, TriagePriority.MEDIUM, ago_s=500.0))
    ledger.recall("The model was wrong.", "1.2.3")
    say(ledger)
    [withdrawal] = ledger.claim(Stage.DELIVER, "test", 1, 60, "pacs")
    assert ledger.took(withdrawal) is None
    ledger.look_again("1.2.3", "A better model.")
    [job] = ledger.claim(Stage.ANALYSE, "test", 1, 60)
    ledger.finish_analysis(job, [judged(TriagePriority.MEDIUM)])
    say(ledger)
    [anew] = ledger.claim(Stage.DELIVER, "test", 1, 60, "pacs")
    assert ledger.took(anew) is None
    assert judge() == {MEDIUM: Tally(due=1, late=1)}


def test_how_long_it_took_is_counted_from_the_last_byte(ledger: Ledger) -> None:
    job = reported(ledger, TriagePriority.MEDIUM, ago_s=50.0)
    deliver(ledger, job)
    took = ledger.took(job)
    assert took is not None
    assert (took.kind, took.priority) == MEDIUM
    assert 50.0 <= took.seconds < 80.0


def test_what_fell_due_before_anybody_counted_is_let_be(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is upgraded does not begin with the sins of its past."""
    monkeypatch.setattr(slo, "LAG_S", 0.0)
    reported(ledger, TriagePriority.HIGH, ago_s=500.0)
    ledger.tally(TARGETS)
    ledger.tally(TARGETS)
    assert ledger.tallied() == {}

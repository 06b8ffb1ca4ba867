"""Right before an object leaves the ledger is asked once more; what we ourselves stopped is told and counted."""

from dataclasses import replace

from ledger.completion import Completion
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.ledger import Ledger
from ledger.notifications import NotificationState
from ledger.records import Job, Stage, StoredObject, TriagePriority
from tests.support.ledgers import all_to
from tests.support.records import judged, received, stored_object

PACS = "pacs"


def report(ledger: Ledger, study_uid: str = "1.2.3", patient: str = "") -> tuple[Job, list[StoredObject]]:
    """A report of two objects for the PACS: its delivery, claimed, and the objects."""
    ledger.admit(received(study_uid, patient_digest=patient), Completion(0.001))
    [job] = ledger.claim(Stage.ANALYSE, "test", 1, 60)
    ledger.finish_analysis(job, [judged(TriagePriority.HIGH)])
    [job] = ledger.claim(Stage.REPORT, "test", 1, 60)
    made = [stored_object(ledger.store) for _ in range(2)]
    ledger.finish_report(job, ledger.study_findings(job), made, all_to(made, [PACS]))
    [delivery] = ledger.claim(Stage.DELIVER, "test", 1, 60, PACS)
    return delivery, ledger.undelivered(delivery)


def test_an_object_may_leave_until_it_was_accepted_there(ledger: Ledger) -> None:
    delivery, [first, second] = report(ledger)
    assert ledger.may_leave(first.object_id, PACS)
    assert not ledger.may_leave(first.object_id, "another")
    ledger.record_delivery(delivery, DeliveryOutcome(first.object_id, DeliveryState.DELIVERED, 0, ""))
    assert not ledger.may_leave(first.object_id, PACS)
    assert ledger.may_leave(second.object_id, PACS)


def test_a_claim_that_is_older_than_a_hold_does_not_send(ledger: Ledger) -> None:
    _, [first, _] = report(ledger, patient="a" * 64)
    assert ledger.may_leave(first.object_id, PACS)
    ledger.admit(received("1.2.3", patient_digest="b" * 64), Completion(60))
    assert not ledger.may_leave(first.object_id, PACS)


def test_our_own_objects_of_a_study_are_those_of_all_its_reports_and_of_no_other_study(ledger: Ledger) -> None:
    _, objects = report(ledger)
    _, others = report(ledger, "1.2.4")
    assert ledger.own_objects(objects[0].report_id) == {one.sop_instance_uid for one in objects}
    assert ledger.own_objects(others[0].report_id) == {one.sop_instance_uid for one in others}


def test_what_was_stopped_is_an_event_of_its_study_and_counted_for_ever(ledger: Ledger) -> None:
    delivery, objects = report(ledger)
    assert ledger.counts()["stopped"] == {"wrong_patient": 0}
    for one in objects:
        stopped = DeliveryOutcome(one.object_id, DeliveryState.STOPPED, None, "It is somebody else's.")
        ledger.record_delivery(delivery, stopped)
    assert ledger.counts()["stopped"] == {"wrong_patient": 2}
    said = [event.text for event in ledger.events("1.2.3") if event.name == "wrong_patient_stopped"]
    assert said == ["pacs: It is somebody else's."] * 2
    ledger.record_delivery(delivery, DeliveryOutcome(objects[0].object_id, DeliveryState.REFUSED, 0xA900, "No."))
    assert ledger.counts()["stopped"] == {"wrong_patient": 2}


def stop(ledger: Ledger, delivery: Job, *objects: StoredObject) -> None:
    for one in objects:
        ledger.record_delivery(delivery, DeliveryOutcome(one.object_id, DeliveryState.STOPPED, None, "Not theirs."))


def test_what_is_stopped_now_is_what_has_not_gone_since(ledger: Ledger) -> None:
    delivery, [first, second] = report(ledger)
    assert ledger.stopped_and_held() == (0, 0)
    stop(ledger, delivery, first, second)
    ledger.park_delivery(delivery, "Not theirs.")
    assert ledger.stopped_and_held() == (2, 0)
    ledger.release(delivery.job_id)
    [delivery] = ledger.claim(Stage.DELIVER, "test", 1, 60, PACS)
    stop(ledger, delivery, second)  # the same once more
    ledger.record_delivery(delivery, DeliveryOutcome(first.object_id, DeliveryState.DELIVERED, 0, ""))
    assert ledger.stopped_and_held() == (1, 0)
    ledger.record_delivery(delivery, DeliveryOutcome(second.object_id, DeliveryState.DELIVERED, 0, ""))
    assert ledger.stopped_and_held() == (0, 0)
    assert ledger.counts()["stopped"] == {"wrong_patient": 2}


def test_the_forms_of_one_object_are_stopped_as_one(ledger: Ledger) -> None:
    ledger.admit(received("1.2.3"), Completion(0.001))
    [job] = ledger.claim(Stage.ANALYSE, "test", 1, 60)
    ledger.finish_analysis(job, [judged(TriagePriority.HIGH)])
    [job] = ledger.claim(Stage.REPORT, "test", 1, 60)
    forms = [(replace(one, choice="report"), path) for one, path in (stored_object(ledger.store) for _ in range(3))]
    ledger.finish_report(job, ledger.study_findings(job), forms, all_to(forms, [PACS, "other"]))
    for destination in (PACS, "other"):
        [delivery] = ledger.claim(Stage.DELIVER, "test", 1, 60, destination)
        stop(ledger, delivery, *ledger.undelivered(delivery))
    assert ledger.stopped_and_held() == (2, 0)
    assert ledger.counts()["stopped"] == {"wrong_patient": 2}


def test_a_message_that_was_stopped_stays_until_it_is_told_or_not_needed(ledger: Ledger) -> None:
    ledger.admit(received("1.2.3"), Completion(0.001))
    [job] = ledger.claim(Stage.ANALYSE, "test", 1, 60)
    ledger.finish_analysis(job, [judged(TriagePriority.HIGH)])
    [job] = ledger.claim(Stage.REPORT, "test", 1, 60)
    ledger.finish_report(job, ledger.study_findings(job), [stored_object(ledger.store)], {}, ["ris"])
    [telling] = ledger.claim(Stage.NOTIFY, "test", 1, 60, "ris")
    ledger.finish_notification(telling, NotificationState.STOPPED, "Not theirs.")
    assert ledger.stopped_and_held() == (1, 0)
    assert [parked.job_id for parked in ledger.parked()] == [telling.job_id]
    ledger.release(telling.job_id)
    [telling] = ledger.claim(Stage.NOTIFY, "test", 1, 60, "ris")
    ledger.finish_notification(telling, NotificationState.ACCEPTED)
    assert ledger.stopped_and_held() == (0, 0)


def test_a_report_that_was_stopped_stays_until_it_is_released(ledger: Ledger) -> None:
    ledger.admit(received("1.2.3"), Completion(0.001))
    [job] = ledger.claim(Stage.ANALYSE, "test", 1, 60)
    ledger.finish_analysis(job, [judged(TriagePriority.HIGH)])
    for trouble in ("stopped", "another"):
        [job] = ledger.claim(Stage.REPORT, "test", 1, 60)
        if trouble == "stopped":
            ledger.stop_report(job, "Not theirs.")
        else:
            ledger.park(job, "It cannot be built.")
        assert ledger.stopped_and_held() == (1 if trouble == "stopped" else 0, 0)
        ledger.release(job.job_id)
        assert ledger.stopped_and_held() == (0, 0)

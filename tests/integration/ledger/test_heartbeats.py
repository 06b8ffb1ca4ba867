"""A heartbeat goes the whole path and is a patient's study nowhere: not counted, not listed, in nobody's way."""

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from ledger.clinical import SINK
from ledger.completion import Completion
from ledger.delivery_records import DeliveryOutcome, DeliveryState
from ledger.heartbeats import FOREIGN
from ledger.intake import AdmissionOutcome
from ledger.ledger import Ledger
from ledger.peers import Observed
from ledger.records import Job, ReceivedInstance, ReportKind, Stage, TriagePriority
from ledger.tables import metadata
from tests.support.ledgers import all_to
from tests.support.records import judged, received, stored_object

HEART, SOP, MACHINE = "2.25.77", "2.25.78", "node-1"
STAYS = {"heartbeats", "installation"}


def beat(ledger: Ledger, priority: int = 0) -> ReceivedInstance:
    """Registered, and then received as anything is."""
    content = b"a synthetic radiograph"
    digest = hashlib.sha256(content).hexdigest()
    ledger.register_heartbeat(HEART, SOP, digest, MACHINE)
    return received(
        HEART,
        sop_instance_uid=SOP,
        sha256=digest,
        size_bytes=len(content),
        message_priority=priority,
        path=ledger.store.put("instances", digest, ".dcm", content),
    )


def look(ledger: Ledger, priority: TriagePriority = TriagePriority.LOW) -> Job:
    [job] = ledger.claim(Stage.ANALYSE, "test", 8, 60)
    ledger.finish_analysis(job, [judged(priority, 0.01)])
    return job


def say(ledger: Ledger) -> Job:
    [job] = ledger.claim(Stage.REPORT, "test", 1, 60)
    made = [stored_object(ledger.store)]
    ledger.finish_report(job, ledger.study_findings(job), made, all_to(made, [SINK]))
    return job


def take(ledger: Ledger) -> None:
    [job] = ledger.claim(Stage.DELIVER, "test", 1, 60, SINK)
    for one in ledger.undelivered(job):
        ledger.record_delivery(job, DeliveryOutcome(one.object_id, DeliveryState.DELIVERED, 0, ""))
    ledger.finish_delivery(job)


def clinical_work(ledger: Ledger) -> None:
    """A patient's study that was delivered, one that is parked and one that waits."""
    for number in range(3):
        ledger.admit(received(f"1.2.{number}"), Completion(0.001))
    for job in ledger.claim(Stage.ANALYSE, "test", 2, 60):
        ledger.finish_analysis(job, [judged(TriagePriority.MEDIUM)])
    for job in ledger.claim(Stage.REPORT, "test", 2, 60):
        made = [stored_object(ledger.store)]
        ledger.finish_report(job, ledger.study_findings(job), made, all_to(made, ["pacs"]))
    first, second = ledger.claim(Stage.DELIVER, "test", 2, 60, "pacs")
    for one in ledger.undelivered(first):
        ledger.record_delivery(first, DeliveryOutcome(one.object_id, DeliveryState.DELIVERED, 0, ""))
    ledger.finish_delivery(first, 60.0)
    ledger.park(second, "The PACS refuses it.")


def everything_counted(ledger: Ledger) -> dict[str, Any]:
    """What people, health and metrics are told."""
    return {
        "counts": ledger.counts(),
        "oldest": ledger.oldest_job_age_s() is None,
        "outward": {stage: sorted(ages) for stage, ages in ledger.oldest_outward_ages_s().items()},
        "parked": [job.job_id for job in ledger.parked()],
        "stopped": ledger.stopped_and_held(),
        "worklist": [entry.study_instance_uid for entry in ledger.worklist(include_hidden=True)],
        "to recall": ledger.to_recall(),
        "damaged": ledger.damaged_count(),
        "told": ledger.told_so_far(),
        "peers": [asdict(peer) for peer in ledger.peers()],
        "gaps": ledger.arrival_gaps(),
    }


def rows(ledger: Ledger) -> dict[str, int]:
    with ledger._read() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
            if table.name not in STAYS
        }


def files(ledger: Ledger) -> list[Path]:
    return sorted(path for path in ledger.store.root.rglob("*") if path.is_file())


def test_no_count_no_list_and_no_age_knows_a_heartbeat_wherever_it_is(ledger: Ledger) -> None:
    clinical_work(ledger)
    waiting = ledger.claim(Stage.ANALYSE, "test", 8, 60)  # out of the heartbeat's way
    before, rows_before, files_before = everything_counted(ledger), rows(ledger), files(ledger)
    ledger.admit(beat(ledger), Completion(20.0))
    assert everything_counted(ledger) == before
    for step in (look, say, take):
        step(ledger)
        assert everything_counted(ledger) == before, step.__name__
    ledger.end_heartbeat(HEART)
    assert everything_counted(ledger) == before
    assert rows(ledger) == rows_before
    assert files(ledger) == files_before
    ledger.finish_analysis(waiting[0], [judged(TriagePriority.LOW)])


def test_what_stays_says_when_it_was_where(ledger: Ledger) -> None:
    ledger.admit(beat(ledger), Completion(20.0))
    for step in (look, say, take):
        step(ledger)
    ledger.end_heartbeat(HEART)
    [pulse] = ledger.pulses()
    assert (pulse.machine, pulse.last) == (MACHINE, pulse.newest)
    assert pulse.newest.arrived
    assert list(pulse.newest.seconds) == ["receive", "analyse", "report", "deliver"]
    assert pulse.age_s < 60


def test_a_heartbeat_is_behind_every_patient_whatever_its_message_says(ledger: Ledger) -> None:
    """Nor does it share a batch with them: nobody's batch is longer for it."""
    ledger.admit(beat(ledger, priority=1), Completion(20.0))
    ledger.admit(received("1.2.3", message_priority=2), Completion(20.0))
    [first] = ledger.claim(Stage.ANALYSE, "test", 8, 60)
    assert first.study_instance_uid == "1.2.3"
    beat_now = ledger.heartbeat(HEART)
    assert beat_now is not None
    assert beat_now.behind == 1
    [second] = ledger.claim(Stage.ANALYSE, "test", 8, 60)
    assert (second.study_instance_uid, second.is_heartbeat) == (HEART, True)


def test_a_heartbeat_that_the_model_calls_urgent_is_reported_once_and_last(ledger: Ledger) -> None:
    ledger.admit(beat(ledger), Completion(20.0))
    look(ledger, TriagePriority.HIGH)
    job = say(ledger)
    assert (job.report_kind, job.is_heartbeat) == (ReportKind.FINAL, True)
    assert not ledger.claim(Stage.REPORT, "test", 8, 60)
    [delivery] = ledger.claim(Stage.DELIVER, "test", 8, 60, SINK)
    assert delivery.is_heartbeat


def test_where_no_model_is_meant_for_it_a_heartbeat_goes_the_rest_of_the_path(ledger: Ledger) -> None:
    ledger.admit(beat(ledger), Completion(20.0))
    [job] = ledger.claim(Stage.ANALYSE, "test", 8, 60)
    ledger.finish_analysis(job, [])
    [job] = ledger.claim(Stage.REPORT, "test", 1, 60)
    ledger.finish_report(job, ledger.study_findings(job))
    [job] = ledger.claim(Stage.DELIVER, "test", 1, 60, SINK)
    ledger.finish_delivery(job)
    ledger.end_heartbeat(HEART)
    [pulse] = ledger.pulses()
    assert pulse.newest.arrived


@pytest.mark.parametrize("change", [{"sop_instance_uid": "1.2.3.9"}, {"sha256": "f" * 64}])
def test_what_comes_under_a_heartbeats_uid_is_a_patients_and_is_kept(ledger: Ledger, change: dict[str, str]) -> None:
    """Somebody who learns the UID cannot make his study vanish, nor go uncounted."""
    own = beat(ledger)
    ledger.admit(own, Completion(20.0))
    stranger = received(HEART, **{"sop_instance_uid": SOP, "message_priority": 0, **change})
    admission = ledger.admit(replace(stranger), Completion(20.0))
    assert not admission.is_heartbeat
    ledger.end_heartbeat(HEART)
    assert [entry.study_instance_uid for entry in ledger.worklist()] == [HEART]
    assert sum(ledger.counts()["instances"].values()) == 2
    assert ledger.store.path(own.path).exists()
    found = ledger.heartbeat(HEART)
    assert found is not None
    assert found.failure == FOREIGN


def test_a_study_that_nobody_registered_is_no_heartbeat(ledger: Ledger) -> None:
    admission = ledger.admit(received("1.2.3", sop_instance_uid=SOP), Completion(20.0))
    assert not admission.is_heartbeat
    ledger.end_heartbeat("1.2.3")
    assert ledger.counts()["instances"] == {"analyse": 1}


def test_the_same_heartbeat_twice_is_still_one(ledger: Ledger) -> None:
    own = beat(ledger)
    first, again = (ledger.admit(own, Completion(20.0)) for _ in range(2))
    assert (first.outcome, again.outcome) == (AdmissionOutcome.NEW, AdmissionOutcome.RESENT)
    assert first.is_heartbeat
    assert again.is_heartbeat


def test_a_heartbeat_that_is_parked_says_where_and_why_and_is_no_parked_job(ledger: Ledger) -> None:
    ledger.admit(beat(ledger), Completion(20.0))
    [job] = ledger.claim(Stage.ANALYSE, "test", 8, 60)
    ledger.park(job, "The decoder cannot be started.")
    found = ledger.heartbeat(HEART)
    assert found is not None
    assert found.where == "it was not looked at: The decoder cannot be started."
    assert ledger.parked() == []
    ledger.end_heartbeat(HEART)
    [pulse] = ledger.pulses()
    assert pulse.last is None
    assert "decoder" in pulse.newest.where


def test_what_a_process_that_died_left_is_swept(ledger: Ledger) -> None:
    before = rows(ledger)
    ledger.admit(beat(ledger), Completion(20.0))
    assert ledger.sweep_heartbeats("another", 600.0) == 0
    assert ledger.sweep_heartbeats(MACHINE, 600.0) == 1
    assert rows(ledger) == before
    assert ledger.sweep_heartbeats(MACHINE, 600.0) == 0


def test_neither_recall_nor_a_second_look_touches_a_heartbeat(ledger: Ledger) -> None:
    ledger.admit(beat(ledger), Completion(20.0))
    look(ledger)
    say(ledger)
    assert ledger.recall("It was wrong.", HEART) == 0
    assert ledger.look_again(HEART, "A new model.") == 0


def test_a_heartbeat_that_is_being_removed_is_no_lost_instance(ledger: Ledger) -> None:
    """Its files go before its rows: a crash between leaves no file that nobody knows."""
    own = beat(ledger)
    ledger.admit(own, Completion(20.0))
    ledger.store.path(own.path).unlink()
    assert ledger.reconcile().lost == []


def test_a_caller_whose_every_association_was_the_nodes_own_call_is_no_peer(ledger: Ledger) -> None:
    ledger.observe({"OPENTRIAGE": Observed()})
    assert ledger.peers() == []

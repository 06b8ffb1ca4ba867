"""What every stage relies on, over SQLite and PostgreSQL alike."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ledger.completion import Completion
from ledger.errors import LeaseLost
from ledger.intake import AdmissionOutcome
from ledger.ledger import Ledger
from ledger.records import (
    Disposition,
    ImageResult,
    Job,
    ReportKind,
    Stage,
    StudyFindings,
    TriagePriority,
)
from ledger.store import Store
from tests.support.ledger_story import HIGH, LOW, MEDIUM, PACS, Story
from tests.support.records import judged, not_applicable, received, refused
from tests.support.waiting import wait_until

SOON = 0.05


def claim(ledger: Ledger, stage: Stage, limit: int = 10, lease_s: float = 60.0, **options: str) -> list[Job]:
    return ledger.claim(stage, "test", limit, lease_s, **options)


def claim_one(ledger: Ledger, stage: Stage) -> Job:
    return Story(ledger).next(stage)


def analyse(ledger: Ledger, *results: ImageResult, study_uid: str = "1.2.3", complete_after_s: float = SOON) -> None:
    ledger.admit(received(study_uid), Completion(complete_after_s))
    ledger.finish_analysis(claim_one(ledger, Stage.ANALYSE), results)


def report(ledger: Ledger, *destinations: str) -> StudyFindings | None:
    return Story(ledger).report(*destinations)


def test_an_admitted_image_is_queued_in_the_same_transaction(ledger: Ledger) -> None:
    admission = ledger.admit(received(), Completion(20))
    assert admission.outcome is AdmissionOutcome.NEW
    [job] = claim(ledger, Stage.ANALYSE)
    assert job.instance is not None
    assert (job.instance.instance_id, job.attempt) == (admission.instance_id, 1)


def test_the_same_bytes_again_make_no_second_job(ledger: Ledger) -> None:
    instance = received()
    first = ledger.admit(instance, Completion(20))
    again = ledger.admit(replace(instance, path="instances/ff/elsewhere.dcm"), Completion(20))
    assert again == replace(first, outcome=AdmissionOutcome.RESENT)
    assert len(claim(ledger, Stage.ANALYSE)) == 1


def test_other_bytes_under_the_same_uid_are_kept_beside_the_first_and_looked_at(ledger: Ledger) -> None:
    instance = received()
    first = ledger.admit(instance, Completion(20))
    other = replace(instance, sha256="e" * 64, path="instances/ee/other.dcm")
    second = ledger.admit(other, Completion(20))
    assert second.outcome is AdmissionOutcome.UID_CONFLICT
    assert second.instance_id != first.instance_id
    assert len(claim(ledger, Stage.ANALYSE)) == 2
    assert "uid_conflict" in [event.name for event in ledger.events("1.2.3")]
    assert ledger.find_instance(instance.sop_instance_uid, "e" * 64) is not None


@pytest.mark.parametrize("disposition", [Disposition.OWN_RESULT, Disposition.NOT_AN_IMAGE, Disposition.PRIOR])
def test_what_is_not_to_be_analysed_gets_no_job(ledger: Ledger, disposition: Disposition) -> None:
    ledger.admit(received(disposition=disposition), Completion(SOON))
    assert claim(ledger, Stage.ANALYSE) == []
    time.sleep(2 * SOON)
    assert claim(ledger, Stage.REPORT) == []
    [entry] = ledger.worklist(include_hidden=True)
    assert entry.is_prior is (disposition is Disposition.PRIOR)


def test_concurrent_claimers_never_share_a_job(ledger: Ledger) -> None:
    for _ in range(60):
        ledger.admit(received(), Completion(20))

    def take(_: int) -> list[int]:
        taken: list[int] = []
        while jobs := ledger.claim(Stage.ANALYSE, "test", 3, 60):
            taken += [job.job_id for job in jobs]
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [job_id for ids in pool.map(take, range(4)) for job_id in ids]
    assert len(taken) == 60
    assert len(set(taken)) == 60


def test_concurrent_admissions_of_one_study_queue_one_final_report(ledger: Ledger) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ledger.admit(received(), Completion(SOON)), range(40)))
    assert ledger.counts()["jobs"] == {"analyse:queued": 40, "report:queued": 1}


def test_an_urgent_message_is_claimed_first(ledger: Ledger) -> None:
    ledger.admit(received("1.1"), Completion(20))
    ledger.admit(received("1.2", message_priority=1), Completion(20))
    assert [job.study_instance_uid for job in claim(ledger, Stage.ANALYSE)] == ["1.2", "1.1"]


def test_a_worker_that_lost_its_lease_cannot_publish(ledger: Ledger) -> None:
    ledger.admit(received(), Completion(20))
    [late] = claim(ledger, Stage.ANALYSE, lease_s=0.01)
    wait_until(lambda: ledger.expire_leases() == 1, within_s=30)
    [current] = claim(ledger, Stage.ANALYSE)
    with pytest.raises(LeaseLost):
        ledger.finish_analysis(late, [judged(HIGH)])
    with pytest.raises(LeaseLost):
        ledger.renew(late, 60)
    assert ledger.worklist()[0].findings == ()
    ledger.finish_analysis(current, [judged(LOW, 0.1)])
    assert ledger.worklist()[0].priority is LOW


def test_a_renewed_lease_does_not_expire(ledger: Ledger) -> None:
    ledger.admit(received(), Completion(20))
    [job] = claim(ledger, Stage.ANALYSE, lease_s=0.2)
    ledger.renew(job, 60)
    time.sleep(0.3)
    assert ledger.expire_leases() == 0


def test_a_job_that_kills_its_workers_is_parked_and_the_study_is_not_assessed(ledger: Ledger) -> None:
    ledger.admit(received("1.1"), Completion(SOON))
    for _ in range(3):
        claim(ledger, Stage.ANALYSE, lease_s=60)
        assert ledger.abandon("test", max_attempts=3) == 1
    [parked] = ledger.parked()
    assert parked.stage is Stage.ANALYSE
    assert "3 attempts" in parked.reason
    [entry] = ledger.worklist()
    assert entry.priority is TriagePriority.NOT_ASSESSED
    findings = report(ledger)
    assert findings is not None
    assert findings.priority is TriagePriority.NOT_ASSESSED


def test_a_job_tried_before_is_claimed_alone(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.admit(received(), Completion(20))
    assert len(claim(ledger, Stage.ANALYSE)) == 3
    ledger.abandon("test")
    ledger.admit(received(), Completion(20))
    assert [len(claim(ledger, Stage.ANALYSE)) for _ in range(5)] == [1, 1, 1, 1, 0]


def test_what_was_tried_before_can_be_left_to_somebody_else(ledger: Ledger) -> None:
    ledger.admit(received(), Completion(20))
    [tried] = claim(ledger, Stage.ANALYSE)
    ledger.admit(received(), Completion(20))
    ledger.retry(tried, "The process that runs the models died.", 0.0)
    assert ledger.due_in_s(Stage.ANALYSE, tried=True) == 0
    [fresh] = ledger.claim(Stage.ANALYSE, "test", 8, 60.0, tried=False)
    assert fresh.attempt == 1
    assert ledger.due_in_s(Stage.ANALYSE, tried=False) is None
    assert ledger.claim(Stage.ANALYSE, "test", 8, 60.0, tried=False) == []
    [again] = ledger.claim(Stage.ANALYSE, "test", 8, 60.0, tried=True)
    assert (again.job_id, again.attempt) == (tried.job_id, 2)
    assert ledger.due_in_s(Stage.ANALYSE, tried=True) is None


def test_a_released_job_starts_afresh(ledger: Ledger) -> None:
    ledger.admit(received(), Completion(20))
    [job] = claim(ledger, Stage.ANALYSE)
    ledger.park(job, "The model package is broken.")
    assert claim(ledger, Stage.ANALYSE) == []
    assert ledger.release(job.job_id)
    assert not ledger.release(job.job_id)
    [again] = claim(ledger, Stage.ANALYSE)
    assert (again.job_id, again.attempt) == (job.job_id, 1)


def test_a_retry_waits_its_time(ledger: Ledger) -> None:
    ledger.admit(received(), Completion(20))
    [job] = claim(ledger, Stage.ANALYSE)
    began = time.monotonic()
    ledger.retry(job, "The GPU was busy.", 0.3)
    assert claim_one(ledger, Stage.ANALYSE).attempt == 2
    assert time.monotonic() - began > 0.29  # the ledger's clock counts in milliseconds


def test_the_final_report_waits_for_quiet(ledger: Ledger) -> None:
    ledger.admit(received(), Completion(0.2))
    ledger.finish_analysis(claim_one(ledger, Stage.ANALYSE), [judged(LOW, 0.1)])
    ledger.admit(received(), Completion(20))
    ledger.finish_analysis(claim_one(ledger, Stage.ANALYSE), [judged(LOW, 0.1)])
    time.sleep(0.4)
    assert claim(ledger, Stage.REPORT) == []


def test_the_final_report_waits_for_every_image_to_be_looked_at(ledger: Ledger) -> None:
    ledger.admit(received(), Completion(SOON))
    ledger.admit(received(), Completion(SOON))
    first, second = claim(ledger, Stage.ANALYSE)
    ledger.finish_analysis(first, [judged(LOW, 0.1)])
    time.sleep(3 * SOON)
    assert claim(ledger, Stage.REPORT) == []
    ledger.finish_analysis(second, [judged(MEDIUM, 0.6)])
    findings = report(ledger)
    assert findings is not None
    assert (findings.kind, findings.priority, len(findings.looked_at)) == (ReportKind.FINAL, MEDIUM, 2)


def test_a_high_image_is_reported_at_once_and_only_once(ledger: Ledger) -> None:
    analyse(ledger, judged(HIGH), complete_after_s=20)
    analyse(ledger, judged(HIGH), complete_after_s=20)
    [job] = claim(ledger, Stage.REPORT)
    assert job.report_kind is ReportKind.PROVISIONAL
    Story(ledger).report(PACS, job=job)
    analyse(ledger, judged(HIGH), complete_after_s=20)
    assert claim(ledger, Stage.REPORT) == []


def test_a_final_report_follows_a_provisional_one_and_says_whether_it_is_news(ledger: Ledger) -> None:
    analyse(ledger, judged(HIGH), study_uid="1.1")
    assert report(ledger, PACS) is not None
    analyse(ledger, judged(LOW, 0.1), study_uid="1.1")
    same = report(ledger, PACS)
    assert same is not None
    assert (same.kind, same.confirms) == (ReportKind.FINAL, True)
    assert ledger.worklist()[0].is_complete
    analyse(ledger, refused(), study_uid="1.1")
    revised = report(ledger, PACS)
    assert revised is not None
    assert not revised.confirms
    assert [reference.kind for reference in revised.predecessors] == ["text_sr"]
    assert not [event for event in ledger.events("1.1") if event.name == "lease_expired"]


def test_a_study_that_no_model_is_meant_for_gets_no_report_and_is_hidden(ledger: Ledger) -> None:
    analyse(ledger, not_applicable())
    assert report(ledger, PACS) is None
    assert ledger.worklist() == []
    [entry] = ledger.worklist(include_hidden=True)
    assert (entry.priority, entry.is_complete) == (None, True)


def test_a_study_is_as_urgent_as_its_worst_image_and_not_assessed_stands_above_low(ledger: Ledger) -> None:
    analyse(ledger, judged(LOW, 0.1), study_uid="1.1")
    analyse(ledger, refused(), study_uid="1.1")
    analyse(ledger, judged(LOW, 0.1), study_uid="1.2")
    analyse(ledger, judged(MEDIUM, 0.6), study_uid="1.3")
    analyse(ledger, judged(HIGH), study_uid="1.4")
    analyse(ledger, judged(LOW, 0.1), study_uid="1.4")
    listed = [(entry.study_instance_uid, entry.priority) for entry in ledger.worklist()]
    assert listed == [("1.4", HIGH), ("1.3", MEDIUM), ("1.1", TriagePriority.NOT_ASSESSED), ("1.2", LOW)]


def test_a_retried_final_report_gives_way_to_a_newer_one(ledger: Ledger) -> None:
    analyse(ledger, judged(MEDIUM, 0.6))
    old = claim_one(ledger, Stage.REPORT)
    ledger.admit(received(), Completion(SOON))
    ledger.retry(old, "The disk was slow.", 0)
    ledger.finish_analysis(claim_one(ledger, Stage.ANALYSE), [judged(MEDIUM, 0.6)])
    assert claim_one(ledger, Stage.REPORT).job_id != old.job_id
    assert claim(ledger, Stage.REPORT) == []


def test_a_retried_analysis_replaces_what_it_said_before(ledger: Ledger) -> None:
    ledger.admit(received(), Completion(20))
    [job] = claim(ledger, Stage.ANALYSE)
    ledger.park(job, "Broken.", refused("decode_failed"))
    ledger.release(job.job_id)
    ledger.finish_analysis(claim_one(ledger, Stage.ANALYSE), [judged(MEDIUM, 0.6)])
    [item] = ledger.study_instances("1.2.3")
    assert [result.priority for result in item.results] == [MEDIUM]


def test_a_commit_wakes_the_waiting_stage(ledger: Ledger) -> None:
    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        waiting = pool.submit(ledger.wait, Stage.ANALYSE, 30.0)
        ledger.admit(received(), Completion(20))
        waiting.result(timeout=60)
    assert time.monotonic() - started < 25


def test_waiting_ends_when_the_next_job_falls_due(ledger: Ledger) -> None:
    analyse(ledger, judged(LOW, 0.1), complete_after_s=0.3)
    started = time.monotonic()
    while not (jobs := claim(ledger, Stage.REPORT)):
        ledger.wait(Stage.REPORT, 30)
        assert time.monotonic() - started < 20
    assert jobs[0].report_kind is ReportKind.FINAL


def test_the_age_of_the_oldest_job_is_its_time_since_it_was_due(ledger: Ledger) -> None:
    assert ledger.oldest_job_age_s() is None
    ledger.admit(received(), Completion(1000))
    wait_until(lambda: (ledger.oldest_job_age_s() or 0) > 0.1, within_s=30)
    assert (ledger.oldest_job_age_s() or 0) < 100


def test_every_image_received_is_in_flight_or_at_an_end(ledger: Ledger) -> None:
    for i in range(6):
        ledger.admit(received(f"1.{i}"), Completion(20))
    done, parked, retried, *_ = claim(ledger, Stage.ANALYSE, 4)
    ledger.finish_analysis(done, [judged(LOW, 0.1)])
    ledger.park(parked, "Broken.")
    ledger.retry(retried, "Busy.", 100)
    counts = ledger.counts()
    jobs = {name: number for name, number in counts["jobs"].items() if name.startswith("analyse:")}
    assert jobs == {"analyse:succeeded": 1, "analyse:parked": 1, "analyse:queued": 3, "analyse:running": 1}
    assert counts["instances"] == {"analyse": 6}


def test_two_processes_see_one_installation(ledger: Ledger, url: str, tmp_path: Path) -> None:
    other = Ledger.open(url, Store(tmp_path / "store"))
    assert other.installation_uid == ledger.installation_uid
    assert other.installation_uid.startswith("2.25.")
    other.close()


def test_the_list_of_the_day_leaves_older_studies_out(ledger: Ledger) -> None:
    now = datetime.now(UTC)
    ledger.admit(received("1.1", received_at=now - timedelta(days=2)), Completion(20))
    ledger.admit(received("1.2", received_at=now), Completion(20))
    assert [entry.study_instance_uid for entry in ledger.worklist(now - timedelta(days=1))] == ["1.2"]


def test_the_list_counts_images_once_and_our_own_results_never(ledger: Ledger) -> None:
    first = received()
    ledger.admit(first, Completion(20))
    ledger.admit(replace(first, sha256="e" * 64, path="instances/ee/other.dcm"), Completion(20))
    later = datetime.now(UTC) + timedelta(hours=1)
    ledger.admit(received(disposition=Disposition.OWN_RESULT, received_at=later, modality="SR"), Completion(20))
    [entry] = ledger.worklist()
    assert (entry.instances, entry.uid_conflicts, entry.modality) == (1, 1, "DX")
    assert entry.last_received_at < later

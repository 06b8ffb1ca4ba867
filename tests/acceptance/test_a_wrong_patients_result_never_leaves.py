"""Files are exchanged behind the node's back: what would go to the wrong patient stays here, and nobody else waits."""

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from config import Settings, load_settings
from ledger.ledger import Ledger
from ledger.records import TriagePriority
from node.cli import app
from node.metrics import make_registry, render
from node.wiring import open_ledger
from tests.support.delivering import DeliverProcess, admit, jobs_left, look, report, site
from tests.support.dx import make_dx
from tests.support.patients import verdict
from tests.support.sink import Sink
from tests.support.waiting import wait_until

HIGH, LOW = TriagePriority.HIGH, TriagePriority.LOW


def patient(number: int) -> Dataset:
    return make_dx(PatientID=f"P{number}", PatientName=f"Patient^{number}", AccessionNumber=f"A{number}")


def exchange(ledger: Ledger, one: Dataset, other: Dataset) -> None:
    """The stored files of two images change places, as a failing disk or a careless restore might do it."""
    paths = [
        ledger.store.path(ledger.study_instances(str(ds.StudyInstanceUID))[0].instance.path) for ds in (one, other)
    ]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents), strict=True):
        path.write_bytes(content)


def reported_from_exchanged_files(ledger: Ledger, settings: Settings) -> list[Dataset]:
    """Three studies looked at; then two change places, and the reports are built."""
    images = [patient(number) for number in range(3)]
    for ds, priority in zip(images, (HIGH, LOW, LOW), strict=True):
        look(ledger, admit(ledger, ds, 3600.0 if priority is HIGH else 0.01), ds, priority)
    exchange(ledger, images[0], images[1])
    report(ledger, settings, [str(ds.StudyInstanceUID) for ds in images])
    return images


@pytest.mark.timeout(300)
def test_a_report_built_from_exchanged_files_is_stopped_told_and_counted(tmp_path: Path) -> None:
    sink = Sink()
    config = site(tmp_path, sink.port)
    settings = load_settings(config)
    ledger = open_ledger(settings)
    images = reported_from_exchanged_files(ledger, settings)
    with sink, DeliverProcess(config) as process:
        process.start()
        wait_until(lambda: not jobs_left(ledger), 60)
        found = verdict(images, [heard.read() for heard in sink.stored()])
        print(f"\nguarded: {found}")
        assert found.is_clean
        assert (found.answered, found.results) == (1, 1)  # the third study's, which waited for nobody
        uids = [str(ds.StudyInstanceUID) for ds in images]
        assert sorted(job.study_instance_uid for job in ledger.parked()) == sorted(uids[:2])
        assert all("its bytes changed" in job.reason for job in ledger.parked())
        for uid in uids[:2]:
            assert "wrong_patient_stopped" in [event.name for event in ledger.events(uid)]
        assert "wrong_patient_stopped" in process.log.read_text()
        stopped = ledger.counts()["stopped"]["wrong_patient"]
        assert stopped >= 2
        metrics = render(make_registry(settings, ledger)).decode()
        assert f"opentriage_wrong_patient_stopped_total {stopped}.0" in metrics

        exchange(ledger, images[0], images[1])  # a person puts the files right and lets the deliveries run again
        for job in ledger.parked():
            done = CliRunner().invoke(app, ["release", str(job.job_id), "--config", str(config)])
            assert done.exit_code == 0, done.output
        wait_until(lambda: not jobs_left(ledger), 60)
        again = verdict(images, [heard.read() for heard in sink.stored()])
        assert again.results == 1  # the reports themselves name the wrong patients: their own bytes give them away
        assert all("does not name the patient" in job.reason for job in ledger.parked())
    ledger.close()


@pytest.mark.timeout(300)
def test_without_the_guard_the_same_exchange_reaches_the_pacs(tmp_path: Path) -> None:
    """The control: the count does find results that went to the wrong patient."""
    sink = Sink()
    config = site(tmp_path, sink.port)
    settings = load_settings(config)
    ledger = open_ledger(settings)
    images = reported_from_exchanged_files(ledger, settings)
    with sink, DeliverProcess(config, "unguarded") as process:
        process.start()
        wait_until(lambda: not jobs_left(ledger), 60)
        found = verdict(images, [heard.read() for heard in sink.stored()])
    print(f"\nunguarded: {found}")
    assert found.wrong_patient == found.results - 1 >= 2
    assert ledger.parked() == []
    ledger.close()


@pytest.mark.timeout(300)
def test_files_put_right_after_a_good_report_let_it_go(tmp_path: Path) -> None:
    """The report was built from the right files; they were exchanged before it left, and then put back."""
    sink = Sink()
    config = site(tmp_path, sink.port)
    settings = load_settings(config)
    ledger = open_ledger(settings)
    images = [patient(number) for number in range(2)]
    for ds in images:
        look(ledger, admit(ledger, ds), ds, LOW)
    report(ledger, settings, [str(ds.StudyInstanceUID) for ds in images])
    exchange(ledger, *images)
    with sink, DeliverProcess(config) as process:
        process.start()
        wait_until(lambda: not jobs_left(ledger), 60)
        assert sink.stored() == []
        assert len(ledger.parked()) == 2
        exchange(ledger, *images)
        for job in ledger.parked():
            ledger.release(job.job_id)
        wait_until(lambda: not jobs_left(ledger), 60)
        found = verdict(images, [heard.read() for heard in sink.stored()])
    assert found.is_clean
    assert found.answered == 2
    ledger.close()

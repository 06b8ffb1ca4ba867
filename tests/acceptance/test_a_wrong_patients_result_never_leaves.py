"""Files are exchanged behind the node's back: what would go to the wrong patient stays here, and nobody else waits."""

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from config import load_settings
from ledger.records import Stage, TriagePriority
from node.cli import app
from node.roles.report import Say
from node.running.lease import LeaseKeeper
from node.watching.metrics import make_registry, render
from node.wiring import open_ledger
from sr_writer import build
from tests.support.delivering import DeliverProcess, admit, jobs_left, look, report, site
from tests.support.dx import make_dx
from tests.support.patients import Verdict, verdict
from tests.support.sink import Sink
from tests.support.waiting import wait_until

HIGH, LOW = TriagePriority.HIGH, TriagePriority.LOW


def patient(number: int) -> Dataset:
    return make_dx(PatientID=f"P{number}", PatientName=f"Patient^{number}", AccessionNumber=f"A{number}")


class Hospital:
    """Three studies that were looked at, the deliver role, and the PACS that it delivers to."""

    def __init__(self, folder: Path, fault: str = "none") -> None:
        self.sink = Sink()
        self.config = site(folder, self.sink.port)
        self.settings = load_settings(self.config)
        self.ledger = open_ledger(self.settings)
        self.images = [patient(number) for number in range(3)]
        self.uids = [str(ds.StudyInstanceUID) for ds in self.images]
        for ds, priority in zip(self.images, (HIGH, LOW, LOW), strict=True):
            look(self.ledger, admit(self.ledger, ds, 3600.0 if priority is HIGH else 0.01), ds, priority)
        self.process = DeliverProcess(self.config, fault)

    def __enter__(self) -> "Hospital":
        self.sink.__enter__()
        self.process.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.process.__exit__(*error)
        self.sink.__exit__(*error)
        self.ledger.close()

    def report(self, uids: list[str]) -> None:
        report(self.ledger, self.settings, uids)

    def report_again(self, uid: str) -> None:
        """The next report of a study that has one: its withdrawal."""
        jobs = self.ledger.claim(Stage.REPORT, "test", 9, 60)
        with LeaseKeeper(self.ledger, jobs, 60) as keeper:
            Say(self.ledger, self.settings).work(jobs, keeper)
        assert {one.report_kind for one in self.ledger.study_objects(uid)} >= {"withdrawn"}

    def deliver(self) -> Verdict:
        """Until nothing is on its way any more."""
        if not self.process.pid:
            self.process.start()
        wait_until(lambda: not jobs_left(self.ledger), 120)
        return verdict(self.images, [heard.read() for heard in self.sink.stored()])

    def exchange(self) -> None:
        """The stored files of two images change places, as a failing disk or a careless restore might do it."""
        paths = [self.ledger.store.path(self.ledger.study_instances(uid)[0].instance.path) for uid in self.uids[:2]]
        contents = [path.read_bytes() for path in paths]
        for path, content in zip(paths, reversed(contents), strict=True):
            path.write_bytes(content)

    def release(self) -> None:
        """A person looks at each job that is parked, and lets it run again."""
        for job in self.ledger.parked():
            done = CliRunner().invoke(app, ["release", str(job.job_id), "--config", str(self.config)])
            assert done.exit_code == 0, done.output

    def parked(self) -> dict[str, str]:
        return {job.study_instance_uid: job.reason for job in self.ledger.parked()}

    def assert_told_and_counted(self) -> None:
        assert set(self.parked()) == set(self.uids[:2])
        assert all("its bytes changed" in reason for reason in self.parked().values())
        for uid in self.uids[:2]:
            assert "wrong_patient_stopped" in [event.name for event in self.ledger.events(uid)]
        stopped = self.ledger.counts()["stopped"]["wrong_patient"]
        assert stopped >= 2
        metrics = render(make_registry(self.settings, self.ledger)).decode()
        assert f"opentriage_wrong_patient_stopped_total {stopped}.0" in metrics


@pytest.mark.timeout(300)
def test_no_report_is_made_from_exchanged_files_and_each_is_made_when_they_are_right(tmp_path: Path) -> None:
    with Hospital(tmp_path) as hospital:
        hospital.exchange()
        hospital.report(hospital.uids)
        found = hospital.deliver()
        assert found.is_clean
        assert (found.answered, found.results) == (1, 1)  # the third study's, which waited for nobody
        hospital.assert_told_and_counted()
        hospital.exchange()  # a person puts the files right
        hospital.release()
        hospital.report(hospital.uids[:2])
        found = hospital.deliver()
        assert found.is_clean
        assert found.answered == 3
        assert hospital.parked() == {}


@pytest.mark.timeout(300)
def test_files_exchanged_before_a_good_report_left_keep_it_here_until_they_are_right(tmp_path: Path) -> None:
    with Hospital(tmp_path) as hospital:
        hospital.report(hospital.uids)
        hospital.exchange()
        found = hospital.deliver()
        assert found.is_clean
        assert (found.answered, found.results) == (1, 1)
        hospital.assert_told_and_counted()
        assert "wrong_patient_stopped" in hospital.process.log.read_text()
        hospital.exchange()
        hospital.release()
        found = hospital.deliver()
        assert found.is_clean
        assert found.answered == 3


@pytest.mark.timeout(300)
def test_a_report_that_names_another_patient_than_its_images_is_told_how_to_be_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files were exchanged in the moment in which it was made."""
    with Hospital(tmp_path) as hospital:
        hospital.exchange()
        with monkeypatch.context() as patch:
            patch.setattr(build, "_prove_unchanged", lambda path, instance: None)
            hospital.report(hospital.uids)
        hospital.exchange()
        found = hospital.deliver()
        assert found.is_clean
        assert found.answered == 1
        assert all("recall" in reason and "look-again" in reason for reason in hospital.parked().values())


@pytest.mark.timeout(300)
def test_a_study_whose_stored_image_is_damaged_can_be_recalled_all_the_same(tmp_path: Path) -> None:
    with Hospital(tmp_path) as hospital:
        hospital.report(hospital.uids)
        hospital.deliver()
        hospital.exchange()
        for uid in hospital.uids[:2]:
            assert hospital.ledger.recall("Nobody knows whose image this is.", study_uid=uid) == 1
            hospital.report_again(uid)
        found = hospital.deliver()
        assert found.is_clean
        said = [heard.read() for heard in hospital.sink.stored()]
        withdrawn = {ds.StudyInstanceUID: ds.PatientID for ds in said if "withdrawn" in ds.SeriesDescription}
        assert withdrawn == {ds.StudyInstanceUID: ds.PatientID for ds in hospital.images[:2]}
        assert hospital.parked() == {}


@pytest.mark.timeout(300)
def test_without_the_guard_the_same_exchange_reaches_the_pacs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the count does find results that went to the wrong patient."""
    monkeypatch.setattr(build, "_prove_unchanged", lambda path, instance: None)
    with Hospital(tmp_path, "unguarded") as hospital:
        hospital.exchange()
        hospital.report(hospital.uids)
        found = hospital.deliver()
        assert found.wrong_patient == found.results - 1 >= 2
        assert hospital.parked() == {}

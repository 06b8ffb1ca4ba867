"""Adapters tell what a report says, once, to receivers that check: the priority, its changes, its withdrawal."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hl7
import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from config.settings import DeliverSettings, NodeSettings, Settings
from ledger.completion import Completion
from ledger.ledger import Ledger
from ledger.notifications import Notification, NotificationState
from ledger.records import Stage, TriagePriority
from ledger.retention import Rules
from ledger.shadow import enter
from node.commands.explain import app as explain
from node.commands.release import app as release
from node.roles.notify import Notifier
from node.roles.report import Say
from node.running.lease import LeaseKeeper
from tests.support import delivering
from tests.support.dx import make_dx
from tests.support.hearing import AFTER_BODY, Http, Ris, UpsService, is_signed
from tests.support.ledgers import open_fresh
from tests.support.peers import free_port
from tests.support.records import received
from tests.support.waiting import wait_until

WITHIN_S = 60.0
SECRET = b"a secret of the site 0123456789"
HIGH, MEDIUM, LOW = TriagePriority.HIGH, TriagePriority.MEDIUM, TriagePriority.LOW
NAME = "SENTINEL|NAME^Zoë~&\\=山田^太郎=やまだ^たろう"


class Site:
    """A ledger, the report role's work, and the loops of the adapters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger: Ledger = open_fresh(folder)
        self.stop = threading.Event()
        self.secret = folder / "secret"
        self.secret.write_bytes(SECRET + b"\n")
        self._threads: list[threading.Thread] = []
        self.settings = Settings()

    def adapters(self, *adapters: dict[str, Any]) -> None:
        """Start them."""
        self.settings = Settings(
            node=NodeSettings(state_dir=self.folder),
            deliver=DeliverSettings(retry_first_s=0.05, retry_max_s=0.2, response_timeout_s=60.0),
            adapters=[{"name": one["kind"]} | one for one in adapters],  # type: ignore[arg-type]
        )
        for adapter in self.settings.adapters:
            loop = Notifier(self.ledger, self.settings, adapter, self.stop)
            self._threads.append(threading.Thread(target=loop.run, daemon=True))
            self._threads[-1].start()

    def report(self, *priorities: TriagePriority, **header: object) -> list[str]:
        """A study and its report for each priority."""
        made = []
        for priority in priorities:
            ds = make_dx(**header)
            self.look(ds, priority)
            made.append(str(ds.StudyInstanceUID))
        delivering.report(self.ledger, self.settings, made)
        return made

    def report_before_it_starts(self, **adapter: Any) -> str:
        """A report that waits for an adapter whose loop does not run yet."""
        self.settings = Settings(node=NodeSettings(state_dir=self.folder), adapters=[adapter])  # type: ignore[arg-type]
        [study] = self.report(HIGH)
        return study

    def look(self, ds: Dataset, priority: TriagePriority, complete_after_s: float = 0.01) -> None:
        """An image comes, and a model says this of it."""
        job = delivering.admit(self.ledger, ds, 3600.0 if priority is HIGH else complete_after_s)
        delivering.look(self.ledger, job, ds, priority)

    def say(self) -> None:
        """Write the reports that are due."""
        [job] = wait_until(lambda: self.ledger.claim(Stage.REPORT, "test", 1, 60), WITHIN_S)
        with LeaseKeeper(self.ledger, [job], 60) as keeper:
            Say(self.ledger, self.settings).work([job], keeper)

    def recall(self, study: str) -> None:
        """A person withdraws the study's report."""
        assert self.ledger.recall("The model was wrong.", study) == 1
        self.say()

    def told(self, study: str, *states: str) -> list[Notification]:
        """Wait for the states of what the adapters were told of the study."""
        wanted = [NotificationState(state) for state in states]
        wait_until(lambda: [one.state for one in self.ledger.told(study)] == wanted, WITHIN_S)
        return self.ledger.told(study)

    def close(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(20)
        self.ledger.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def ris(port: int, **more: object) -> dict[str, Any]:
    return {"kind": "hl7", "host": "127.0.0.1", "port": port} | more


def values(message: hl7.Message, segment: str) -> list[Any]:
    return list(message.segments(segment)) if any(str(one[0]) == segment for one in message) else []


def observation(message: hl7.Message, code: str) -> Any:
    return next(one for one in values(message, "OBX") if str(one[3]).startswith(f"{code}^"))


# --- HL7 ---


def test_a_ris_hears_of_a_high_study_under_its_patient_and_order(site: Site) -> None:
    with Ris() as receiver:
        site.adapters(ris(receiver.port, sending_facility="Ward 7: X"))
        [study] = site.report(HIGH, PatientName=NAME, PatientID="4|7^1", AccessionNumber="ACC&9", PatientSex="F")
        site.told(study, "accepted")
    [heard] = receiver.heard
    msh, [pid], [obr], [tq1] = heard.segment("MSH"), values(heard, "PID"), values(heard, "OBR"), values(heard, "TQ1")
    assert (str(msh[9]), str(msh[12]), str(msh[18])) == ("ORU^R01^ORU_R01", "2.5", "UNICODE UTF-8")
    assert str(msh[4]) == "Ward 7: X"
    assert len(str(msh[10])) == 20
    assert heard.unescape(str(pid[3]).split("^")[0]) == "4|7^1"
    [line] = [line for line in receiver.raw[0].split("\r") if line.startswith("PID|")]
    names = line.split("|")[5].split("~")
    assert heard.unescape(names[0].split("^")[0]) == "SENTINEL|NAME"
    assert heard.unescape(names[0].split("^")[1]) == "Zoë~&\\"
    assert [name.split("^")[7] for name in names] == ["A", "I", "P"]
    assert names[1].startswith("山田^太郎^")
    assert str(pid[8]) == "F"
    assert [heard.unescape(str(obr[n])) for n in (3, 18)] == ["ACC&9", "ACC&9"]
    assert (str(obr[25]), str(tq1[9])) == ("P", "S^Stat^HL70485")
    priority = observation(heard, "PRIORITY")
    assert (str(priority[5][0][0]), str(priority[8]), str(priority[11])) == ("HIGH", "AA", "P")
    pneumonia = observation(heard, "233604007")
    assert (str(pneumonia[5]), str(pneumonia[8])) == ("52101004^Present^SCT", "AA")
    probability = observation(heard, "122157")
    assert (str(probability[2]), str(probability[5]), str(probability[6])) == ("NM", "93.00", "%^percent^UCUM")
    assert str(observation(heard, "113014")[5]) == study
    assert "research use only" in receiver.raw[0]
    assert "|N|" not in receiver.raw[0]


@pytest.mark.parametrize(
    ("priority", "flag", "result", "timing"), [(MEDIUM, "A", "P", ["A^ASAP^HL70485"]), (LOW, "", "P", [])]
)
def test_a_ris_that_wants_all_hears_each_priority_and_never_a_lower_one_than_before(
    site: Site, priority: TriagePriority, flag: str, result: str, timing: list[str]
) -> None:
    with Ris() as receiver:
        site.adapters(ris(receiver.port, on="all"))
        [study] = site.report(priority)
        site.told(study, "accepted")
    [heard] = receiver.heard
    said = observation(heard, "PRIORITY")
    assert (str(said[8]), str(said[11])) == (flag, result)
    assert [str(one[9]) for one in values(heard, "TQ1")] == timing
    assert "LOW" not in receiver.raw[0]
    assert "normal" not in receiver.raw[0].lower()


def test_only_what_an_adapter_wants_is_told(site: Site) -> None:
    with Ris() as receiver:
        site.adapters(ris(receiver.port))
        high, medium = site.report(HIGH, MEDIUM)
        site.told(high, "accepted")
    assert site.ledger.told(medium) == []
    assert len(receiver.heard) == 1


def test_an_application_error_is_tried_again_under_the_same_control_id_and_a_rejection_is_not(site: Site) -> None:
    with Ris() as receiver:
        receiver.answers.extend(["AE", AFTER_BODY, "CE", "AA", "AR"])
        receiver.error = "204"
        site.adapters(ris(receiver.port))
        [study] = site.report(HIGH)
        site.told(study, "accepted")
        assert len({str(heard.segment("MSH")[10]) for heard in receiver.heard}) == 1
        assert len(receiver.heard) == 4
        [rejected] = site.report(HIGH)
        [said] = site.told(rejected, "refused")
    assert len(receiver.heard) == 5
    assert "unknown key identifier (204)" in said.reason
    retries = [event.text for event in site.ledger.events(study) if event.name == "notify_retry"]
    assert len(retries) == 3
    assert "SENTINELNAME" not in str([site.ledger.events(uid) for uid in (study, rejected)])
    assert [job.stage for job in site.ledger.parked()] == [Stage.NOTIFY]


def test_a_receiver_that_was_away_hears_the_newest_of_each_study_and_nothing_twice(site: Site) -> None:
    port = free_port()
    site.adapters(ris(port, on="flagged"))
    ds = make_dx()
    study = str(ds.StudyInstanceUID)
    site.look(ds, MEDIUM)
    site.say()
    wait_until(lambda: "cannot be reached" in site.ledger.told(study)[0].reason, WITHIN_S)
    later = make_dx(StudyInstanceUID=study, PatientID=ds.PatientID, PatientName=ds.PatientName)
    site.look(later, HIGH)
    site.say()
    with Ris(port) as receiver:
        site.told(study, "not_needed", "accepted")
    assert [str(observation(heard, "PRIORITY")[8]) for heard in receiver.heard] == ["AA"]


def test_a_withdrawn_report_is_deleted_at_a_ris_that_heard_of_it(site: Site) -> None:
    with Ris() as receiver:
        site.adapters(ris(receiver.port))
        [study] = site.report(HIGH)
        site.told(study, "accepted")
        site.recall(study)
        site.told(study, "accepted", "accepted")
    withdrawn = receiver.heard[1]
    assert [str(observation(withdrawn, code)[11]) for code in ("PRIORITY", "233604007", "122157")] == ["D", "D", "D"]
    assert str(values(withdrawn, "OBR")[0][25]) == "C"
    assert values(withdrawn, "TQ1") == []
    assert str(observation(withdrawn, "PRIORITY")[8]) == ""


@pytest.mark.parametrize("mode", ["live", "shadow"])
def test_where_adapters_alone_are_told_a_recall_reaches_them_after_retention_removed_the_images(
    mode: str, site: Site
) -> None:
    """Its patient is read from the reports that were kept here, which nobody was sent."""
    with Ris() as receiver, Http().up() as hook:
        told = {"kind": "webhook", "url": hook.url, "secret_file": site.secret, "on": "all"}
        site.adapters(ris(receiver.port, on="all"), told)
        [study] = site.report(MEDIUM, PatientID="4711", AccessionNumber="A-17")
        site.told(study, "accepted", "accepted")
        assert site.ledger.remove_old(Rules(images_s=1e-9), of_images=True).instances == 1
        if mode == "shadow":
            enter(site.ledger._engine, in_shadow=True)
        site.recall(study)
        assert not site.ledger.parked()
        site.told(study, *["accepted"] * 4)
    withdrawn = receiver.heard[1]
    assert str(observation(withdrawn, "PRIORITY")[11]) == "D"
    assert (str(values(withdrawn, "PID")[0][3]), str(values(withdrawn, "OBR")[0][18])) == ("4711", "A-17")
    assert [one.json["report"] for one in hook.asked] == ["final", "withdrawn"]


def test_a_recall_of_what_nobody_was_told_needs_no_images_either(site: Site) -> None:
    [study] = site.report(MEDIUM)
    assert site.ledger.remove_old(Rules(images_s=1e-9), of_images=True).instances == 1
    site.recall(study)
    assert not site.ledger.parked()
    assert site.ledger.told(study) == []


def test_a_withdrawal_is_not_told_to_whom_nothing_was_told(site: Site) -> None:
    with Ris() as receiver:
        site.adapters(ris(receiver.port))
        receiver.answers.append("AR")
        [study] = site.report(HIGH)
        site.told(study, "refused")
        site.recall(study)
        assert [one.state for one in site.ledger.told(study)] == [NotificationState.NOT_NEEDED]
    assert len(receiver.heard) == 1


def test_a_person_releases_what_an_adapter_was_refused(site: Site) -> None:
    with Ris() as receiver:
        receiver.answers.append("AR")
        site.adapters(ris(receiver.port))
        [study] = site.report(HIGH)
        site.told(study, "refused")
        [parked] = site.ledger.parked()
        config = site.folder / "site.toml"
        adapter = f'[[adapters]]\nkind = "hl7"\nname = "hl7"\nhost = "127.0.0.1"\nport = {receiver.port}\n'
        database = f'database_url = "sqlite:///{site.folder / "ledger.sqlite"}"\n'
        config.write_text(f'[node]\nstate_dir = "{site.folder}"\n{database}{adapter}')
        done = CliRunner().invoke(release, [str(parked.job_id), "--config", str(config)])
        assert done.exit_code == 0, done.output
        site.told(study, "accepted")
        told = CliRunner().invoke(explain, [study, "--config", str(config)]).output
    assert "hl7: provisional report, priority HIGH: accepted" in told


# --- UPS-RS ---


def ups(service: UpsService, **more: object) -> dict[str, Any]:
    return {"kind": "ups", "url": service.url} | more


def test_a_workitem_is_created_raised_and_cancelled_as_the_standard_says(site: Site) -> None:
    service = UpsService()
    with service.up():
        site.adapters(ups(service, on="flagged"))
        ds = make_dx(PatientName="Wörk^Item", AccessionNumber="ACC9")
        study = str(ds.StudyInstanceUID)
        site.look(ds, MEDIUM)
        site.say()
        site.told(study, "accepted")
        [(uid, workitem)] = service.workitems.items()
        assert workitem.ScheduledProcedureStepPriority == "MEDIUM"
        assert (str(workitem.PatientName), workitem.StudyInstanceUID) == ("Wörk^Item", study)
        assert workitem.ReferencedRequestSequence[0].AccessionNumber == "ACC9"
        site.look(make_dx(StudyInstanceUID=study, PatientID=ds.PatientID, PatientName=ds.PatientName), HIGH)
        site.say()
        site.told(study, "accepted", "accepted")
        assert service.workitems[uid].ScheduledProcedureStepPriority == "HIGH"
        site.recall(study)
        site.told(study, "accepted", "accepted", "accepted")
        assert service.workitems[uid].ProcedureStepState == "CANCELED"
    assert service.faults == []
    assert list(service.workitems) == [uid]


def test_a_create_whose_answer_was_lost_is_not_made_twice(site: Site) -> None:
    class Lossy(UpsService):
        def reply(self, asked: Any) -> int:
            status = super().reply(asked)
            return 0 if len(self.asked) == 1 else status

    service = Lossy()
    with service.up():
        site.adapters(ups(service))
        [study] = site.report(HIGH)
        site.told(study, "accepted")
    assert [workitem.ScheduledProcedureStepPriority for workitem in service.workitems.values()] == ["HIGH"]
    assert service.faults == []


def test_a_workitem_that_somebody_works_on_is_left_alone(site: Site) -> None:
    service = UpsService()
    with service.up():
        site.adapters(ups(service, on="flagged"))
        ds = make_dx()
        study = str(ds.StudyInstanceUID)
        site.look(ds, MEDIUM)
        site.say()
        site.told(study, "accepted")
        [workitem] = service.workitems.values()
        workitem.ProcedureStepState = "IN PROGRESS"
        site.look(make_dx(StudyInstanceUID=study, PatientID=ds.PatientID, PatientName=ds.PatientName), HIGH)
        site.say()
        site.told(study, "accepted", "not_needed")
    assert workitem.ScheduledProcedureStepPriority == "MEDIUM"


def test_a_worklist_is_told_again_after_503_and_401_waits_for_a_person(site: Site) -> None:
    service = UpsService()
    (site.folder / "token").write_text("opensesame\n")
    with service.up():
        service.answers.extend([503, 503])
        site.adapters(ups(service, token_file=str(site.folder / "token")))
        [study] = site.report(HIGH)
        site.told(study, "accepted")
        assert len(service.asked) == 3
        service.answers.append(401)
        [locked_out] = site.report(HIGH)
        [said] = site.told(locked_out, "refused")
    assert "check the credentials" in said.reason
    assert {asked.headers["authorization"] for asked in service.asked} == {"Bearer opensesame"}


# --- webhook ---


def hook(server: Http, site: Site, **more: object) -> dict[str, Any]:
    return {"kind": "webhook", "url": server.url, "secret_file": str(site.secret)} | more


def test_a_webhook_gets_a_signed_document_that_names_no_patient(site: Site) -> None:
    server = Http()
    with server.up():
        site.adapters(hook(server, site))
        [study] = site.report(HIGH, PatientName="SENTINELNAME^Z", PatientID="SENTINELID", AccessionNumber="SENTINELACC")
        site.told(study, "accepted")
        site.recall(study)
        site.told(study, "accepted", "accepted")
    first, second = server.asked
    assert is_signed(first, SECRET)
    assert not is_signed(first, SECRET + b"!")
    assert not is_signed(type(first)(first.path, first.headers, first.body + b" "), SECRET)
    assert b"SENTINEL" not in first.body
    said = first.json
    assert (said["schema"], said["priority"], said["study_instance_uid"]) == ("opentriage.notice/1", "HIGH", study)
    assert [(one["label"], one["presence"], one["probability"]) for one in said["findings"]] == [
        ("pneumonia", "Present", 0.93)
    ]
    assert first.headers["opentriage-delivery"] == said["id"] != second.json["id"]
    assert (second.json["report"], second.json["priority"], second.json["findings"]) == ("withdrawn", None, [])


def test_a_webhook_names_the_study_only_as_the_settings_say(site: Site) -> None:
    server = Http()
    with server.up():
        site.adapters(hook(server, site, study_instance_uid=False, accession_number=True))
        [study] = site.report(HIGH, AccessionNumber="ACC9")
        site.told(study, "accepted")
    assert server.asked[0].json["accession_number"] == "ACC9"
    assert study.encode() not in server.asked[0].body


@pytest.mark.parametrize(("status", "word"), [(400, "refused the report"), (302, "redirects"), (307, "redirects")])
def test_a_webhook_that_refuses_is_not_asked_again_and_a_redirect_is_not_followed(
    site: Site, status: int, word: str
) -> None:
    server = Http()
    with server.up():
        server.answers.append(status)
        site.adapters(hook(server, site))
        [study] = site.report(HIGH)
        [said] = site.told(study, "refused")
        assert word in said.reason
        [parked] = site.ledger.parked()
        assert site.ledger.release(parked.job_id)
        site.told(study, "accepted")
    assert [asked.path for asked in server.asked] == ["/in", "/in"]


def test_a_webhook_that_was_down_is_told_once_it_is_back(site: Site) -> None:
    server = Http()
    site.adapters(hook(server, site))
    [study] = site.report(HIGH)
    wait_until(lambda: "cannot be reached" in site.ledger.told(study)[0].reason, WITHIN_S)
    server.answers.extend([500, 0, 429])
    with server.up():
        site.told(study, "accepted")
    assert len(server.asked) == 4
    assert len({asked.headers["opentriage-delivery"] for asked in server.asked}) == 1


def test_without_a_secret_nothing_leaves(site: Site) -> None:
    server = Http()
    with server.up():
        site.secret.write_bytes(b"short\n")
        site.adapters(hook(server, site))
        [study] = site.report(HIGH)
        wait_until(lambda: "fewer than 16 bytes" in site.ledger.told(study)[0].reason, WITHIN_S)
        assert server.asked == []
        site.secret.write_bytes(SECRET)
        site.told(study, "accepted")


# --- all ---


def test_one_adapter_that_is_away_delays_no_other(site: Site) -> None:
    server = Http()
    with server.up():
        site.adapters(ris(free_port()), hook(server, site))
        [study] = site.report(HIGH)
        wait_until(lambda: server.asked, WITHIN_S)
        assert {one.adapter: one.state.value for one in site.told(study, "waiting", "accepted")} == {
            "hl7": "waiting",
            "webhook": "accepted",
        }


def damage(path: Path) -> None:
    """A stored image says something else than what was received."""
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"MONOCHROME2", b"MONOCHROME1"))


def test_a_source_that_changed_is_told_to_nobody(site: Site) -> None:
    with Ris() as receiver:
        study = site.report_before_it_starts(**ris(receiver.port, name="hl7"))
        [item] = site.ledger.study_instances(study)
        damage(site.ledger.store.path(item.instance.path))
        site.adapters(ris(receiver.port))
        [said] = site.told(study, "stopped")
    assert "is not what was received" in said.reason
    assert receiver.heard == []
    assert site.ledger.counts()["stopped"] == {"wrong_patient": 1}


def test_another_source_of_the_report_that_changed_stops_it_too(site: Site) -> None:
    first = make_dx()
    uid = str(first.StudyInstanceUID)
    with Ris() as receiver:
        told = ris(receiver.port, name="hl7", on="all")
        site.settings = Settings(node=NodeSettings(state_dir=site.folder), adapters=[told])  # type: ignore[list-item]
        jobs = [(ds, delivering.admit(site.ledger, ds, 1.0)) for ds in (first, make_dx(StudyInstanceUID=uid))]
        for ds, job in jobs:
            delivering.look(site.ledger, job, ds, LOW)
        delivering.report(site.ledger, site.settings, [uid])
        [waiting] = site.ledger.claim(Stage.NOTIFY, "test", 1, 60, "hl7")
        speaks = site.ledger.notice(waiting).source
        site.ledger.retry(waiting, "", 0.0)
        [silent] = [one.instance for one in site.ledger.study_instances(uid) if one.instance != speaks]
        damage(site.ledger.store.path(silent.path))
        site.adapters(ris(receiver.port))
        [said] = site.told(uid, "stopped")
    assert "is not what was received" in said.reason
    assert receiver.heard == []
    assert site.ledger.counts()["stopped"] == {"wrong_patient": 1}
    assert "wrong_patient_stopped" in [event.name for event in site.ledger.events(uid)]


def test_a_study_that_is_held_after_its_report_was_claimed_is_told_to_nobody(site: Site) -> None:
    with Ris() as receiver:
        study = site.report_before_it_starts(**ris(receiver.port, name="hl7"))
        [job] = site.ledger.claim(Stage.NOTIFY, "test", 1, 60, "hl7")
        for digest in ("a" * 64, "b" * 64):
            site.ledger.admit(received(study, patient_digest=digest), Completion(60))
        Notifier(site.ledger, site.settings, site.settings.adapters[0], site.stop).work([job])
        [said] = site.told(study, "waiting")
    assert said.reason == "its study is held"
    assert receiver.heard == []


def test_no_patient_is_named_in_the_log_or_the_events(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    server, service = Http(), UpsService()
    with Ris() as receiver, server.up(), service.up():
        receiver.answers.extend(["AE", "AR"])
        server.answers.extend([500, 400])
        service.answers.extend([500, 400])
        receiver.error = "207"
        site.adapters(ris(receiver.port), hook(server, site), ups(service))
        [study] = site.report(HIGH, PatientName="SENTINELNAME^Z", PatientID="SENTINELID", AccessionNumber="SENTINELACC")
        site.told(study, "refused", "refused", "refused")
    said: Sequence[object] = [site.ledger.events(study), site.ledger.told(study), *capfd.readouterr()]
    assert "notice_refused" in str(said)
    assert "SENTINEL" not in str(said)
    assert "SENTINELNAME" in receiver.raw[0]

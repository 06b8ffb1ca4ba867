"""What waits for a destination: the most urgent first after an outage, and never stranded in silence."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pydicom.uid import UID
from structlog.testing import capture_logs
from typer.testing import CliRunner

from config import Settings, load_settings
from ledger.completion import Completion
from ledger.delivery_records import DeliveryOutcome, DeliveryState, Proof, ProofOutcome
from ledger.errors import LedgerUnavailable
from ledger.ledger import Ledger
from ledger.notifications import NotificationState
from ledger.records import Stage, StoredObject, TriagePriority
from ledger.store import Store
from node.cli import app
from node.roles.deliver import Deliverer, say_what_is_stranded
from node.watching import health
from node.watching.metrics import make_registry, render
from node.web.app import make_app
from node.wiring import open_ledger
from sr_writer.errors import NotProven, Unreachable
from tests.support import delivering
from tests.support.asgi import Client
from tests.support.dx import make_dx
from tests.support.ledgers import all_to
from tests.support.records import judged, received, stored_object
from tests.support.sink import Answer, Sink
from tests.support.waiting import wait_until

HIGH, MEDIUM, LOW = TriagePriority.HIGH, TriagePriority.MEDIUM, TriagePriority.LOW


def settings_with(folder: Path, *names: str, limit_s: float = 300.0, adapters: Sequence[str] = ()) -> Settings:
    path = folder / "site.toml"
    blocks = "".join(
        f'[[destinations]]\nname = "{name}"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\n'
        for port, name in enumerate(names, start=1)
    )
    blocks += "".join(
        f'[[adapters]]\nname = "{name}"\nkind = "hl7"\nhost = "127.0.0.1"\nport = 1\n' for name in adapters
    )
    path.write_text(f'[node]\nstate_dir = "{folder}"\n[web]\noldest_job_max_s = {limit_s}\n{blocks}')
    return load_settings(path)


def report(
    ledger: Ledger, priority: TriagePriority, study_uid: str, *destinations: str, notify: Sequence[str] = ()
) -> None:
    """A report of `priority` that waits for `destinations` and for the adapters `notify`."""
    ledger.admit(received(study_uid), Completion(0.01))
    [job] = ledger.claim(Stage.ANALYSE, "test", 1, 60)
    ledger.finish_analysis(job, [judged(priority, 0.9 if priority is HIGH else 0.1)])
    while True:
        [job] = wait_until(lambda: ledger.claim(Stage.REPORT, "test", 1, 60), 30)
        own = job.study_instance_uid == study_uid  # else the final report of an earlier study: not what is asked for
        findings = ledger.study_findings(job) if own else None
        made = [stored_object(ledger.store)] if findings else []
        ledger.finish_report(job, findings, made, all_to(made, destinations), notify if made else ())
        if own:
            return


class ScriptedSender:
    """A destination that is away for the first try and takes everything afterwards."""

    def __init__(self) -> None:
        self.tries = 0
        self.took: list[TriagePriority] = []

    def send(
        self, objects: Sequence[StoredObject], store: Store, on_outcome: Callable[[DeliveryOutcome], None]
    ) -> None:
        self.tries += 1
        if self.tries == 1:
            raise Unreachable("PACS does not answer")
        for stored in objects:
            self.took.append(stored.priority)
            on_outcome(DeliveryOutcome(stored.object_id, DeliveryState.DELIVERED, 0, ""))


class Impatient(threading.Event):
    """Time flies while the thread waits, but not in the ledger: a report that is not due stays behind."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(0.01)


def test_after_an_outage_the_most_urgent_report_goes_first(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "pacs").model_copy(
        update={"deliver": Settings().deliver.model_copy(update={"retry_first_s": 5.0, "retry_max_s": 5.0})}
    )
    ledger = open_ledger(settings)
    report(ledger, HIGH, "1.1", "pacs")
    stop, sender = Impatient(), ScriptedSender()
    deliverer = Deliverer(ledger, settings, settings.destinations[0], stop)
    deliverer._sender = sender  # type: ignore[assignment]
    thread = threading.Thread(target=deliverer.run)
    thread.start()
    try:
        wait_until(lambda: sender.tries >= 1, 20)
        report(ledger, LOW, "1.2", "pacs")  # never tried, so never delayed
        wait_until(lambda: len(sender.took) == 2, 20)
    finally:
        stop.set()
        thread.join(20)
        ledger.close()
    assert sender.took == [HIGH, LOW]


class Busy:
    """A destination that wants every object later; what the last look stops is told as such."""

    def __init__(self, look: Callable[[StoredObject, bytes], None]) -> None:
        self._look = look
        self.heard: list[DeliveryOutcome] = []

    def send(
        self, objects: Sequence[StoredObject], store: Store, on_outcome: Callable[[DeliveryOutcome], None]
    ) -> None:
        for item in objects:
            try:
                self._look(item, store.read(item.path))
                outcome = DeliveryOutcome(item.object_id, DeliveryState.WAITING, 0xA700, "Later.")
            except NotProven as error:
                outcome = DeliveryOutcome(item.object_id, DeliveryState.STOPPED, None, str(error))
            self.heard.append(outcome)
            on_outcome(outcome)


def test_a_source_that_changed_between_two_attempts_is_seen_though_its_file_says_it_is_as_old(tmp_path: Path) -> None:
    settings = load_settings(delivering.site(tmp_path, 1))
    ledger = open_ledger(settings)
    ds = make_dx()
    delivering.look(ledger, delivering.admit(ledger, ds), ds, LOW)
    delivering.report(ledger, settings, [str(ds.StudyInstanceUID)])
    deliverer = Deliverer(ledger, settings, settings.destinations[0], threading.Event())
    busy = Busy(deliverer._last_look)
    deliverer._sender = busy  # type: ignore[assignment]
    deliverer._once()
    first = len(busy.heard)
    assert first
    assert all(outcome.state is DeliveryState.WAITING for outcome in busy.heard)
    path = ledger.store.path(ledger.study_instances(str(ds.StudyInstanceUID))[0].instance.path)
    was = path.stat()
    path.chmod(0o600)
    with path.open("r+b") as file:  # the same inode and size
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    wait_until(lambda: deliverer._once() or len(busy.heard) > first, 20)
    assert {outcome.state for outcome in busy.heard[first:]} == {DeliveryState.STOPPED}
    assert all("its bytes changed" in outcome.reason for outcome in busy.heard[first:])
    assert ledger.counts()["stopped"] == {"wrong_patient": 1}  # of one object, in however many forms
    ledger.close()


def test_a_parked_delivery_says_a_refusal_once_and_names_every_form_that_was_tried(tmp_path: Path) -> None:
    refusal = Answer("0122", 0x0122, stored=False)
    with Sink(lambda heard: refusal) as sink:
        settings = load_settings(delivering.site(tmp_path, sink.port))
        ledger = open_ledger(settings)
        ds = make_dx()
        delivering.look(ledger, delivering.admit(ledger, ds), ds, MEDIUM)
        delivering.report(ledger, settings, [str(ds.StudyInstanceUID)])
        Deliverer(ledger, settings, settings.destinations[0], threading.Event())._once()
        tried = {UID(heard.sop_class_uid).name for heard, _ in sink.heard}
        [parked] = ledger.parked()
        ledger.close()
    assert len(tried) > 1
    assert parked.reason.count("does not support") == 1
    assert {name: parked.reason.count(name) for name in tried} == dict.fromkeys(tried, 1)


def test_a_destination_that_takes_nothing_now_is_warned_of_once_a_minute_and_not_once_an_object(tmp_path: Path) -> None:
    with Sink(lambda heard: Answer("A700", 0xA700, stored=False)) as sink:
        settings = load_settings(delivering.site(tmp_path, sink.port))
        ledger = open_ledger(settings)
        delivering.fill(ledger, settings, [MEDIUM, LOW])
        deliverer = Deliverer(ledger, settings, settings.destinations[0], threading.Event())
        with capture_logs() as logs:
            deliverer._once()
        ledger.close()
    assert len(sink.heard) > 1
    [warned] = [line for line in logs if line["log_level"] == "warning"]
    assert (warned["event"], warned["status"]) == ("destination_puts_off", "0xA700")
    assert "(0xA700: out of resources, often a full disk there)" in warned["reason"]


class Silent:
    """A destination that takes the association and never answers the first object."""

    def send(
        self, objects: Sequence[StoredObject], store: Store, on_outcome: Callable[[DeliveryOutcome], None]
    ) -> None:
        said, context = "pacs did not answer within 60 s.", "SR, Implicit VR"
        for item in objects:
            on_outcome(DeliveryOutcome(item.object_id, DeliveryState.WAITING, None, said, context))
            said, context = "pacs did not answer what was sent before it.", ""


def test_a_report_waits_for_what_was_sent_of_it_and_not_for_what_was_not(tmp_path: Path) -> None:
    settings = load_settings(delivering.site(tmp_path, 1))
    ledger = open_ledger(settings)
    [study] = delivering.fill(ledger, settings, [HIGH])
    deliverer = Deliverer(ledger, settings, settings.destinations[0], threading.Event())
    deliverer._sender = Silent()  # type: ignore[assignment]
    deliverer._once()
    [left] = ledger.still_to_leave(study)
    waiting = [made.reason for made in ledger.study_objects(study) if made.state is DeliveryState.WAITING]
    ledger.close()
    assert len(waiting) > 1
    assert left.reason == "pacs did not answer within 60 s."


@pytest.mark.usefixtures("healthy_otherwise")
def test_health_says_what_the_destination_says_whose_reports_wait(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "pacs", limit_s=0.2)
    ledger = open_ledger(settings)
    report(ledger, LOW, "1.1", "pacs")
    [job] = ledger.claim(Stage.DELIVER, "test", 1, 60)
    ledger.retry(job, "pacs cannot take the SR now (0xA700: out of resources); it is tried again.", 0)
    [reason] = wait_until(lambda: health.HealthCheck(settings, ledger).check().reasons, 30)
    ledger.close()
    assert "the oldest report for pacs has waited" in reason
    assert reason.endswith(
        "s; its last try: pacs cannot take the SR now (0xA700: out of resources); it is tried again."
    )


@pytest.mark.usefixtures("healthy_otherwise")
def test_a_destination_that_rejects_us_is_named_with_the_cure_and_all_that_it_parked_is_released_at_once(
    tmp_path: Path,
) -> None:
    settings = settings_with(tmp_path, "pacs", "other", adapters=["ris"])
    ledger = open_ledger(settings)
    for study, *destinations in (("1.1", "pacs"), ("1.2", "pacs", "other")):
        report(ledger, LOW, study, *destinations)
        for name in destinations:
            [job] = ledger.claim(Stage.DELIVER, "test", 1, 60, name)
            for item in ledger.undelivered(job):
                said = f"{name} rejected the association for good (1/7): it does not answer to the AE title PACS."
                ledger.record_delivery(job, DeliveryOutcome(item.object_id, DeliveryState.REFUSED, None, said))
            ledger.park_delivery(job, "It rejects us.")
    sentences = [one for one in health.HealthCheck(settings, ledger).check().alarms if "pacs refuses" in one]
    assert sentences == [
        "the destination pacs refuses reports, and 2 are parked for it: pacs rejected the association for good (1/7): "
        "it does not answer to the AE title PACS; when that is mended, `opentriage release --all-for 'pacs'`"
    ]
    before = ledger.audit_count()
    assert release(tmp_path, "--all-for", "pacs") == (0, "2 jobs for pacs are queued again")
    assert ledger.audit_count() == before + 2
    assert [job.destination for job in ledger.parked()] == ["other"]
    assert release(tmp_path, "--all-for", "pacs")[0] == 1
    assert release(tmp_path, "--all-for", "nobody")[0] == 2
    assert release(tmp_path, "--all-for", "pacs", "7")[0] == 2
    ledger.close()


@pytest.fixture
def healthy_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "own_echo", lambda settings, timeout_s: True)


@pytest.mark.usefixtures("healthy_otherwise")
def test_health_is_red_when_a_report_waits_too_long_for_its_destination(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "pacs", limit_s=0.2)
    ledger = open_ledger(settings)
    report(ledger, LOW, "1.1", "pacs")
    check = health.HealthCheck(settings, ledger)
    reasons = wait_until(lambda: check.check().reasons, 30)
    assert "the oldest report for pacs has waited" in reasons[0]
    ledger.close()


@pytest.mark.usefixtures("healthy_otherwise")
@pytest.mark.parametrize("question", ["oldest_job_age_s", "oldest_outward_ages_s", "parked", "stopped_and_held"])
def test_health_is_red_when_the_ledger_leaves_any_question_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    def away(ledger: Ledger) -> None:
        raise LedgerUnavailable("the database is locked")

    settings = settings_with(tmp_path, "pacs")
    ledger = open_ledger(settings)
    monkeypatch.setattr(Ledger, question, away)
    assert health.HealthCheck(settings, ledger).check().reasons == ("the ledger cannot be read",)
    ledger.close()


@pytest.mark.usefixtures("healthy_otherwise")
def test_a_stopped_result_and_a_held_study_are_alarms_that_name_nobody(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, "pacs")
    ledger = open_ledger(settings)
    check = health.HealthCheck(settings, ledger)
    report(ledger, LOW, "1.1", "pacs")
    assert check.check().alarms == ()
    [job] = ledger.claim(Stage.DELIVER, "test", 1, 60, "pacs")
    [item] = ledger.undelivered(job)
    ledger.record_delivery(job, DeliveryOutcome(item.object_id, DeliveryState.STOPPED, None, "SENTINEL"))
    for digest in ("a" * 64, "b" * 64):
        ledger.admit(received("1.2", patient_digest=digest), Completion(60))
    found = check.check()
    ledger.close()
    stopped, held = found.alarms
    assert "nobody could show whose they are: 1;" in stopped
    assert "name different patients: 1;" in held
    assert not any(secret in " ".join(found.alarms) for secret in ("SENTINEL", "1.1", "1.2", "a" * 64))
    assert (found.reasons, found.degraded) == ((), False)


@pytest.mark.usefixtures("healthy_otherwise")
def test_a_destination_that_left_the_settings_is_no_silent_grave(tmp_path: Path) -> None:
    before, after = settings_with(tmp_path, "old"), settings_with(tmp_path, "new")
    ledger = open_ledger(before)
    report(ledger, LOW, "1.1", "old")
    assert health.HealthCheck(before, ledger).check().reasons == ()
    reasons = health.HealthCheck(after, ledger).check().reasons
    assert reasons == ("reports wait for old, which the settings no longer name",)
    site = ["--config", str(tmp_path / "site.toml")]
    wrong = CliRunner().invoke(app, ["release", "--from", "old", "--to", "nowhere", *site])
    assert (wrong.exit_code, "there are: new" in wrong.output) == (2, True)
    done = CliRunner().invoke(app, ["release", "--from", "old", "--to", "new", *site])
    assert done.exit_code == 0, done.output
    assert health.HealthCheck(after, ledger).check().reasons == ()
    assert len(ledger.claim(Stage.DELIVER, "test", 1, 60, "new")) == 1
    ledger.close()


def test_a_parked_job_for_an_unknown_destination_is_not_released_into_nowhere(tmp_path: Path) -> None:
    before = settings_with(tmp_path, "old")
    ledger = open_ledger(before)
    report(ledger, LOW, "1.1", "old")
    [job] = ledger.claim(Stage.DELIVER, "test", 1, 60)
    ledger.park(job, "PACS does not know us.")
    settings_with(tmp_path, "new")
    done = CliRunner().invoke(app, ["release", str(job.job_id), "--config", str(tmp_path / "site.toml")])
    assert done.exit_code == 1
    assert "--from 'old' --to NAME" in " ".join(done.output.split())
    assert len(ledger.parked()) == 1
    ledger.close()


def release(folder: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["release", *arguments, "--config", str(folder / "site.toml")])
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.usefixtures("healthy_otherwise")
def test_health_is_red_when_a_message_waits_too_long_for_its_adapter(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, limit_s=0.2, adapters=["ris"])
    ledger = open_ledger(settings)
    report(ledger, LOW, "1.1", notify=["ris"])
    reasons = wait_until(lambda: health.HealthCheck(settings, ledger).check().reasons, 30)
    ledger.close()
    assert "the oldest message for the adapter ris has waited" in reasons[0]


@pytest.mark.usefixtures("healthy_otherwise")
@pytest.mark.parametrize("parked", [False, True])
def test_an_adapter_that_left_the_settings_is_no_silent_grave(tmp_path: Path, parked: bool) -> None:
    before = settings_with(tmp_path, "pacs", adapters=["ris", "ups"])
    ledger = open_ledger(before)
    report(ledger, LOW, "1.1", "pacs", notify=["ris", "ups"])
    if parked:
        [job] = ledger.claim(Stage.NOTIFY, "test", 1, 60, "ris")
        ledger.finish_notification(job, NotificationState.REFUSED, "It does not know us.")
    assert health.HealthCheck(before, ledger).check().reasons == ()
    assert release(tmp_path, "--drop", "ris")[0] == 1  # somebody still works on it
    after = settings_with(tmp_path, "pacs", "ris", adapters=["ups"])  # a destination of its name is no adapter
    [reason] = health.HealthCheck(after, ledger).check().reasons
    assert reason == "messages wait for the adapter ris, which the settings no longer name"
    if parked:
        status, said = release(tmp_path, str(job.job_id))
        assert (status, "for the adapter ris" in said, "--drop 'ris'" in said) == (1, True, True)
    assert release(tmp_path, "--drop", "ris") == (0, "1 job is given up")
    assert health.HealthCheck(after, ledger).check().reasons == ()
    assert {one.adapter: one.state.value for one in ledger.told("1.1")} == {"ris": "not_needed", "ups": "waiting"}
    assert len(ledger.claim(Stage.NOTIFY, "test", 1, 60, "ups")) == 1
    ledger.close()


def accepted(ledger: Ledger, study_uid: str, destination: str) -> None:
    """A report that the destination accepted, and of which it is to be asked."""
    report(ledger, LOW, study_uid, destination)
    [job] = ledger.claim(Stage.DELIVER, "test", 1, 60, destination)
    for item in ledger.undelivered(job):
        ledger.record_delivery(job, DeliveryOutcome(item.object_id, DeliveryState.DELIVERED, 0, ""))
    ledger.finish_delivery(job, 0.0)


@pytest.mark.usefixtures("healthy_otherwise")
def test_a_destination_that_left_the_settings_before_it_was_asked_is_no_silent_grave(tmp_path: Path) -> None:
    before, after = settings_with(tmp_path, "old"), settings_with(tmp_path, "new")
    ledger = open_ledger(before)
    accepted(ledger, "1.1", "old")
    assert health.HealthCheck(before, ledger).check().reasons == ()
    [reason] = health.HealthCheck(after, ledger).check().reasons
    assert reason == "proofs of what was delivered wait for old, which the settings no longer name"
    report(ledger, LOW, "1.2", "old")
    [reason] = health.HealthCheck(after, ledger).check().reasons
    assert reason == "reports wait for old, which the settings no longer name"  # and are not given up
    status, said = release(tmp_path, "--drop", "old")
    assert (status, "--from 'old' --to NAME" in said) == (1, True)
    [job] = ledger.claim(Stage.DELIVER, "test", 1, 60, "old")
    ledger.finish_delivery(job)
    assert release(tmp_path, "--drop", "old") == (0, "1 job is given up")
    assert health.HealthCheck(after, ledger).check().reasons == ()
    assert {one.proof.value for one in ledger.study_objects("1.1")} == {"unproven"}
    ledger.close()


@pytest.mark.usefixtures("healthy_otherwise")
def test_what_a_destination_lost_again_and_again_goes_to_the_one_that_replaces_it(tmp_path: Path) -> None:
    settings_with(tmp_path, "old")
    after = settings_with(tmp_path, "new")
    ledger = open_ledger(after)
    accepted(ledger, "1.1", "old")
    [job] = wait_until(lambda: ledger.claim(Stage.PROVE, "test", 1, 60, "old"), 30)
    for item in ledger.unproven(job):
        ledger.record_proof(job, ProofOutcome(item.object_id, Proof.MISSING, "It is not there."))
    ledger.give_up_proof(job, "It loses everything.")
    [reason] = health.HealthCheck(after, ledger).check().reasons
    assert reason == "reports wait for old, which the settings no longer name"
    assert release(tmp_path, "--from", "old", "--to", "new")[0] == 0
    [moved] = ledger.claim(Stage.DELIVER, "test", 1, 60, "new")
    assert len(ledger.undelivered(moved)) == 1
    assert health.HealthCheck(after, ledger).check().reasons == ()
    ledger.close()


def test_what_waits_for_nobody_is_an_error_in_the_log_with_its_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_with(tmp_path, "new")
    ledger = open_ledger(settings)
    report(ledger, LOW, "1.1", "old", notify=["ris"])
    say_what_is_stranded(ledger, settings)
    ledger.close()
    adapter, destination = sorted(line for line in capsys.readouterr().out.splitlines() if "unknown" in line)
    assert all(word in adapter for word in ("error", "adapter_unknown", "ris", "release --drop 'ris'"))
    assert all(word in destination for word in ("error", "destination_unknown", "old", "release --from 'old'"))


def test_the_page_and_the_metrics_count_what_adapters_are_still_to_hear_and_refused(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, adapters=["ris", "ups: ward 7"])
    ledger = open_ledger(settings)
    page = Client(make_app(settings, ledger))
    assert "Adapters" not in page.get("/").text
    report(ledger, LOW, "1.1", notify=["ris", "ups: ward 7"])
    report(ledger, LOW, "1.2", notify=["ris"])
    [job] = ledger.claim(Stage.NOTIFY, "test", 1, 60, "ris")
    ledger.finish_notification(job, NotificationState.REFUSED, "It does not know us.")
    shown = " ".join(page.get("/").text.split())
    metrics = render(make_registry(settings, ledger)).decode()
    ledger.close()
    assert "Adapters: ris 1 waiting, 1 refused; ups: ward 7 1 waiting, 0 refused" in shown
    assert 'opentriage_notifications{adapter="ris",state="refused"} 1.0' in metrics
    assert 'opentriage_notifications{adapter="ups: ward 7",state="waiting"} 1.0' in metrics
